"""The section `model`: linear classifiers."""

from typing import Literal

from pydantic import Field

from beam_jobs.contract.validation import Section

LinearFeatureKind = Literal["auto", "words", "words_bigrams", "words_chars", "words_bigrams_chars"]


class LinearConfig(Section):
    """One-vs-rest linear classifiers over TF-IDF, as of liblinear (Fan et al. 2008)."""

    name: Literal["linear"] = Field(description="the architecture")
    features: LinearFeatureKind = Field(
        "auto",
        description=(
            "what has weights: tokens; with `bigrams` pairs of neighbouring tokens in at least two "
            "train documents; with `chars` 2 to 5 characters of a token; auto: what is best on "
            "validation"
        ),
    )
    loss: Literal["squared_hinge", "logistic"] = Field(
        "squared_hinge",
        description="the loss of each label's classifier, beside an L2 penalty; it takes the place "
        "of the section `loss`",
    )
    C: float | None = Field(
        None,
        gt=0,
        description="weight of the loss against the penalty; null: what is best on validation",
    )
    pos_weight: Literal["none", "fourth_root"] = Field(
        "fourth_root",
        description=(
            "weight of a label's positives in its loss: 1, or the fourth root of negatives / "
            "positives, at least 1"
        ),
    )
    min_weight: float = Field(
        0.05, ge=0, description="weights nearer to 0 are left out, which makes the model sparse"
    )
