"""`train --from RUN`: what a run has learned on another dataset, carried over by the names of
tokens and labels.

Which axes of a variable are tokens or labels is found out, not declared: the model is built with a
few tokens and labels more, and what grows with them is theirs. A pretrained encoder says it. The
optimizer starts anew: carrying its moments over gained half a point of micro-F1 on one set and cost
1.7 on another.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beam_jobs.contract import places
from beam_jobs.contract.config import Config, load_saved_config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST
from beam_jobs.contract.sections.linear_model import LinearConfig
from beam_jobs.contract.sections.model import CustomConfig, ModelConfig
from beam_jobs.contract.sections.network_models import BowTreeConfig
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.experiment import Experiment
from trainer.models import VocabularyStatistics, build_model
from trainer.models.pretrained import PretrainedEncoder
from trainer.runs import remote_directory
from trainer.runs.checkpoints import best_weights
from trainer.runs.layout import CONFIG, DATASET_MANIFEST, ENCODER

# Sizes of the models that are built to find the axes: no other axis differs between them.
_TOKENS, _MORE_TOKENS = 11, 18
_LABELS, _MORE_LABELS = 3, 5
# Keys of a pretrained encoder that decide no variable; its directory is compared by its content.
_NO_VARIABLES = {
    "backbone",
    "cache_dir",
    "gradient_checkpointing",
    "label_descriptions",
    "max_tokens",
    "stride",
    "window",
    "window_pooling",
}
_RESERVED = 2  # rows before the first token's: padding, and what is out of the vocabulary


@dataclasses.dataclass(frozen=True)
class Axes:
    """What the axes of a variable are.

    Attributes:
      tokens: the axis with a row for each token after the reserved ones; None: there is none.
      labels: the axis with a row for each label; None: there is none.
    """

    tokens: int | None = None
    labels: int | None = None


@dataclasses.dataclass(frozen=True)
class Names:
    """Tokens and labels of a dataset, in the order of their ids."""

    tokens: Sequence[str]
    labels: Sequence[str]


class CarryOver:
    """What a new run takes from the best epoch of another one.

    Tokens and labels that the other run lacks keep their initial weights, and so do n-grams. Labels
    without a train document that the other run knows are kept as it knows them.

    Args:
      experiment: the new run's.
      source: the other run directory; its dataset must be there still, for its names.

    Attributes:
      experiment: the new run's, whose dataset says which labels are known without train documents.

    Raises:
      UserError: the other run has another model, or its dataset is not there any more.
    """

    def __init__(self, experiment: Experiment, source: str | Path):
        _check_kind(experiment.config.model)
        self._source = source
        config, dataset, self._weights = _open(source)
        ours, theirs = (_architecture(c.model) for c in (experiment.config, config))
        if ours != theirs:
            keys = sorted(f"model.{k}" for k in ours | theirs if ours.get(k) != theirs.get(k))
            raise UserError(
                f"--from: {source} and this run differ in {', '.join(keys)}; expected the same "
                "model"
            )
        if len(experiment.dataset.record_spec.text_names) != len(dataset.record_spec.text_names):
            raise UserError(
                f"--from: {source} has other text fields, expected as many as this run's"
            )
        if isinstance(experiment.model, PretrainedEncoder):
            _check_encoder(experiment, dataset, source)
        self._old, self._new = (
            Names(d.vocabulary, d.label_names) for d in (dataset, experiment.dataset)
        )
        has_no_documents = experiment.dataset.label_counts("train") == 0
        kept = np.flatnonzero(has_no_documents & ~self.is_new_label)
        self._kept_labels = frozenset(self._new.labels[i] for i in kept)
        known = experiment.dataset.known_labels | self._kept_labels
        dataset = dataclasses.replace(experiment.dataset, known_labels=known)
        self.experiment = dataclasses.replace(experiment, dataset=dataset)

    @functools.cached_property
    def is_new_label(self) -> np.ndarray:
        """bool [labels]: whether the other run lacks the label."""
        is_new = np.ones(len(self._new.labels), bool)
        is_new[_common(self._new.labels, self._old.labels)[0]] = False
        return is_new

    @property
    def record(self) -> dict[str, Any]:
        """What the run directory keeps of it, as JSON values."""
        return {"run": str(self._source), "kept_labels": sorted(self._kept_labels)}

    def give_weights(self) -> None:
        """Gives the model the other run's weights, which are not kept: they may take gigabytes."""
        experiment, weights = self.experiment, self._weights
        del self._weights
        model, num_texts = experiment.model, len(experiment.dataset.record_spec.text_names)
        if isinstance(model, PretrainedEncoder):
            axes = _axes_of_encoder(model)
        else:
            axes = axes_of(experiment.config.model, num_texts=num_texts)
        with experiment.strategy.scope():
            for variable, known, of in zip(model.variables, weights, axes, strict=True):
                variable.assign(carried(variable.numpy(), known, of, old=self._old, new=self._new))

    def __str__(self) -> str:
        parts = []
        for what, ours, theirs in (
            ("tokens", self._new.tokens, self._old.tokens),
            ("labels", self._new.labels, self._old.labels),
        ):
            kept = len(_common(ours, theirs)[0])
            parts.append(
                f"{kept:,} of {len(ours):,} {what} ({len(ours) - kept:,} new, "
                f"{len(theirs) - kept:,} of the earlier ones gone)"
            )
        text = f"carried over from {self._source}: {' and '.join(parts)}"
        if self._kept_labels:
            text += f"; labels without train documents that it knows: {len(self._kept_labels):,}"
        return text


