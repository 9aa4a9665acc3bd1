"""The section `train`: a training run, and what is to be best."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from beam_jobs.contract.validation import Place, Section, SectionWithOptions

# What `train.objective` may be: metrics of one threshold for all labels.
Objective = Literal["micro_f1", "macro_f1"]
OBJECTIVE_TITLES: dict[Objective, str] = {"micro_f1": "micro-F1", "macro_f1": "macro-F1"}


class CallbackConfig(SectionWithOptions):
    """A Keras callback; every other key is an argument of its constructor."""

    name: str = Field(
        min_length=1,
        description=(
            "one of keras.callbacks, or a class or function of your own, as package.module:function"
        ),
    )


class TrainConfig(Section):
    """The training run."""

    run_dir: Place = Field(description="checkpoints, logs and reports; default: out/NAME/run")
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker"] = Field(
        "auto",
        description=(
            "auto: multi_worker where TF_CONFIG, Slurm or Vertex AI name several workers, else "
            "mirrored where there are several GPUs, else one device"
        ),
    )
    replicas: int | None = Field(
        None,
        ge=1,
        description="replicas of `mirrored`; null: one per GPU; without GPUs they are logical CPUs",
    )
    worker_timeout_seconds: int = Field(
        600, ge=1, description="how long workers wait for each other at the start"
    )
    shard_by: Literal["auto", "file", "example"] = Field(
        "auto",
        description=(
            "what is divided among workers: whole shards, or the documents of each step, whose "
            "order is then the same with any number of workers; auto: shards, if no worker gets "
            "5% more documents than the mean"
        ),
    )
    on_corrupt: Literal["error", "skip"] = Field(
        "error",
        description=(
            "a corrupt record in the train split stops the run, or what follows it in its shard "
            "is skipped and counted"
        ),
    )
    batch_size: int = Field(256, ge=1, description="documents per step, over all replicas")
    accumulate_steps: int = Field(
        1,
        ge=1,
        le=256,
        description=(
            "consecutive passes that the documents of a step are divided into: the same update in "
            "less memory"
        ),
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description=(
            "what the model computes in while training; weights, logits and loss stay float32, "
            "and float16 scales the loss. Evaluation and export compute in float32"
        ),
    )
    epochs: int = Field(10, ge=1, description="maximum number of epochs")
    objective: Objective = Field(
        "micro_f1",
        description=(
            "what is to be best on validation, at one threshold for all labels: the F1 of all "
            "decisions, in which frequent labels count most, or the mean of the F1 of the labels "
            "that occur. It decides which epoch is the best, when a run stops, that threshold, and "
            "what `auto` and `linear` choose"
        ),
    )
    patience: Literal["auto"] | Annotated[int, Field(ge=1)] | None = Field(
        "auto",
        description=(
            "stop after this many epochs without a better objective; null: never; auto: never "
            "while the learning rate falls to the end of train.epochs, else after 2, which count "
            "from the last lowering of the rate on"
        ),
    )
    callbacks: tuple[CallbackConfig, ...] = Field(
        (),
        description=(
            "Keras callbacks, such as {name: CSVLogger, filename: log.csv, append: true}; the "
            "metrics are loss, val_micro_f1, val_macro_f1 and the other columns of history.json. "
            "What patience and `optimizer.schedule: plateau` do needs none"
        ),
    )
    steps_per_call: int = Field(
        16, ge=1, description="training steps in one call of the compiled function"
    )
    shuffle_buffer: int = Field(
        10_000,
        ge=1,
        description=(
            "documents in the shuffle buffer, fewer where they take more than 1 GiB; shards are "
            "shuffled as well"
        ),
    )
    length_bucket_steps: int | None = Field(
        None,
        ge=1,
        description=(
            "steps whose documents are sorted by length together, and then taken in a random "
            "order, so that models that pad to the longest document pad less; 1: not sorted; "
            "null: 16 for the models that pad (cnn, lstm, cnn_lwan, transformer), else 1"
        ),
    )
    checkpoint_steps: int | None = Field(
        None,
        ge=1,
        description="also save a checkpoint after every so many steps; null: only after each epoch",
    )
    keep_checkpoints: int = Field(
        2, ge=1, description="number of newest checkpoints kept, in addition to the best one"
    )
    seed: int = Field(0, ge=0, description="seed of weights, shuffling and dropout")
    folds: int | None = Field(
        None,
        ge=2,
        description=(
            "number of folds that the shards of the train and validation splits are assigned to "
            "where `fold` is set"
        ),
    )
    fold: int | None = Field(
        None,
        ge=0,
        description=(
            "the fold that the run validates on, from 0, in a run directory of its own, `fold-0` "
            "and so on; null: the dataset's own splits"
        ),
    )
    fold_repeat: int = Field(
        0,
        ge=0,
        description=(
            "which partition into folds: 0, or the number of a repeat that shuffles the shards "
            "before they are assigned to folds, so that k-fold can be repeated; the runs and "
            "models of repeat 1 go to `repeat-1/fold-0` and so on"
        ),
    )
    deterministic: bool = Field(
        False,
        description=(
            "only operations that give the same bits in every run of the same seed, on GPUs too; "
            "slower"
        ),
    )

    @pydantic.model_validator(mode="after")
    def _replicas_share_the_batch(self):
        if self.replicas is not None:
            if self.strategy != "mirrored":
                raise ValueError(
                    f"expected replicas with `strategy: mirrored` only, not with {self.strategy!r}"
                )
            if self.batch_size % self.replicas:
                raise ValueError(
                    f"expected a batch_size that replicas divide, not {self.batch_size} and "
                    f"{self.replicas}"
                )
        if self.fold is not None and (self.folds is None or self.fold >= self.folds):
            raise ValueError(f"expected a fold below folds, not {self.fold} of {self.folds}")
        if self.fold_repeat and self.folds is None:
            raise ValueError(
                f"expected fold_repeat with folds only, not {self.fold_repeat} and null"
            )
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                f"expected a batch_size that accumulate_steps divides, not {self.batch_size} and "
                f"{self.accumulate_steps}"
            )
        return self


# The keys of `train` that have a part in fitting a linear model; the others are about steps.
LINEAR_TRAIN_KEYS = {
    "run_dir",
    "strategy",
    "replicas",
    "worker_timeout_seconds",
    "on_corrupt",
    "folds",
    "fold",
    "fold_repeat",
    "objective",
}
