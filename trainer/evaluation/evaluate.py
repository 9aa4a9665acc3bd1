"""The evaluation of a trained model: tuned on the validation split, compared with baselines."""

import json

import numpy as np

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import dump_json
from trainer.distribution.strategy import is_chief
from trainer.evaluation import error_analysis
from trainer.evaluation.baselines import check_fits, linear_baseline
from trainer.evaluation.description import describe_evaluation
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.text_report import classification_report, format_evaluation
from trainer.experiment import Experiment, assemble, restore_best
from trainer.metrics.calibration import Calibration, fit
from trainer.metrics.thresholds import Thresholds, label_errors, tune
from trainer.runs.evaluation_record import Evaluation, write_evaluation
from trainer.runs.layout import (
    CALIBRATION,
    EVALUATED_SPLITS,
    THRESHOLDS,
    evaluation_path,
    evaluation_text_path,
    label_report_path,
)


def evaluate(config: Config, *, baseline: str | None = None) -> None:
    """Tunes on the validation split, evaluates it and the test split, and compares with baselines.

    The thresholds, the calibration and the evaluations are written to the run directory. The
    evaluation of the test split is printed, or that of the validation split if there is no other.

    Args:
      config: the experiment.
      baseline: "linear" to fit `trainer.evaluation.baselines.linear_baseline` too.

    Raises:
      UserError: there is no trained model, there are no documents to evaluate on, or too many for
        the baseline.
    """
    experiment = assemble(config)
    restore_best(experiment)
    dataset = experiment.dataset
    splits = [split for split in EVALUATED_SPLITS if dataset.num_examples(split)]
    if not splits:
        raise UserError(
            f"the dataset {dataset.directory} has neither validation nor test documents; expected "
            "at least one of them: see `splits`"
        )
    if baseline:
        check_fits(dataset)

    evaluator = Evaluator(experiment)
    thresholds, calibration, validation_errors = _tune(experiment, evaluator)
    confusion_labels = error_analysis.confusion_labels(
        validation_errors, dataset.label_counts("train")
    )
    counts = {
        split: evaluator.measure(split, thresholds, calibration, confusion_labels=confusion_labels)
        for split in splits
    }
    if not is_chief(experiment.strategy):
        return

    baseline_counts = {}
    if baseline:
        baseline_counts = linear_baseline(dataset, splits, config=experiment.config.evaluate)
    calibration.save(experiment.run_dir / CALIBRATION)
    write_atomically(experiment.run_dir / THRESHOLDS, dump_json(thresholds.to_json()))
    for split in splits:
        evaluation = describe_evaluation(
            experiment,
            split,
            thresholds,
            calibration,
            counts[split],
            baseline_counts=baseline_counts.get(split, {}),
            confusion_labels=confusion_labels,
        )
        text = _write(experiment, evaluation)
    print(text)
    print(
        f"evaluations of {' and '.join(splits)} in {experiment.run_dir}; a page of them: "
        f"python -m trainer.task report --run {experiment.run_dir}"
    )


def _tune(
    experiment: Experiment, evaluator: Evaluator
) -> tuple[Thresholds, Calibration, np.ndarray]:
    """The best thresholds and calibration on the validation split.

    Returns:
      Both, and the number of errors of each label there, int64 [labels].
    """
    config = experiment.config.evaluate
    if config.calibration == "none":
        calibration = Calibration.none(experiment.dataset.num_labels)
    else:
        calibration = fit(
            config.calibration,
            evaluator.log_odds_histogram("validation"),
            min_positives=config.min_positives,
        )
    counts = evaluator.tuning_counts("validation", calibration)
    thresholds = tune(counts["histogram"], min_positives=config.min_positives, hits=counts["hits"])
    return thresholds, calibration, label_errors(counts["histogram"], thresholds)


def _write(experiment: Experiment, evaluation: Evaluation) -> str:
    """Writes the evaluation of a split, as JSON and as text. Returns the text."""
    run_dir, split = experiment.run_dir, evaluation.split
    text = format_evaluation(evaluation)
    write_evaluation(evaluation_path(run_dir, split), evaluation)
    write_atomically(evaluation_text_path(run_dir, split), text)
    write_atomically(label_report_path(run_dir, split), classification_report(evaluation))
    return text


# --- read back, for the export ---------------------------------------------------------


def load_thresholds(experiment: Experiment) -> Thresholds:
    """The thresholds that `evaluate` wrote, of scores that `load_calibration` calibrates.

    Raises:
      UserError: there are none, or they belong to another dataset.
    """
    path = experiment.run_dir / THRESHOLDS
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path}: {error}; expected the thresholds that "
            "`python -m trainer.task evaluate` writes: run it first"
        ) from None
    return Thresholds.from_json(raw, num_labels=experiment.dataset.num_labels, what=str(path))


def load_calibration(experiment: Experiment) -> Calibration:
    """The calibration that `evaluate` wrote.

    Scores are sigmoid(calibration.log_odds(experiment.log_odds(logits))).

    Raises:
      UserError: there is none, or it belongs to another dataset.
    """
    return Calibration.load(
        experiment.run_dir / CALIBRATION, num_labels=experiment.dataset.num_labels
    )
