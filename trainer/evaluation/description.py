"""From the counts of a split to its evaluation record."""

from collections.abc import Mapping

import numpy as np

from trainer.data.labels import label_groups
from trainer.evaluation import error_analysis, slices
from trainer.evaluation.split_counts import MODEL_RANKING, Counts
from trainer.experiment import Experiment
from trainer.losses import label_weights
from trainer.metrics import bootstrap, classification, ranking, score_histograms
from trainer.metrics import calibration as calibrations
from trainer.metrics.thresholds import Thresholds
from trainer.runs import evaluation_record as records
from trainer.runs.evaluation_record import FORMAT_VERSION, LABEL_THRESHOLDS, METHODS

_CURVE_POINTS = 128
_LABELS_AT_A_TIME = 1024  # an array float64 [these, bins] then takes 8 MB


def describe_evaluation(
    experiment: Experiment,
    split: str,
    thresholds: Thresholds,
    calibration: calibrations.Calibration,
    counts: Counts,
    *,
    baseline_counts: Mapping[str, Counts],
    confusion_labels: np.ndarray,
) -> records.Evaluation:
    """The evaluation of a split.

    Args:
      experiment: the experiment.
      split: the split.
      thresholds: of the calibrated scores.
      calibration: what calibrates the model's log-odds.
      counts: of `trainer.evaluation.evaluator.Evaluator.measure`.
      baseline_counts: by key of a further method, its decision and ranking counts.
      confusion_labels: ids of the labels whose confusions were counted.
    """
    dataset = experiment.dataset
    groups = label_groups(dataset.label_counts("train"))
    documents = dataset.num_examples(split)
    roc_auc, roc_auc_error = score_histograms.roc_auc(counts["log_odds"])
    precision, precision_error = score_histograms.average_precision(counts["log_odds"])
    per_label = _per_label(
        experiment,
        thresholds,
        counts,
        groups=groups,
        roc_auc=roc_auc,
        average_precision=precision,
    )
    return records.Evaluation(
        format_version=FORMAT_VERSION,
        split=split,
        documents=documents,
        labels=dataset.num_labels,
        thresholds=_tuned_thresholds(experiment, thresholds),
        methods=_methods(experiment, documents, counts, baseline_counts),
        accuracy=error_analysis.accuracy(counts["confusions"], documents=documents),
        curve_metrics=records.CurveMetrics(
            macro_roc_auc=_mean_of_defined(roc_auc),
            macro_roc_auc_error=_mean_of_defined(roc_auc_error),
            mean_average_precision=_mean_of_defined(precision),
            mean_average_precision_error=_mean_of_defined(precision_error),
        ),
        calibration=_calibration(calibration.method, counts),
        sweep=_sweep(counts["histogram"]),
        precision_recall=_precision_recall(counts["histogram"], groups),
        groups=_groups(per_label, groups, tp=counts["methods"][LABEL_THRESHOLDS]["tp"]),
        slices=slices.describe_slices(counts["slicing"], counts["slices"]),
        confusions=error_analysis.describe_confusions(
            counts["confusions"],
            label_ids=confusion_labels,
            label_names=dataset.label_names,
            documents=documents,
        ),
        errors=error_analysis.describe_errors(counts["errors"], dataset, split),
        per_label=per_label,
    )


def _tuned_thresholds(experiment: Experiment, thresholds: Thresholds) -> records.TunedThresholds:
    """The thresholds that hold for all labels, and what they rest on."""
    return records.TunedThresholds(
        objective=experiment.config.train.objective,
        tuned_on="validation",
        documents=experiment.dataset.num_examples("validation"),
        min_positives=experiment.config.evaluate.min_positives,
        global_threshold=thresholds.global_threshold,
        global_source=thresholds.global_source,
        top_k=thresholds.top_k,
    )


def _methods(
    experiment: Experiment,
    documents: int,
    counts: Counts,
    baseline_counts: Mapping[str, Counts],
) -> tuple[records.Method, ...]:
    at_k, num_labels = experiment.config.evaluate.at_k, experiment.dataset.num_labels
    decisions = counts["methods"] | baseline_counts
    rankings = counts["rankings"] | baseline_counts  # a fitted baseline's counts hold both
    resampled = counts.get("bootstrap", {})

    def ranking_of(key: str, kind: str) -> records.RankingMetrics | None:
        ranked = rankings.get(MODEL_RANKING if kind == "model" else key)
        if ranked is None:
            return None
        return records.RankingMetrics(
            **ranking.summarize_ranking(ranked, documents=documents, at_k=at_k)
        )

    def intervals_of(key: str) -> records.Intervals | None:
        if key not in resampled:
            return None
        return records.Intervals(**bootstrap.intervals(resampled[key], num_labels=num_labels))

    return tuple(
        records.Method(
            key=key,
            kind=kind,
            name=name,
            metrics=records.DecisionMetrics(**classification.summarize(decisions[key])),
            ranking=ranking_of(key, kind),
            intervals=intervals_of(key),
        )
        for key, (kind, name) in METHODS.items()
        if key in decisions
    )


