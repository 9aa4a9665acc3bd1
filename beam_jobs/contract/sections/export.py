"""The section `export`: the SavedModel."""

from typing import Literal

from pydantic import Field

from beam_jobs.contract.validation import Place, Section


class ExportConfig(Section):
    """The SavedModel."""

    model_dir: Place = Field(description="parent of the numbered versions; default: out/NAME/model")
    top_k: int = Field(5, ge=1, description="labels that serving_default returns")
    threshold: Literal["global", "per_label", "best"] = Field(
        "per_label",
        description=(
            "the tuned thresholds that `decide` applies; best: none, every document gets its "
            "best-scored label alone, for data with one label a document"
        ),
    )
    thresholds_from: Place | None = Field(
        None,
        description=(
            "run_dir of an evaluated run with the same labels, whose thresholds and calibration "
            "are exported instead of this run's own, as for a model that was trained on all "
            "documents"
        ),
    )
    weights: Literal["float32", "float16", "bfloat16"] = Field(
        "float32",
        description=(
            "how matrices of weights are stored; the latter two halve the size, and `export` "
            "prints what that costs in F1"
        ),
    )
