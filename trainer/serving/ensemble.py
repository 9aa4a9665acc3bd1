"""An ensemble: exported models whose scores are averaged, written as one SavedModel."""

import math
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from beam_jobs.contract import saved_model
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.saved_model import SavedModel
from trainer.data.dataset import Dataset, open_dataset
from trainer.evaluation.tuned import load_tuned_of
from trainer.metrics import classification
from trainer.metrics.thresholds import Thresholds, tune
from trainer.runs import remote_directory
from trainer.runs.directories import with_directories
from trainer.serving.export import describe_tuning
from trainer.serving.model_version import (
    print_summary,
    serving_module,
    text_definition,
    write_version,
)
from trainer.serving.validation import count_over_validation, validation_f1


def export_average(config: Config, models: Sequence[str], weights: Sequence[float] | None) -> None:
    """Writes the weighted mean of exported models' scores as the next version of one SavedModel.

    Its thresholds are tuned on the validation split of the config's dataset. Without one they are
    0.5, or those of `export.thresholds_from`. A label that no member was trained on is never
    assigned.

    Args:
      config: names the dataset, and where the ensemble is written.
      models: directories of exported models.
      weights: of each model, 0 or more; None: all the same.

    Raises:
      UserError: the config names a fold, the models differ from the dataset in labels, analyzer
        or text fields, or the weights do not fit the models.
    """
    config = with_directories(config, os.environ)
    if config.train.fold is not None:
        raise UserError(
            f"--average: received train.fold = {config.train.fold}, expected none: an ensemble's "
            "thresholds are tuned on the dataset's own validation split; leave --fold out"
        )
    if config.export.weights != "float32":
        raise UserError(
            f"export.weights: received {config.export.weights} with --average, expected float32: "
            "each member keeps the precision it was exported with"
        )
    shares = _shares(weights, len(models))
    dataset = open_dataset(config)
    members = [saved_model.load(model, what="--average") for model in models]
    for member in members:
        _check_member(member, dataset)

    scorer = AverageScorer(members, shares)
    thresholds, thresholds_origin = _thresholds(config, dataset, scorer, members)
    module = serving_module(config, dataset, thresholds, scorer)
    origin = {
        "members": [
            {"path": member.path, "share": share} | member.origin()
            for member, share in zip(members, shares, strict=True)
        ],
    }
    if dataset.num_examples("validation"):
        origin["validation"] = {"mean of all": validation_f1(dataset, module)}
    path = write_version(
        config,
        dataset,
        module,
        origin,
        evaluation=None,
        thresholds=thresholds,
        thresholds_origin=thresholds_origin,
    )
    print(f"exported the mean of {len(members)} models as {path}")
    print_summary(path, dataset, origin, thresholds, thresholds_origin)


def _thresholds(
    config: Config, dataset: Dataset, scorer: "AverageScorer", members: Sequence[SavedModel]
) -> tuple[Thresholds, str]:
    """The ensemble's thresholds, and how they came about, for people."""
    is_trained = _is_trained(dataset, members)
    other = config.export.thresholds_from
    if other is not None:
        other_run = remote_directory.local(other)
        thresholds, calibration = load_tuned_of(other_run, label_names=dataset.label_names)
        if calibration.method != "none":
            raise UserError(
                f"export.thresholds_from: the thresholds of {other} are those of scores calibrated "
                f"by {calibration.method}, and the members of --average have calibrations of their "
                "own; expected a run that was evaluated with evaluate.calibration=none"
            )
        origin = f"those of the run {other}, whose model has other weights"
        return thresholds.of_other_model(is_trained), origin
    if not dataset.num_examples("validation"):
        thresholds = Thresholds.untuned(is_trained)
    else:
        histogram = count_over_validation(dataset, scorer, classification.score_histogram)
        thresholds = tune(
            histogram,
            min_positives=config.evaluate.min_positives,
            is_trained=is_trained,
            objective=config.train.objective,
        )
    return thresholds, describe_tuning(dataset, thresholds)


def _is_trained(dataset: Dataset, members: Sequence[SavedModel]) -> np.ndarray:
    """bool [labels]: the labels that any member was trained on.

    A member says so itself, because it may have been trained on a fold. One of an earlier version
    does not: it is taken to have been trained on the dataset's train split.
    """
    untrained = [
        name for name, n in zip(dataset.label_names, dataset.is_trained, strict=True) if not n
    ]
    in_no_member = set.intersection(
        *(set(member.origin().get("labels_never_trained", untrained)) for member in members)
    )
    return np.array([name not in in_no_member for name in dataset.label_names], bool)


class AverageScorer(tf.Module):
    """The weighted mean of several exported models' probabilities.

    Maps analyzed strings [N] of each text field to float32 [N, labels].

    Args:
      members: loaded models with the same text fields, analyzer and labels.
      shares: the weight of each; they sum to 1.
    """

    def __init__(self, members: Sequence[SavedModel], shares: Sequence[float]):
        super().__init__(name="average")
        self._members = [member.module for member in members]
        self._shares = [float(share) for share in shares]

    def __call__(self, *analyzed: tf.Tensor) -> tf.Tensor:
        weighted = [
            share * member.score_analyzed(*analyzed)
            for share, member in zip(self._shares, self._members, strict=True)
        ]
        return tf.add_n(weighted)


def _shares(weights: Sequence[float] | None, num_models: int) -> list[float]:
    """The weights divided by their sum."""
    if weights is None:
        weights = [1.0] * num_models
    are_weights = all(0 <= weight < math.inf for weight in weights)
    if len(weights) != num_models or not are_weights or sum(weights) == 0:
        raise UserError(
            f"--weights: received {list(weights)} for {num_models} models, expected a number of 0 "
            "or more for each, not all 0"
        )
    return [weight / sum(weights) for weight in weights]


def _check_member(member: SavedModel, dataset: Dataset) -> None:
    received = member.origin()
    for key, expected in text_definition(dataset).items():
        if received.get(key) != expected:
            raise UserError(
                f"--average: {member.path} and the dataset {dataset.place} differ in "
                f"{key.replace('_', ' ')}; expected models that were trained on this dataset's text"
            )
    names = member.label_names()
    if names != dataset.label_names:
        in_one_only = sorted(set(names) ^ set(dataset.label_names))[:5]
        raise UserError(
            f"--average: {member.path} has {len(names)} labels and the dataset {dataset.place} "
            f"{dataset.num_labels}; expected the same labels, and these are not in both: "
            f"{', '.join(in_one_only) or 'none, but their order differs'}"
        )