def _calibration(method: str, counts: Counts) -> records.Calibration:
    calibrated = counts["log_odds"].sum(axis=1)
    stages = {
        "logits": counts["pooled"].get("logits", calibrated),
        "prior-corrected": counts["pooled"].get("prior_corrected", calibrated),
    }
    if method != "none":
        stages[f"calibrated: {method}"] = calibrated
    described = []
    for name, histogram in stages.items():
        error = score_histograms.expected_calibration_error(histogram)
        bins = tuple(records.CalibrationBin(**row) for row in error.pop("bins"))
        described.append(records.CalibrationStage(name=name, bins=bins, **error))
    return records.Calibration(method=method, stages=tuple(described))


def _per_label(
    experiment: Experiment,
    thresholds: Thresholds,
    counts: Counts,
    *,
    groups: Mapping[str, np.ndarray],
    roc_auc: np.ndarray,
    average_precision: np.ndarray,
) -> records.PerLabel:
    dataset = experiment.dataset
    group_of_label = np.empty(dataset.num_labels, object)
    for name, label_ids in groups.items():
        group_of_label[label_ids] = name
    loss_weights, _ = label_weights.label_weights(
        experiment.config.loss, **experiment.loss_statistics
    )
    at_thresholds = classification.per_label(counts["methods"][LABEL_THRESHOLDS])
    ece = score_histograms.per_label_calibration_error(counts["log_odds"])
    return records.PerLabel(
        name=tuple(dataset.label_names),
        group=tuple(group_of_label.tolist()),
        train_positives=tuple(dataset.label_counts("train").tolist()),
        loss_weight=tuple(loss_weights.tolist()),
        threshold=thresholds.per_label_thresholds,
        threshold_source=thresholds.sources,
        roc_auc=_none_for_nan(roc_auc),
        average_precision=_none_for_nan(average_precision),
        ece=tuple(ece.tolist()),
        **{name: tuple(column.tolist()) for name, column in at_thresholds.items()},
    )


def _none_for_nan(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else value for value in values.tolist())


def _mean_of_defined(values: np.ndarray) -> float | None:
    """The mean of the values that are numbers; None if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _sweep(histogram: np.ndarray) -> records.Sweep:
    """Micro precision, recall and F1, and macro-F1, at even thresholds."""
    bins = histogram.shape[-1] - 1
    indices = np.arange(0, bins + 1, max(1, bins // _CURVE_POINTS))
    micro = classification.sweep(histogram.sum(axis=1))
    macro_f1 = np.zeros(len(indices))
    for start in range(0, histogram.shape[1], _LABELS_AT_A_TIME):
        part = histogram[:, start : start + _LABELS_AT_A_TIME]
        f1 = classification.sweep_f1(part, indices) / histogram.shape[1]
        # Turned, so that sums over labels run along the rows: those are exact to the last digit.
        macro_f1 += np.ascontiguousarray(f1.T).sum(axis=1)
    return records.Sweep(
        threshold=tuple((indices / bins).tolist()),
        micro_precision=tuple(micro["precision"][indices].tolist()),
        micro_recall=tuple(micro["recall"][indices].tolist()),
        micro_f1=tuple(micro["f1"][indices].tolist()),
        macro_f1=tuple(macro_f1.tolist()),
    )


def _precision_recall(
    histogram: np.ndarray, groups: Mapping[str, np.ndarray]
) -> dict[str, records.PrecisionRecall]:
    """Precision against recall of all labels together, and of head, mid and tail labels together.

    The points differ in recall by about 1 / _CURVE_POINTS.
    """
    curves = {}
    for name, label_ids in {"all": None, **groups}.items():
        of_group = histogram if label_ids is None else histogram[:, label_ids]
        pooled = of_group.sum(axis=1)
        if not pooled[1].sum():
            continue
        swept = classification.sweep(pooled)
        _, indices = np.unique(np.floor(swept["recall"] * _CURVE_POINTS), return_index=True)
        # Where nothing is assigned any more, precision is not defined.
        indices = indices[swept["recall"][indices] > 0]
        curves[name] = records.PrecisionRecall(
            recall=tuple(swept["recall"][indices].tolist()),
            precision=tuple(swept["precision"][indices].tolist()),
        )
    return curves


def _groups(
    per_label: records.PerLabel, groups: Mapping[str, np.ndarray], *, tp: np.ndarray
) -> tuple[records.LabelGroup, ...]:
    """Head, mid and tail labels, those of them that have labels.

    Args:
      per_label: metrics of every label.
      groups: label ids by name of the group.
      tp: int64 [labels], true positives.
    """
    train_positives, positives, predicted, f1 = (
        np.array(column)
        for column in (
            per_label.train_positives,
            per_label.positives,
            per_label.predicted,
            per_label.f1,
        )
    )
    return tuple(
        records.LabelGroup(
            name=name,
            labels=len(ids),
            min_train_positives=int(train_positives[ids].min()),
            max_train_positives=int(train_positives[ids].max()),
            positives=int(positives[ids].sum()),
            micro_f1=float(
                classification.ratio(2 * tp[ids].sum(), (positives[ids] + predicted[ids]).sum())
            ),
            macro_f1=float(f1[ids].mean()),
            without_hits=int((f1[ids] == 0).sum()),
        )
        for name, ids in groups.items()
        if len(ids)
    )
