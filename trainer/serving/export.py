"""The export of a trained model as a SavedModel: raw strings in, label names out."""

import contextlib
from pathlib import Path
from typing import Any

from beam_jobs.contract.config import Config
from beam_jobs.contract.sections.network_models import BowTreeConfig
from trainer.data.dataset import Dataset
from trainer.distribution.strategy import is_chief
from trainer.evaluation.tuned import Tuned, has_tuned, load_tuned, load_tuned_of
from trainer.experiment import Experiment, assemble, restore_best
from trainer.metrics.calibration import Calibration
from trainer.metrics.thresholds import NO_DOCUMENTS, TUNED, Thresholds
from trainer.runs import remote_directory
from trainer.runs.evaluation_record import (
    LABEL_THRESHOLDS,
    ONE_THRESHOLD,
    TOP_K,
    read_evaluation,
)
from trainer.runs.layout import EVALUATED_SPLITS, evaluation_path, evaluation_text_path
from trainer.serving.half_precision import check_range
from trainer.serving.model_scorer import ModelScorer
from trainer.serving.model_version import print_summary, serving_module, write_version
from trainer.serving.serving_module import ServingModule
from trainer.serving.validation import validation_f1


def export(config: Config, *, summary: bool = True) -> str | None:
    """Writes the next version of the SavedModel, whole or not at all.

    Args:
      config: the experiment.
      summary: also print its thresholds, and its size and speed, which are measured for it.

    Returns:
      The version's directory; None on workers that are not the chief and write nothing.

    Raises:
      UserError: there is no trained model, its thresholds are not tuned, or the directory cannot be
        written.
    """
    experiment = assemble(_undivided(config))
    if not is_chief(experiment.strategy):  # every worker has the same model
        return None
    # This config has the directories that the platform sets.
    config, dataset = experiment.config, experiment.dataset
    state = restore_best(experiment)
    (thresholds, calibration), thresholds_origin = tuned_for_export(experiment, state.step)
    weights = config.export.weights
    check_range(experiment.model, weights)

    def module_with(weights: str) -> ServingModule:
        scorer = ModelScorer(experiment, calibration, weights=weights)
        return serving_module(config, dataset, thresholds, scorer)

    module = module_with(weights)
    origin = {
        "step": state.step,
        "epoch": state.epoch,
        "objective": config.train.objective,
        "best_validation_score": state.best_score(config.train.objective),
        "weights": weights,
        "calibration": calibration.method,
    }
    if weights != "float32" and dataset.num_examples("validation"):
        origin["validation"] = {
            "float32": validation_f1(dataset, module_with("float32")),
            weights: validation_f1(dataset, module),
        }
    evaluation = _evaluation_text(experiment.run_dir)
    path = write_version(
        config,
        dataset,
        module,
        origin,
        evaluation=evaluation,
        thresholds=thresholds,
        thresholds_origin=thresholds_origin,
        measured=_measured(experiment.run_dir, config),
    )
    print(f"exported epoch {state.epoch} as {path}")
    if summary:
        print_summary(path, dataset, origin, thresholds, thresholds_origin)
    return path


def _undivided(config: Config) -> Config:
    """The config of the same model on one device: a graph that names others could not be loaded
    where they are not.
    """
    if not isinstance(config.model, BowTreeConfig):
        return config
    model = config.model.model_copy(update={"output_devices": 1})
    return config.model_copy(update={"model": model})


def tuned_for_export(experiment: Experiment, step: int) -> tuple[Tuned, str]:
    """The thresholds and the calibration to export, and how they came about, for people.

    They are those of `export.thresholds_from`, if it is set; else those that `evaluate` has written
    for this run. A run on a dataset without validation documents needs none of them: then every
    label that was trained is assigned from 0.5 on, and scores are not calibrated.

    Args:
      experiment: the experiment.
      step: of the weights that are exported.

    Raises:
      UserError: nothing is tuned although there are validation documents, or it belongs to others.
    """
    dataset, other = experiment.dataset, experiment.config.export.thresholds_from
    is_trained = dataset.is_trained
    if other is not None:
        other_run = remote_directory.local(other)
        thresholds, calibration = load_tuned_of(other_run, label_names=dataset.label_names)
        tuned = Tuned(thresholds.of_other_model(is_trained), calibration)
        origin = f"those of the run {other}, whose model has other weights"
    elif dataset.num_examples("validation") or has_tuned(experiment.run_dir):
        tuned = load_tuned(experiment.run_dir, num_labels=dataset.num_labels, step=step)
        origin = describe_tuning(dataset, tuned.thresholds)
    else:
        tuned = Tuned(Thresholds.untuned(is_trained), Calibration.none(dataset.num_labels))
        origin = describe_tuning(dataset, tuned.thresholds)
        method = experiment.config.evaluate.calibration
        if method != "none":
            origin += f", and the calibration {method} was not fitted"
    return tuned, origin


def describe_tuning(dataset: Dataset, thresholds: Thresholds) -> str:
    """How a run's own thresholds came about, as a clause after "the thresholds are"."""
    if thresholds.global_source == TUNED:
        return f"tuned on {dataset.num_examples('validation'):,} documents of the validation split"
    if thresholds.global_source == NO_DOCUMENTS:
        return (
            "0.5 for all labels, untuned, because there were no validation documents "
            "(export.thresholds_from takes those of an evaluated run with the same labels)"
        )
    _, reason = thresholds.global_source.split(": ")
    return f"0.5 for all labels, untuned: {reason}"


def _evaluation_text(run_dir: Path) -> str | None:
    """The report of `evaluate`, on the test split if there is one."""
    for split in reversed(EVALUATED_SPLITS):
        with contextlib.suppress(FileNotFoundError):
            return evaluation_text_path(run_dir, split).read_text(encoding="utf-8")
    return None


def _measured(run_dir: Path, config: Config) -> dict[str, Any] | None:
    """What the model card's front matter says: F1 on the test split, or else on validation."""
    paths = [evaluation_path(run_dir, split) for split in reversed(EVALUATED_SPLITS)]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return None
    evaluation = read_evaluation(path)
    if config.export.threshold == "best" and evaluation.thresholds.top_k != 1:
        return None  # no method of the evaluation decides like this model
    keys = {"global": ONE_THRESHOLD, "per_label": LABEL_THRESHOLDS, "best": TOP_K}
    key = keys[config.export.threshold]
    metrics = evaluation.method(key).metrics
    return {
        "split": evaluation.split,
        "metrics": {"micro-F1": metrics.micro_f1, "macro-F1": metrics.macro_f1_present},
    }
