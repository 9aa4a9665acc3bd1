"""The section `evaluate`: metrics, thresholds and calibration."""

from typing import Annotated, Literal

from pydantic import Field

from beam_jobs.contract.validation import Section


class EvaluateConfig(Section):
    """The evaluation."""

    batch_size: int = Field(1024, ge=1, description="documents per step, over all replicas")
    at_k: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 3, 5), min_length=1, description="the k of precision, recall and nDCG at k"
    )
    min_positives: int = Field(
        10,
        ge=1,
        description=(
            "validation positives that a label needs for a threshold and a calibration of its "
            "own; the others use those of all labels together"
        ),
    )
    calibration: Literal["none", "temperature", "platt", "isotonic"] = Field(
        "none",
        description=(
            "how scores are calibrated on the validation split: not, by one scale, by a scale and "
            "a bias per label, or by a curve per label"
        ),
    )
    bootstrap_replicates: int = Field(
        200,
        ge=0,
        description="bootstrap replicates, for the 95% intervals of the headline metrics; 0: none",
    )
    propensity_a: float = Field(
        0.55,
        ge=0,
        description=(
            "A of the labels' propensities in propensity-scored precision (Jain et al. 2016)"
        ),
    )
    propensity_b: float = Field(
        1.5,
        ge=0,
        description=(
            "B of the same; the paper uses 0.55 and 1.5, for Wikipedia 0.5 and 0.4, for Amazon "
            "0.6 and 2.6"
        ),
    )