def axes_of(config: ModelConfig, *, num_texts: int = 1) -> list[Axes]:
    """What the axes of each of the model's variables are, in their order."""

    def shapes(tokens: int, labels: int) -> list[tuple[int, ...]]:
        model = build_model(
            config,
            vocabulary=VocabularyStatistics(tokens, np.ones(tokens, np.int64), num_documents=1),
            num_labels=labels,
            output_bias=np.zeros(labels, np.float32),
            seed=0,
            num_texts=num_texts,
            with_pretrained=False,
        )
        return [tuple(variable.shape) for variable in model.variables]

    def first_difference(one: tuple[int, ...], other: tuple[int, ...], by: int) -> int | None:
        grown = [axis for axis in range(len(one)) if other[axis] - one[axis] == by]
        return grown[0] if grown else None

    base = shapes(_TOKENS, _LABELS)
    return [
        Axes(
            tokens=first_difference(one, more_tokens, _MORE_TOKENS - _TOKENS),
            labels=first_difference(one, more_labels, _MORE_LABELS - _LABELS),
        )
        for one, more_tokens, more_labels in zip(
            base, shapes(_MORE_TOKENS, _LABELS), shapes(_TOKENS, _MORE_LABELS), strict=True
        )
    ]


def _axes_of_encoder(model: PretrainedEncoder) -> list[Axes]:
    """The same for an encoder, whose own weights are taken whole."""
    tokens, labels = (set(map(id, v)) for v in (model.token_variables, model.label_variables))
    return [
        Axes(
            tokens=0 if id(variable) in tokens else None,
            labels=0 if id(variable) in labels else None,
        )
        for variable in model.variables
    ]


