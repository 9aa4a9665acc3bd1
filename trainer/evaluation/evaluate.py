"""The evaluation of a trained model: thresholds and calibration from the validation split, numbers beside baselines."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import dump_json
from trainer.data.labels import label_groups
from trainer.distribution.strategy import is_chief
from trainer.evaluation import error_analysis, slices
from trainer.evaluation.baselines import check_fits, linear_baseline
from trainer.evaluation.evaluator import Counts, Evaluator
from trainer.evaluation.text_report import classification_report, format_evaluation
from trainer.experiment import Experiment, assemble, restore_best
from trainer.losses import label_weights
from trainer.metrics import bootstrap, classification, ranking, score_histograms
from trainer.metrics.calibration import Calibration, fit
from trainer.metrics.thresholds import Thresholds, label_errors, tune
from trainer.runs.evaluation_record import (
    EXPECTED_F1,
    FREQUENT_LABELS,
    LABEL_THRESHOLDS,
    ONE_THRESHOLD,
    TOP_K,
)
from trainer.runs.layout import CALIBRATION, THRESHOLDS, evaluation_path

_CURVE_POINTS = 128


# --- what is saved ---------------------------------------------------------------------


def evaluate(config: Config, *, baseline: str | None = None) -> None:
    """Tunes on the validation split, evaluates it and the test split beside baselines, writes what it finds and prints the last.

    Args:
      config: the experiment.
      baseline: "linear" to fit `trainer.evaluation.baselines.linear_baseline` too.

    Raises:
      UserError: there is no trained model, no document to evaluate on, or too many for the baseline.
    """
    experiment = assemble(config)
    restore_best(experiment)
    dataset = experiment.dataset
    splits = [split for split in ("validation", "test") if dataset.num_examples(split)]
    if not splits:
        raise UserError(
            f"the dataset {dataset.directory} has neither validation nor test documents; look at `splits`"
        )
    if baseline:
        check_fits(dataset)
    evaluator = Evaluator(experiment)
    thresholds, calibration, errors = _tune(experiment, evaluator)
    chosen = error_analysis.confusion_labels(errors, dataset.label_counts("train"))
    counts = {
        split: evaluator.measure(split, thresholds, calibration, chosen=chosen) for split in splits
    }
    if not is_chief(experiment.strategy):
        return
    more_systems = (
        linear_baseline(dataset, splits, config=experiment.config.evaluate) if baseline else {}
    )
    calibration.save(experiment.run_dir / CALIBRATION)
    write_atomically(experiment.run_dir / THRESHOLDS, dump_json(thresholds.to_json()))
    for split in splits:
        evaluation = _describe(
            experiment,
            split,
            thresholds,
            calibration,
            counts[split],
            chosen=chosen,
            more_systems=more_systems.get(split, {}),
        )
        text = format_evaluation(evaluation)
        write_atomically(evaluation_path(experiment.run_dir, split), dump_json(evaluation))
        write_atomically(experiment.run_dir / f"evaluation-{split}.txt", text)
        write_atomically(
            experiment.run_dir / f"evaluation-{split}-labels.txt", classification_report(evaluation)
        )
    print(text)
    print(
        f"evaluations of {' and '.join(splits)} in {experiment.run_dir}; a page of them: python -m trainer.task report --run {experiment.run_dir}"
    )


def _tune(
    experiment: Experiment, evaluator: Evaluator
) -> tuple[Thresholds, Calibration, np.ndarray]:
    """The thresholds and the calibration that are best on the validation split, and each label's errors there."""
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


def load_thresholds(experiment: Experiment) -> Thresholds:
    """The thresholds that `evaluate` has written; they are those of scores calibrated by `load_calibration`.

    Raises:
      UserError: there are none, or they are not of this dataset.
    """
    path = experiment.run_dir / THRESHOLDS
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path}: {error}; expected the thresholds that `python -m trainer.task evaluate` writes: run it first"
        ) from None
    return Thresholds.from_json(raw, num_labels=experiment.dataset.num_labels, what=str(path))


def load_calibration(experiment: Experiment) -> Calibration:
    """The calibration that `evaluate` has written. Scores are sigmoid(calibration.log_odds(experiment.log_odds(logits))).

    Raises:
      UserError: there is none, or it is not of this dataset.
    """
    return Calibration.load(
        experiment.run_dir / CALIBRATION, num_labels=experiment.dataset.num_labels
    )


# --- counts -> plain JSON values, see `trainer.evaluation.text_report` ----------------------------------


def _describe(
    experiment: Experiment,
    split: str,
    thresholds: Thresholds,
    calibration: Calibration,
    counts: Counts,
    *,
    chosen: np.ndarray,
    more_systems: Mapping[str, Counts],
) -> dict[str, Any]:
    config, dataset = experiment.config, experiment.dataset
    documents, train_positives = dataset.num_examples(split), dataset.label_counts("train")
    auc, auc_error = score_histograms.roc_auc(counts["log_odds"])
    precision, precision_error = score_histograms.average_precision(counts["log_odds"])
    groups = label_groups(train_positives)
    per_label = _per_label(
        experiment, thresholds, counts, groups=groups, roc_auc=auc, average_precision=precision
    )
    return {
        "split": split,
        "documents": documents,
        "labels": dataset.num_labels,
        "thresholds": {
            "tuned_on": "validation",
            "documents": dataset.num_examples("validation"),
            "min_positives": config.evaluate.min_positives,
            "global": thresholds.global_threshold,
            "top_k": thresholds.top_k,
        },
        "systems": _systems(experiment, documents, counts, more_systems),
        "areas": {
            "macro_roc_auc": _mean_defined(auc),
            "macro_roc_auc_error": _mean_defined(auc_error),
            "mean_average_precision": _mean_defined(precision),
            "mean_average_precision_error": _mean_defined(precision_error),
        },
        "calibration": {
            "method": calibration.method,
            "stages": [
                {"name": name} | score_histograms.calibration(histogram)
                for name, histogram in (
                    ("the model's logits", counts["raw"]),
                    ("the loss's weighting undone", counts["uncalibrated"]),
                    *(
                        [(f"calibrated: {calibration.method}", counts["log_odds"].sum(axis=1))]
                        if calibration.method != "none"
                        else []
                    ),
                )
            ],
        },
        "sweep": _sweep(counts["histogram"]),
        "precision_recall": _precision_recall(counts["histogram"], groups),
        "groups": _groups(per_label, groups, tp=counts["systems"][LABEL_THRESHOLDS]["tp"]),
        "slices": slices.describe_slices(counts["slicing"], counts["slices"]),
        "confusions": error_analysis.describe_confusions(
            counts["confusions"], chosen=chosen, names=dataset.label_names, documents=documents
        ),
        "errors": error_analysis.describe_errors(counts["errors"], dataset, split),
        "per_label": per_label,
    }


