"""Evaluation records for tests."""

from trainer.runs import evaluation_record as records
from trainer.runs.evaluation_record import METHODS, NO_LABELS, ONE_THRESHOLD

DECISIONS = records.DecisionMetrics(
    documents=12345,
    labels=2,
    labels_present=2,
    **{
        f"{average}_{metric}{over}": 0.5
        for metric in ("precision", "recall", "f1")
        for average, over in (
            ("micro", ""),
            ("macro", ""),
            ("macro", "_present"),
            ("weighted", ""),
            ("sample", ""),
        )
    }
    | {
        "micro_f1": 0.8061,
        "macro_f1": 0.547,
        "macro_f1_present": 0.82,
        "sample_f1": 0.7,
        "micro_precision": 0.81,
        "micro_recall": 0.8,
    },
    subset_accuracy=0.987654,
    hamming_loss=0.012345,
)
RANKING = records.RankingMetrics(
    precision_at={1: 0.9, 10: 0.4, 3: 0.6},
    recall_at={1: 0.3, 10: 0.8, 3: 0.5},
    ndcg_at={1: 0.9, 10: 0.85, 3: 0.7},
    propensity_scored_precision_at={1: 0.5, 10: 0.65, 3: 0.6},
    coverage_error=3.25,
    ranking_loss=0.0234,
    label_ranking_average_precision=0.9,
)


def method(key, *, ranking=None, intervals=None, **changes) -> records.Method:
    kind, name = METHODS[key]
    return records.Method(
        key=key,
        kind=kind,
        name=name,
        metrics=DECISIONS.model_copy(update=changes),
        ranking=ranking,
        intervals=intervals,
    )


def label(
    name, *, train=100, positives=10, f1=0.5, threshold=0.37, source="own"
) -> records.LabelRow:
    return records.LabelRow(
        name=name,
        group="head",
        train_positives=train,
        loss_weight=1.0,
        threshold=threshold,
        threshold_source=source,
        roc_auc=None,
        average_precision=0.5,
        ece=0.01,
        positives=positives,
        predicted=12345,
        precision=0.25,
        recall=0.125,
        f1=f1,
    )


def per_label(rows) -> records.PerLabel:
    columns = zip(*rows, strict=True) if rows else [()] * len(records.LabelRow._fields)
    return records.PerLabel(**dict(zip(records.LabelRow._fields, columns, strict=True)))


def evaluation(**changes) -> records.Evaluation:
    """An evaluation of two labels, with the given fields changed."""
    fields = {
        "format_version": records.FORMAT_VERSION,
        "split": "test",
        "documents": 12345,
        "labels": 2,
        "thresholds": records.TunedThresholds(
            tuned_on="validation",
            documents=6000,
            min_positives=10,
            global_threshold=0.37,
            global_source="tuned",
            top_k=3,
        ),
        "methods": (
            method(
                ONE_THRESHOLD,
                ranking=RANKING,
                intervals=records.Intervals(micro_f1=(0.79, 0.82), macro_f1_present=(0.5, 0.6)),
            ),
            method(NO_LABELS, micro_f1=0.0),
        ),
        "curve_metrics": records.CurveMetrics(
            macro_roc_auc=0.9712,
            macro_roc_auc_error=0.0011,
            mean_average_precision=0.61,
            mean_average_precision_error=0.002,
        ),
        "calibration": records.Calibration(
            method="platt",
            stages=(
                records.CalibrationStage(name="logits", ece=0.02, ece_error=0.001, bins=()),
                records.CalibrationStage(
                    name="calibrated: platt",
                    ece=0.0031,
                    ece_error=0.001,
                    bins=(records.CalibrationBin(count=3, mean_score=0.1, frequency=0.2),),
                ),
            ),
        ),
        "sweep": records.Sweep(
            threshold=(0.0, 1.0),
            micro_precision=(0.1, 0.0),
            micro_recall=(1.0, 0.0),
            micro_f1=(0.2, 0.0),
            macro_f1=(0.1, 0.0),
        ),
        "precision_recall": {"all": records.PrecisionRecall(recall=(0.5,), precision=(0.75,))},
        "groups": (
            records.LabelGroup(
                name="head",
                labels=2,
                min_train_positives=5,
                max_train_positives=2000,
                positives=10,
                micro_f1=0.8,
                macro_f1=0.5,
                without_hits=0,
            ),
        ),
        "slices": (
            records.Slice(
                by="length",
                name="0 to 12 tokens",
                documents=3000,
                micro_precision=0.7,
                micro_recall=0.7,
                micro_f1=0.7,
                sample_f1=0.6,
            ),
        ),
        "confusions": records.Confusions(
            labels=2,
            pairs=(records.Confusion(present="beta", predicted="alpha", documents=7),),
        ),
        "errors": records.Errors(
            wrong=(
                records.ErrorExample(
                    label="alpha", score=0.9, id="doc-1", labels=("beta",), text="a text"
                ),
            ),
            missed=(),
        ),
        "per_label": per_label(
            [label("beta", train=5, positives=0), label("alpha", train=2000, threshold=0.2)]
        ),
    }
    return records.Evaluation(**fields | changes)
