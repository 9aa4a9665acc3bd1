"""The evaluation of a trained model: tuned on the validation split, compared with baselines."""

import contextlib

import numpy as np

from beam_jobs.contract.atomic import LOCK, in_turn, write_atomically
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from trainer.data.dataset import Dataset
from trainer.distribution.strategy import explain_lost_workers, is_chief
from trainer.document_vectors import with_vectors
from trainer.evaluation import error_analysis
from trainer.evaluation.description import describe_evaluation
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.text_report import classification_report, format_evaluation
from trainer.evaluation.tuned import Tuned, save_tuned
from trainer.experiment import Experiment, assemble, restore_best
from trainer.metrics.calibration import Calibration, fit
from trainer.metrics.thresholds import label_errors, tune
from trainer.runs.evaluation_record import Evaluation, write_evaluation
from trainer.runs.layout import (
    CALIBRATION,
    EVALUATED_SPLITS,
    THRESHOLDS,
    evaluation_path,
    evaluation_text_path,
    label_report_path,
)


def evaluate(config: Config, *, baseline: str | None = None) -> dict[str, Evaluation]:
    """Tunes on the validation split, evaluates it and the test split, and compares with baselines.

    The thresholds, the calibration and the evaluations are written to the run directory. The
    evaluation of the test split is printed, or that of the validation split if there is no other.

    Args:
      config: the experiment.
      baseline: "linear" to fit `trainer.evaluation.baselines.linear_baseline` too.

    Returns:
      The evaluation of each split that has documents; none on workers that are not the chief.

    Raises:
      UserError: there is no trained model, there are no documents to evaluate on, or too many for
        the baseline.
      LostWorkerError: another worker has ended.
    """
    experiment = assemble(config)
    state = restore_best(experiment)
    dataset = experiment.dataset
    splits = _splits_with_documents(dataset)
    if baseline:
        from trainer.evaluation import baselines  # scikit-learn takes a second to import

        baselines.check_fits(dataset)
    _check_may_write(experiment)

    with explain_lost_workers(experiment.strategy):
        evaluator = Evaluator(with_vectors(experiment, splits))
        (thresholds, calibration), validation_errors = _tune(experiment, evaluator)
        confusion_labels = error_analysis.confusion_labels(
            validation_errors, dataset.label_counts("train")
        )
        counts = evaluator.measure(
            splits, thresholds, calibration, confusion_labels=confusion_labels
        )
    if not is_chief(experiment.strategy):
        return {}

    baseline_counts = baselines.linear_baseline(experiment, splits) if baseline else {}
    evaluations = {}
    with _writing(experiment):
        save_tuned(experiment.run_dir, Tuned(thresholds, calibration), step=state.step)
        for split in splits:
            evaluations[split] = describe_evaluation(
                experiment,
                split,
                thresholds,
                calibration,
                counts[split],
                baseline_counts=baseline_counts.get(split, {}),
                confusion_labels=confusion_labels,
            )
            text = _write(experiment, evaluations[split])
    experiment.push()
    print(text)
    _print_what_next(experiment, splits, calibration)
    return evaluations


def _splits_with_documents(dataset: Dataset) -> list[str]:
    """The splits that can be evaluated; raises UserError if there is none."""
    splits = [split for split in EVALUATED_SPLITS if dataset.num_examples(split)]
    if not splits:
        raise UserError(
            f"the dataset {dataset.place} has neither validation nor test documents, so there "
            "is nothing to tune thresholds or to measure the model on; expected a dataset with one "
            "of them (`splits`). The model can be exported as it is: `python -m trainer.task "
            "export` then decides by 0.5, or by the thresholds of an evaluated run with the same "
            "labels (`--set export.thresholds_from=RUN`)"
        )
    return splits


def _print_what_next(experiment: Experiment, splits: list[str], calibration: Calibration) -> None:
    method, documents = experiment.config.evaluate.calibration, experiment.dataset.num_examples
    if calibration.method != method:
        print(
            f"evaluate.calibration: {method} was not fitted: the scores of the validation split's "
            f"{documents('validation'):,} documents do not rank above chance"
        )
    print(
        f"evaluations of {' and '.join(splits)} in {experiment.run_place}; a page of them: "
        f"python -m trainer.task report --run {experiment.run_place}"
    )


def tune_thresholds(config: Config) -> None:
    """The part of `evaluate` that `export` needs: thresholds and calibration are tuned and written.

    Raises:
      UserError: there is no trained model, or the dataset has no validation documents.
    """
    experiment = assemble(config)
    state = restore_best(experiment)
    if not experiment.dataset.num_examples("validation"):
        raise UserError(
            f"the dataset {experiment.dataset.place} has no validation documents to tune "
            "thresholds on; expected some (`splits`)"
        )
    _check_may_write(experiment)
    tuned, _ = _tune(experiment, Evaluator(experiment))
    if is_chief(experiment.strategy):
        with _writing(experiment):
            save_tuned(experiment.run_dir, tuned, step=state.step)
        experiment.push()


def _check_may_write(experiment: Experiment) -> None:
    """Raises an OSError, before all the work, if the run directory may not be written."""
    if is_chief(experiment.strategy):
        with _writing(experiment):
            pass


def _writing(experiment: Experiment) -> contextlib.AbstractContextManager[None]:
    """Evaluations of one run write in turn, and remove what killed ones had begun to write."""

    def owns(name: str) -> bool:
        return name in (THRESHOLDS, CALIBRATION) or name.startswith("evaluation-")

    return in_turn(experiment.run_dir, f".evaluation{LOCK}", owns=owns)


def _tune(experiment: Experiment, evaluator: Evaluator) -> tuple[Tuned, np.ndarray]:
    """The best thresholds and calibration on the validation split.

    Returns:
      Both, and the number of errors of each label there, int64 [labels].
    """
    config, is_trained = experiment.config.evaluate, experiment.dataset.is_trained
    if config.calibration == "none":
        calibration = Calibration.none(experiment.dataset.num_labels)
    else:
        calibration = fit(
            config.calibration,
            evaluator.log_odds_histogram("validation"),
            min_positives=config.min_positives,
            is_trained=is_trained,
        )
    counts = evaluator.tuning_counts("validation", calibration)
    thresholds = tune(
        counts["histogram"],
        min_positives=config.min_positives,
        hits=counts["hits"],
        is_trained=is_trained,
        objective=experiment.config.train.objective,
    )
    return Tuned(thresholds, calibration), label_errors(counts["histogram"], thresholds)


def _write(experiment: Experiment, evaluation: Evaluation) -> str:
    """Writes the evaluation of a split, as JSON and as text. Returns the text."""
    run_dir, split = experiment.run_dir, evaluation.split
    text = format_evaluation(evaluation)
    write_evaluation(evaluation_path(run_dir, split), evaluation)
    write_atomically(evaluation_text_path(run_dir, split), text)
    write_atomically(label_report_path(run_dir, split), classification_report(evaluation))
    return text