def _systems(
    experiment: Experiment, documents: int, counts: Counts, more_systems: Mapping[str, Counts]
) -> list[dict[str, Any]]:
    ranks, rows = experiment.config.evaluate.at_k, []
    rankings = dict.fromkeys(
        (ONE_THRESHOLD, LABEL_THRESHOLDS, TOP_K, EXPECTED_F1), counts["rankings"]["model"]
    ) | {FREQUENT_LABELS: counts["rankings"][FREQUENT_LABELS]}
    for name, system in (counts["systems"] | more_systems).items():
        row = {"name": name} | classification.summarize(system)
        found = rankings.get(name, system if "hits" in system else None)
        if found is not None:
            row |= ranking.summarize_ranking(found, documents=documents, ranks=ranks)
        if name in counts.get("bootstrap", {}):
            row["intervals"] = bootstrap.intervals(
                counts["bootstrap"][name], num_labels=experiment.dataset.num_labels
            )
        rows.append(row)
    return rows


def _per_label(
    experiment: Experiment,
    thresholds: Thresholds,
    counts: Counts,
    *,
    groups,
    roc_auc,
    average_precision,
) -> list[dict[str, Any]]:
    dataset = experiment.dataset
    group_of = np.empty(dataset.num_labels, object)
    for name, ids in groups.items():
        group_of[ids] = name
    weights, _ = label_weights.label_weights(experiment.config.loss, **experiment.loss_statistics)
    columns = {
        "name": dataset.label_names,
        "group": group_of.tolist(),
        "train_positives": dataset.label_counts("train").tolist(),
        "loss_weight": weights.tolist(),
        "threshold": thresholds.per_label_thresholds,
        "roc_auc": _none_for_nan(roc_auc),
        "average_precision": _none_for_nan(average_precision),
        "ece": score_histograms.label_calibration_error(counts["log_odds"]).tolist(),
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [
        row | more
        for row, more in zip(
            rows, classification.per_label(counts["systems"][LABEL_THRESHOLDS]), strict=True
        )
    ]


def _none_for_nan(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]


def _mean_defined(values: np.ndarray) -> float | None:
    """The mean of the values that are numbers; None of none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _sweep(histogram: np.ndarray) -> dict[str, list[float]]:
    """Micro precision, recall and F1, and macro-F1, at even thresholds."""
    bins = histogram.shape[-1] - 1
    at = np.arange(0, bins + 1, max(1, bins // _CURVE_POINTS))
    micro = classification.sweep(histogram.sum(axis=1))
    macro = np.zeros(len(at))
    for label in range(histogram.shape[1]):
        macro += classification.sweep(histogram[:, label])["f1"][at] / histogram.shape[1]
    columns = (
        {"threshold": at / bins}
        | {f"micro_{name}": values[at] for name, values in micro.items()}
        | {"macro_f1": macro}
    )
    return {name: values.tolist() for name, values in columns.items()}


def _precision_recall(
    histogram: np.ndarray, groups: Mapping[str, np.ndarray]
) -> dict[str, dict[str, list[float]]]:
    """Precision against recall of all labels together and of head, mid and tail labels together, at points of different recall."""
    found = {}
    for name, ids in {"all": np.arange(histogram.shape[1]), **groups}.items():
        part = histogram[:, ids].sum(axis=1)
        if part[1].sum():
            swept = classification.sweep(part)
            _, at = np.unique(np.floor(swept["recall"] * _CURVE_POINTS), return_index=True)
            # Where nothing is assigned any more there is no precision.
            at = at[(swept["recall"][at] > 0)]
            found[name] = {key: swept[key][at].tolist() for key in ("recall", "precision")}
    return found


def _groups(
    per_label: list[dict[str, Any]], groups: Mapping[str, np.ndarray], *, tp: np.ndarray
) -> list[dict[str, Any]]:
    """Head, mid and tail labels: [{"name", "labels", "least", "most" (train positives), "positives", "micro_f1", "macro_f1", "without_hits"}]."""
    rows = []
    for name, ids in groups.items():
        own = [per_label[i] for i in ids]
        if not own:
            continue
        train, positives, predicted = (
            np.array([row[key] for row in own])
            for key in ("train_positives", "positives", "predicted")
        )
        f1 = np.array([row["f1"] for row in own])
        rows.append(
            {
                "name": name,
                "labels": len(own),
                "least": int(train.min()),
                "most": int(train.max()),
                "positives": int(positives.sum()),
                "micro_f1": float(
                    classification.ratio(2 * tp[ids].sum(), (positives + predicted).sum())
                ),
                "macro_f1": float(f1.mean()),
                "without_hits": int((f1 == 0).sum()),
            }
        )
    return rows
