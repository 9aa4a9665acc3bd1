"""The section `loss`: what training makes small."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from beam_jobs.contract.validation import Path_, Section


class _Loss(Section):
    name: str  # each kind has its own; it is here to be the first key
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="the target of a label is moved towards 1/2 by this fraction"
    )
    negatives: Literal["all", "sampled"] = Field(
        "all",
        description=(
            "the labels that a document's loss is computed on: all, or its own and a sample of "
            "the others, in which frequent labels are more often; for 10,000 labels and more, "
            "whose output layer then trains only the rows drawn"
        ),
    )
    num_sampled: int = Field(
        2048, ge=1, description="labels drawn per step, where negatives are `sampled`"
    )


class WeightedBceConfig(_Loss):
    """Binary cross-entropy with weighted positives: sum over labels, mean over the global batch."""

    name: Literal["weighted_bce"] = Field("weighted_bce", description="the loss")
    pos_weight: Literal["none", "sqrt", "balanced", "effective_number", "file"] = Field(
        "sqrt",
        description=(
            "weight of a label's positives, from the train split: 1, sqrt(negatives / positives), "
            "negatives / positives, the ratio of their effective numbers, or read from "
            "pos_weight_file"
        ),
    )
    max_pos_weight: float = Field(
        20.0,
        ge=1,
        description="positive weights are clipped to [1, this]; those from a file are not",
    )
    effective_number_beta: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="n documents count as (1 - beta^n) / (1 - beta) in effective_number",
    )
    pos_weight_file: Path_ | None = Field(
        None, description="JSON file, an object with the weight of each label by its name"
    )

    @pydantic.model_validator(mode="after")
    def _file_where_it_is_read(self):
        if (self.pos_weight == "file") != (self.pos_weight_file is not None):
            raise ValueError(
                "expected pos_weight_file with `pos_weight: file` only, not "
                f"{self.pos_weight_file!r} with {self.pos_weight!r}"
            )
        return self


class SquaredHingeConfig(_Loss):
    """Squared hinge, the loss of linear support vector machines (Fan et al. 2008, equation 3)."""

    name: Literal["squared_hinge"] = Field(description="the loss")
    margin: float = Field(
        4.0,
        gt=0,
        description=(
            "positives with a logit above this, and negatives with one below minus this, have no "
            "loss"
        ),
    )
    pos_weight: Literal["none", "fourth_root"] = Field(
        "none",
        description=(
            "weight of a label's positives: 1, or the fourth root of negatives / positives, at "
            "least 1"
        ),
    )


class FocalConfig(_Loss):
    """Focal loss (Lin et al. 2017): labels that are predicted well weigh less."""

    name: Literal["focal"] = Field(description="the loss")
    gamma: float = Field(2.0, ge=0, description="focusing; 0: none")
    alpha: float | None = Field(
        0.25,
        gt=0,
        lt=1,
        description="weight of positives, and 1 - alpha of negatives; null: 1 for both",
    )


class AsymmetricConfig(_Loss):
    """Asymmetric loss (Ridnik et al. 2021): stronger focusing of negatives, none of the easiest."""

    name: Literal["asymmetric"] = Field(description="the loss")
    gamma_positive: float = Field(0.0, ge=0, description="focusing of positives")
    gamma_negative: float = Field(4.0, ge=0, description="focusing of negatives")
    probability_shift: float = Field(
        0.05, ge=0, lt=1, description="negatives with a probability up to this have no loss"
    )


class ClassBalancedConfig(_Loss):
    """Class-balanced loss (Cui et al. 2019): labels weighted by the inverse effective number."""

    name: Literal["class_balanced"] = Field(description="the loss")
    beta: float = Field(
        0.999, ge=0, lt=1, description="n documents count as (1 - beta^n) / (1 - beta)"
    )
    gamma: float = Field(0.0, ge=0, description="focusing as in focal loss; 0: none")


class DistributionBalancedConfig(_Loss):
    """Distribution-balanced loss (Wu et al. 2020, Huang et al. 2021).

    Labels are rebalanced by those they occur with, and negatives are tolerated.
    """

    name: Literal["distribution_balanced"] = Field(description="the loss")
    alpha: float = Field(
        0.1,
        ge=0,
        description=(
            "the smoothed weight of a label in a document is alpha + sigmoid(beta * (weight - mu))"
        ),
    )
    beta: float = Field(10.0, gt=0, description="slope of the smoothing")
    mu: float = Field(0.2, ge=0, le=1, description="centre of the smoothing")
    negative_scale: float = Field(
        2.0,
        ge=1,
        description=(
            "negatives' logits are multiplied, and their loss divided, by this; 1: no tolerance"
        ),
    )
    bias_scale: float = Field(
        0.05,
        ge=0,
        description=(
            "while training, logits are shifted by this times the log-odds of their labels; 0: "
            "not at all"
        ),
    )
    gamma: float = Field(2.0, ge=0, description="focusing as in focal loss; 0: none")


LossConfig = Annotated[
    WeightedBceConfig
    | SquaredHingeConfig
    | FocalConfig
    | AsymmetricConfig
    | ClassBalancedConfig
    | DistributionBalancedConfig,
    Field(discriminator="name"),
]