def carried(
    initial: np.ndarray, known: np.ndarray, axes: Axes, *, old: Names, new: Names
) -> np.ndarray:
    """The initial values with what is known of tokens and labels that both have."""
    to, source = [slice(None)] * initial.ndim, [slice(None)] * initial.ndim
    if axes.tokens is not None:
        reserved = np.arange(_RESERVED)
        ours, theirs = _common(new.tokens, old.tokens)
        to[axes.tokens] = np.concatenate([reserved, ours + _RESERVED])
        source[axes.tokens] = np.concatenate([reserved, theirs + _RESERVED])
    if axes.labels is not None:
        to[axes.labels], source[axes.labels] = _common(new.labels, old.labels)
    result, taken = initial.copy(), known
    for axis, rows in enumerate(source):
        if not isinstance(rows, slice):
            taken = np.take(taken, rows, axis)
    whole = [np.arange(size) for size in initial.shape]
    ids = [all_ if isinstance(rows, slice) else rows for rows, all_ in zip(to, whole, strict=True)]
    result[np.ix_(*ids)] = taken
    return result


def _common(new: Sequence[str], old: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of the names that both have: in the new order, and those of the same in the old."""
    index_of = {name: i for i, name in enumerate(old)}
    pairs = [(i, index_of[name]) for i, name in enumerate(new) if name in index_of]
    ours, theirs = np.array(pairs, np.int64).reshape(-1, 2).T
    return ours, theirs


def _check_kind(config: ModelConfig) -> None:
    if isinstance(config, LinearConfig):
        raise UserError(
            "--from: received with `model.name: linear`, whose labels are fitted anew each time; "
            "expected a model that is trained in steps, such as model.name=bow"
        )
    if isinstance(config, BowTreeConfig | CustomConfig):
        reason = (
            "whose labels are in clusters of their own dataset's"
            if isinstance(config, BowTreeConfig)
            else "whose variables do not say which of their rows are of tokens and labels"
        )
        raise UserError(
            f"--from: received with `model.name: {config.name}`, {reason}; expected another model, "
            "such as model.name=bow"
        )


def _check_encoder(experiment: Experiment, dataset: Dataset, source: str | Path) -> None:
    """Raises UserError unless the other run's encoder and tokenizer are this run's."""
    analyzers = (d.manifest.analyzer for d in (experiment.dataset, dataset))
    ours, theirs = (analyzer.encoder_tokenizer for analyzer in analyzers)
    path = remote_directory.local(source) / ENCODER
    saved = json.loads(path.read_text(encoding="utf-8"))["weights_sha256"]
    if ours != theirs or saved != experiment.model.encoder_description["weights_sha256"]:
        raise UserError(
            f"--from: the encoder of {source} is not the one in "
            f"{experiment.config.encoder_directory}; expected the same"
        )


def _open(source: str | Path) -> tuple[Config, Dataset, list[np.ndarray]]:
    """The other run; raises UserError unless its dataset is as it was."""
    directory = remote_directory.local(source)
    if not (directory / CONFIG).is_file():
        raise UserError(
            f"--from: {source} holds no run; expected train.run_dir of one, such as "
            "out/docstrings/run"
        )
    config = load_saved_config(directory / CONFIG, remedy="train it again")
    _check_kind(config.model)
    saved = json.loads((directory / DATASET_MANIFEST).read_text(encoding="utf-8"))
    try:
        manifest = json.loads(places.read_bytes(places.join(config.output.dataset_dir, MANIFEST)))
    except (FileNotFoundError, NotADirectoryError):
        manifest = None
    if manifest != saved:
        raise UserError(
            f"--from: the dataset of {source}, {config.output.dataset_dir}, is not there any more "
            "as it was; expected it, for its tokens and labels: make the new dataset in another "
            "output.dataset_dir"
        )
    weights = best_weights(directory)
    if weights is None:
        raise UserError(f"--from: {source} has no trained epoch; expected a run with one")
    return config, open_dataset(config), weights


def _architecture(config: ModelConfig) -> dict:
    """What decides the variables: all keys but those of dropout and of pretrained vectors; of an
    encoder, those that change none of its variables, either.
    """
    values = config.model_dump(mode="json")
    left_out = _NO_VARIABLES if isinstance(config, PretrainedConfig) else ()
    return {
        key: value
        for key, value in values.items()
        if "dropout" not in key and "pretrained_vectors" not in key and key not in left_out
    }
