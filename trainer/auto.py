"""`model.name: auto`: the model, loss, optimizer and length of training that a dataset asks for.

The rules rest on the experiments in docs/experiments/auto.md. They read nothing but the dataset's
sizes and the config, so every worker and every later command comes to the same choice.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from beam_jobs.contract.config import Config, config_from_dict, load_saved_config
from beam_jobs.contract.sections.model import AutoConfig
from beam_jobs.contract.sections.train import LINEAR_TRAIN_KEYS, Objective, TrainConfig
from trainer.data.dataset import Dataset
from trainer.runs import remote_directory
from trainer.runs.layout import CONFIG

# The sections whose keys are chosen, and those of `train` that are.
_SECTIONS = ("model", "loss", "optimizer")
_TRAIN_KEYS = ("epochs", "batch_size")
# Keys of `train` that no linear model reads, and that yet do not ask for one that is trained in
# steps.
_NEUTRAL_KEYS = {"seed", "deterministic", "shard_by", "keep_checkpoints"}
_STEP_KEYS = set(TrainConfig.model_fields) - LINEAR_TRAIN_KEYS - _NEUTRAL_KEYS

# Up to so many train documents, a linear model makes the most of them.
MAX_LINEAR_DOCUMENTS = 40_000
# Its time grows with train documents x tokens x labels: some minutes of one core for each fit.
MAX_LINEAR_WORK = 6_000_000_000
# Documents seen over all epochs, and the bounds of the epochs that follow.
_DOCUMENTS_SEEN = 640_000
_MIN_EPOCHS, _MAX_EPOCHS = 4, 14
# More labels need all units of the document's vector, so that fewer of them are dropped.
_MANY_LABELS = 1_000
# A second look at the likely ones pays with many labels, at four times the time of a bag alone; so
# only where no more than _DOCUMENTS_SEEN are seen: some 20 minutes of a core.
_MAX_ATTENTION_DOCUMENTS = _DOCUMENTS_SEEN // _MIN_EPOCHS
_CONVOLUTION_DIM = 128
# From so many on, a label tree takes less time than the scores of all labels.
_TREE_LABELS = 20_000
# An encoder reads so many pieces of a document; without a GPU, its upper layers are trained on up
# to so many pieces in all epochs: some ten minutes of a core, for six layers.
_MAX_ENCODER_TOKENS = 256
_MAX_TUNED_PIECES = 1_500_000
# Steps that a new last layer needs beside trained ones, and the bounds of the epochs that follow.
# With 111 steps it is far behind one on vectors.
_TUNED_STEPS, _TUNED_BATCH = 900, 32
_MIN_TUNED_EPOCHS, _MAX_TUNED_EPOCHS = 3, 20
# Of tokens and of pairs. Pairs have a table of their own, which takes 0.7 of the time of one table.
_EMBEDDING_DIM = 256
# With more tokens in all train documents, pairs of tokens get more buckets.
_MANY_TOKENS = 12_000_000


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the rules read of a dataset.

    Attributes:
      documents: train documents.
      labels: labels with train documents.
      tokens: tokens of the median train document.
    """

    documents: int
    labels: int
    tokens: int

    @classmethod
    def of(cls, dataset: Dataset) -> "Sizes":
        train = dataset.manifest.splits["train"]
        return cls(
            documents=train.examples,
            labels=int(dataset.is_trained.sum()),
            tokens=train.token_length_quantiles.get("0.5", 0),
        )

    def __str__(self) -> str:
        return (
            f"{self.documents:,} train documents, {self.labels:,} labels and a median of "
            f"{self.tokens:,} tokens"
        )


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is chosen: values of keys by section, and why, for people."""

    values: Mapping[str, Mapping[str, Any]]
    reason: str


def resolve(config: Config, dataset: Dataset, *, fresh: bool = False) -> tuple[Config, str]:
    """The config with a model in the place of `auto`, and with what else is chosen.

    Keys that the user has set stay as set. A run that has begun keeps what was chosen for it.

    Args:
      config: the experiment; its run directory is the one that is really used.
      dataset: the whole dataset, from which no fold is taken.
      fresh: a run that has begun does not count.

    Returns:
      The config; and what was chosen and why, for people, empty if the config names its model.

    Raises:
      UserError: the config of the run that has begun cannot be read.
    """
    if not isinstance(config.model, AutoConfig):
        return config, ""
    begun = remote_directory.local(config.train.run_dir) / CONFIG
    if begun.exists() and not fresh:
        resolved = _with_values(config, _of_run(begun))
        return resolved, f"model: auto: {resolved.model.name}, as chosen when the run began"
    sizes = Sizes.of(dataset)
    if config.encoder_directory is not None:
        choice = choose_for_encoder(sizes, on_gpu=bool(tf.config.list_physical_devices("GPU")))
    else:
        choice = choose(sizes, in_steps=_sets_steps(config), objective=config.train.objective)
    resolved = _with_values(config, choice.values)
    return resolved, f"model: auto: {_describe(choice, resolved)}, {choice.reason}"


def choose(sizes: Sizes, *, in_steps: bool = False, objective: Objective = "micro_f1") -> Choice:
    """The rules.

    Args:
      sizes: of the dataset.
      in_steps: the model has to be one that is trained in steps.
      objective: `train.objective`.
    """
    work = sizes.documents * sizes.tokens * sizes.labels
    few = sizes.documents <= MAX_LINEAR_DOCUMENTS and work <= MAX_LINEAR_WORK
    if few and not in_steps:
        return Choice(
            {"model": {"name": "linear"}},
            f"for {sizes}: few enough for a linear model on TF-IDF to make the most of them",
        )
    epochs = min(max(_DOCUMENTS_SEEN // max(sizes.documents, 1), _MIN_EPOCHS), _MAX_EPOCHS)
    model: dict[str, Any] = {
        "name": "bow",
        "embedding_dim": _EMBEDDING_DIM,
        "dropout": 0.2 if sizes.labels > _MANY_LABELS else 0.5,
    }
    reason = f"for {sizes}, because the config sets keys of models that are trained in steps"
    if not few:
        many_tokens = sizes.documents * sizes.tokens >= _MANY_TOKENS
        model["bigram_buckets"] = 1_048_576 if many_tokens else 262_144
        model["bigram_dim"] = _EMBEDDING_DIM
        reason = f"for {sizes}: enough to learn embeddings of words and of pairs of words"
    if sizes.labels >= _TREE_LABELS:
        model["name"] = "bow_tree"
        reason += ", and labels that only a tree scores in little time"
    elif not few and sizes.labels > _MANY_LABELS and sizes.documents <= _MAX_ATTENTION_DOCUMENTS:
        model |= {"name": "bow_lwan", "convolution_dim": _CONVOLUTION_DIM}
        reason += ", and to learn which words tell each of many labels"
    loss = {"name": "squared_hinge"}
    if objective == "macro_f1":
        # With thousands of labels it costs micro-F1 half of what macro-F1 gains.
        loss["pos_weight"] = "fourth_root"
    values = {
        "model": model,
        "loss": loss,
        "optimizer": {"name": "lazy_adam", "learning_rate": 1e-2, "schedule": "linear"},
        "train": {"epochs": epochs},
    }
    return Choice(values, reason)


def choose_for_encoder(sizes: Sizes, *, on_gpu: bool) -> Choice:
    """The rules where `text.tokenizer` names a pretrained encoder.

    Args:
      sizes: of the dataset; its tokens are the encoder's pieces.
      on_gpu: whether the machine has one.
    """
    pieces = sizes.documents * min(sizes.tokens, _MAX_ENCODER_TOKENS)
    epochs = -(-_TUNED_STEPS * _TUNED_BATCH // max(sizes.documents, 1))
    epochs = min(max(epochs, _MIN_TUNED_EPOCHS), _MAX_TUNED_EPOCHS)
    optimizer = {"name": "adamw", "learning_rate": 5e-3, "schedule": "linear"}
    model: dict[str, Any] = {"name": "pretrained"}
    values = {"model": model, "loss": {"name": "squared_hinge"}, "optimizer": optimizer}
    if not on_gpu and epochs * pieces > _MAX_TUNED_PIECES:
        model["trainable_layers"] = 0
        reason = f"for {sizes} and no GPU: each is encoded once, and the last layer learns"
        return Choice(values | {"train": {"epochs": 20, "batch_size": 64}}, reason)
    model["trainable_layers"] = "all" if on_gpu else 2
    optimizer |= {
        "learning_rate": 5e-5 if on_gpu else 1e-4,
        "learning_rate_output": 2e-3,
        "warmup_fraction": 0.1,
        "clip_norm": 1.0,
    }
    reason = f"for {sizes} and {'a GPU' if on_gpu else 'no GPU'}: few enough to train the encoder"
    return Choice(values | {"train": {"epochs": epochs, "batch_size": _TUNED_BATCH}}, reason)


def _sets_steps(config: Config) -> bool:
    """Whether the user has set keys that only a model that is trained in steps reads."""
    return bool(
        config.model_fields_set & {"loss", "optimizer"}
        or config.train.model_fields_set & _STEP_KEYS
    )


def _of_run(path: Path) -> dict[str, dict[str, Any]]:
    """What the config of a run that has begun has in the place of what is chosen."""
    saved = load_saved_config(path, remedy="give --fresh to delete the run and start again")
    values = saved.model_dump(mode="json", include={*_SECTIONS, "train"})
    values["train"] = {key: values["train"][key] for key in _TRAIN_KEYS}
    return values


def _with_values(config: Config, values: Mapping[str, Mapping[str, Any]]) -> Config:
    """The config with the values of keys that the user has not set."""
    raw = config.model_dump(mode="json", exclude_unset=True)
    raw.pop("model", None)
    for section, chosen in values.items():
        own = raw.get(section, {})
        # Keys of a loss or an optimizer do not fit one of another name.
        if own.get("name", chosen.get("name")) == chosen.get("name"):
            raw[section] = {**chosen, **own}
    return config_from_dict(raw, what="the config with what `model.name: auto` has chosen")


def _describe(choice: Choice, config: Config) -> str:
    """The model and the values of the keys that were chosen, as they are in the config."""
    resolved = config.model_dump(mode="json")
    keys = [
        f"{section}.{key} {resolved[section].get(key)}"
        for section, values in choice.values.items()
        for key in values
        if (section, key) != ("model", "name") and key in resolved[section]
    ]
    return f"{config.model.name} ({', '.join(keys)})" if keys else config.model.name
