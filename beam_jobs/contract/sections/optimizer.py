"""The section `optimizer`: how weights are updated, and by which step size."""

from typing import Literal

from pydantic import Field

from beam_jobs.contract.validation import Fraction, Section


class OptimizerConfig(Section):
    """The optimizer."""

    name: Literal[
        "lazy_adam", "row_adagrad", "adam", "adamw", "adagrad", "sgd", "rmsprop", "lion"
    ] = Field(
        "lazy_adam",
        description=(
            "`lazy_adam` and `row_adagrad` update only the embeddings used in a batch, the latter "
            "with one number of state for each, which is faster and needs a learning rate of "
            "about 0.1; the others are those of Keras"
        ),
    )
    learning_rate: float = Field(1e-2, gt=0, description="the highest step size")
    learning_rate_embeddings: float | None = Field(
        None, gt=0, description="the same for the embeddings alone; null: learning_rate"
    )
    learning_rate_encoder: float | None = Field(
        None,
        gt=0,
        description=(
            "the same for the layers between embeddings and logits alone; null: learning_rate"
        ),
    )
    learning_rate_output: float | None = Field(
        None, gt=0, description="the same for the last layer alone; null: learning_rate"
    )
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description=(
            "what the learning rate of a layer of a pretrained encoder is multiplied by for each "
            "layer above it, so that lower ones move less; null: all move alike"
        ),
    )
    schedule: Literal["constant", "linear", "cosine", "plateau"] = Field(
        "constant",
        description=(
            "how the learning rate decays: until the end of train.epochs, or with `plateau` by "
            "plateau_factor after each plateau_patience epochs without a better train.objective on "
            "validation"
        ),
    )
    plateau_factor: float = Field(
        0.3, gt=0, lt=1, description="what `plateau` multiplies the learning rate by"
    )
    plateau_patience: int = Field(
        1,
        ge=1,
        description=(
            "epochs without a better train.objective before `plateau` lowers the learning rate"
        ),
    )
    warmup_fraction: Fraction = Field(
        0.0,
        description="fraction of the steps of train.epochs in which the learning rate first rises",
    )
    final_fraction: Fraction = Field(
        0.0, description="the lowest learning rate of a schedule, as a fraction of learning_rate"
    )
    clip_norm: float | None = Field(
        None,
        gt=0,
        description=(
            "gradients are scaled down to this norm, over all weights and replicas; null: never"
        ),
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        description=(
            "decay of kernels per step, times the learning rate (not of biases, norms and "
            "embeddings); null: 0.004 in adamw, else 0"
        ),
    )
    average_epochs: float | None = Field(
        None,
        gt=0,
        description=(
            "epochs that the average of the weights covers, which is validated, kept and exported "
            "in their place; null: no average"
        ),
    )
