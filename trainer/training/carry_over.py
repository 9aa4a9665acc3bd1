"""`train --from RUN`: what a run has learned on another dataset, carried over by the names of
tokens and labels.

Which axes of a variable are tokens or labels is found out, not declared: the model is built with a
few tokens and labels more, and what grows with them is theirs. A pretrained encoder says it. The
optimizer starts anew: carrying its moments over gained half a point of micro-F1 on one set and cost
1.7 on another.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.model import ModelConfig
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from trainer.experiment import Experiment
from trainer.models import VocabularyStatistics, build_model
from trainer.models.pretrained import PretrainedEncoder
from trainer.training.earlier_model import EarlierModel, Names, check_kind, open_earlier

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
    "trainable_layers",
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


class CarryOver:
    """What a new run takes from the best epoch of another one.

    Tokens and labels that the other run lacks keep their initial weights, and so do n-grams. Labels
    without a train document that the other run knows are kept as it knows them.

    Args:
      experiment: the new run's.
      source: the other run directory, or the directory of an exported model.

    Attributes:
      experiment: the new run's, whose dataset says which labels are known without train documents.

    Raises:
      UserError: the other run has another model, or see `open_earlier`.
    """

    def __init__(self, experiment: Experiment, source: str | Path):
        check_kind(experiment.config.model)
        self._source, self._earlier = source, open_earlier(source)
        ours, theirs = map(_architecture, (experiment.config.model, self._earlier.config))
        if ours != theirs:
            keys = sorted(f"model.{k}" for k in ours | theirs if ours.get(k) != theirs.get(k))
            raise UserError(
                f"--from: {source} and this run differ in {', '.join(keys)}; expected the same "
                "model"
            )
        if len(experiment.dataset.record_spec.text_names) != self._earlier.num_texts:
            raise UserError(
                f"--from: {source} has other text fields, expected as many as this run's"
            )
        if isinstance(experiment.model, PretrainedEncoder):
            _check_encoder(experiment, self._earlier, source)
        self._old = self._earlier.names
        self._new = Names(experiment.dataset.vocabulary, experiment.dataset.label_names)
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
        experiment, weights = self.experiment, self._earlier.weights(self.experiment.model)
        del self._earlier
        model, num_texts = experiment.model, len(experiment.dataset.record_spec.text_names)
        if isinstance(model, PretrainedEncoder):
            axes = _axes_of_encoder(model)
        else:
            axes = axes_of(experiment.config.model, num_texts=num_texts)
        with experiment.strategy.scope():
            for variable, known, of in zip(model.variables, weights, axes, strict=True):
                if known is not None:
                    initial = variable.numpy()
                    variable.assign(carried(initial, known, of, old=self._old, new=self._new))

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


def _check_encoder(experiment: Experiment, earlier: EarlierModel, source: str | Path) -> None:
    """Raises UserError unless the other run's encoder and tokenizer are this run's."""
    tokenizer = experiment.dataset.manifest.analyzer.encoder_tokenizer
    hashed = experiment.model.encoder_description["weights_sha256"]
    if (tokenizer, hashed) != earlier.encoder:
        raise UserError(
            f"--from: the encoder of {source} is not the one in "
            f"{experiment.config.encoder_directory}; expected the same"
        )


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
