"""What the evaluation of one split holds: its schema, and the methods that it compares.

`trainer.evaluation` writes an `Evaluation`; text, page, plots and comparisons read it. Ratios are
in [0, 1]. A value that cannot be computed, such as the ROC AUC of a label without positives, is
None (null in JSON).
"""

import collections
from pathlib import Path
from typing import Any, Literal

import pydantic

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.train import Objective
from beam_jobs.contract.validation import Section

FORMAT_VERSION = 1

# --- the methods -------------------------------------------------------------------------

# A method turns a document into a set of labels: the model with one rule of decision, or a
# baseline. These are the keys of the methods.
ONE_THRESHOLD = "one_threshold"
LABEL_THRESHOLDS = "label_thresholds"
TOP_K = "top_k"
EXPECTED_F1 = "expected_f1"
NO_LABELS = "no_labels"
FREQUENT_LABELS = "frequent_labels"
LINEAR_ONE_THRESHOLD = "linear_one_threshold"
LINEAR_LABEL_THRESHOLDS = "linear_label_thresholds"

MethodKind = Literal["model", "baseline"]

# By key: the kind of the method, and its name for people.
METHODS: dict[str, tuple[MethodKind, str]] = {
    ONE_THRESHOLD: ("model", "one threshold"),
    LABEL_THRESHOLDS: ("model", "a threshold per label"),
    TOP_K: ("model", "k best labels"),
    EXPECTED_F1: ("model", "best expected F1"),
    NO_LABELS: ("baseline", "no labels"),
    FREQUENT_LABELS: ("baseline", "most frequent labels"),
    LINEAR_ONE_THRESHOLD: ("baseline", "linear, one threshold"),
    LINEAR_LABEL_THRESHOLDS: ("baseline", "linear, a threshold per label"),
}

# Titles of the metrics in tables of methods, with the fields that hold them. The star means "over
# the labels that occur in the split".
DECISION_TITLES = {
    "micro-F1": "micro_f1",
    "macro-F1": "macro_f1",
    "macro-F1*": "macro_f1_present",
    "sample-F1": "sample_f1",
    "micro-P": "micro_precision",
    "micro-R": "micro_recall",
}
# The fields of the metrics that `train.objective` names.
OBJECTIVE_FIELDS: dict[Objective, str] = {"micro_f1": "micro_f1", "macro_f1": "macro_f1_present"}
RANKING_TITLES = {
    "P": "precision_at",
    "R": "recall_at",
    "nDCG": "ndcg_at",
    "PSP": "propensity_scored_precision_at",
}


# --- the schema --------------------------------------------------------------------------


class Part(Section):
    """A part of an evaluation. NaN is let through: the scores of a diverged model are NaN."""

    model_config = pydantic.ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")


class TunedThresholds(Part):
    """The thresholds that were applied, and what they were tuned on."""

    objective: Objective = pydantic.Field(
        "micro_f1", description="what the global one is best for, `train.objective`"
    )
    tuned_on: str = pydantic.Field(description="a split")
    documents: int = pydantic.Field(description="documents of that split; 0: nothing was tuned")
    min_positives: int = pydantic.Field(
        description="positives there that a label needs for a threshold of its own"
    )
    global_threshold: float
    global_source: str = pydantic.Field(
        description="`tuned`, or why it is 0.5, see `trainer.metrics.thresholds.GlobalSource`"
    )
    top_k: int = pydantic.Field(description="the number of labels that `top_k` assigns")


class DecisionMetrics(Part):
    """Metrics of the labels that a method assigns, see `trainer.metrics.classification.summarize`.

    `macro_*` averages over all labels, `macro_*_present` over those with a positive in the split.
    """

    documents: int
    labels: int
    labels_present: int
    micro_precision: float
    macro_precision: float
    macro_precision_present: float
    weighted_precision: float
    sample_precision: float
    micro_recall: float
    macro_recall: float
    macro_recall_present: float
    weighted_recall: float
    sample_recall: float
    micro_f1: float
    macro_f1: float
    macro_f1_present: float
    weighted_f1: float
    sample_f1: float
    subset_accuracy: float
    hamming_loss: float


class RankingMetrics(Part):
    """Metrics of the order of labels by score, see `trainer.metrics.ranking.summarize_ranking`."""

    precision_at: dict[int, float] = pydantic.Field(description="by k")
    recall_at: dict[int, float]
    ndcg_at: dict[int, float]
    propensity_scored_precision_at: dict[int, float]
    coverage_error: float | None = None
    ranking_loss: float | None = None
    label_ranking_average_precision: float | None = None


class Intervals(Part):
    """95% intervals, (low, high), by the bootstrap over documents."""

    micro_f1: tuple[float, float]
    macro_f1_present: tuple[float, float] | None = pydantic.Field(
        None, description="null where the labels are too many to be resampled one by one"
    )


class Method(Part):
    """One method on one split."""

    key: str
    kind: MethodKind
    name: str
    metrics: DecisionMetrics
    ranking: RankingMetrics | None = pydantic.Field(
        None, description="null where the method does not rank labels"
    )
    intervals: Intervals | None = None

    @property
    def caption(self) -> str:
        """Kind and name, for people."""
        return f"{self.kind}: {self.name}" if self.is_baseline else f"{self.kind}, {self.name}"

    @property
    def is_baseline(self) -> bool:
        return self.kind == "baseline"


class CurveMetrics(Part):
    """Areas under the curves of the model's scores, averaged over labels.

    `*_error` is by how much the bins of the streamed score histograms may change the value.
    """

    macro_roc_auc: float | None
    macro_roc_auc_error: float | None
    mean_average_precision: float | None
    mean_average_precision_error: float | None


class CalibrationBin(Part):
    """The pairs of a document and a label whose scores lie in one bin."""

    count: int
    mean_score: float
    frequency: float = pydantic.Field(description="of pairs in which the document has the label")


class CalibrationStage(Part):
    """Scores as they are after one step from the model's logits to what is served."""

    name: str
    ece: float = pydantic.Field(description="expected calibration error")
    ece_error: float = pydantic.Field(description="by how much binning may change it")
    bins: tuple[CalibrationBin, ...]


class Calibration(Part):
    """How far scores are from frequencies."""

    method: str = pydantic.Field(description="`evaluate.calibration`")
    stages: tuple[CalibrationStage, ...]


class Sweep(Part):
    """Metrics at even thresholds, one for all labels; columns of equal length."""

    threshold: tuple[float, ...]
    micro_precision: tuple[float, ...]
    micro_recall: tuple[float, ...]
    micro_f1: tuple[float, ...]
    macro_f1: tuple[float, ...]


class PrecisionRecall(Part):
    """A curve, as columns of equal length."""

    recall: tuple[float, ...]
    precision: tuple[float, ...]


class LabelGroup(Part):
    """Head, mid or tail labels, see `trainer.data.labels.label_groups`."""

    name: str
    labels: int
    min_train_positives: int
    max_train_positives: int
    positives: int
    micro_f1: float
    macro_f1: float
    without_hits: int = pydantic.Field(description="labels with F1 0")


class Slice(Part):
    """The documents of one slice, at the labels' own thresholds."""

    by: str = pydantic.Field(description="`length` or a metadata field")
    name: str
    documents: int
    micro_precision: float
    micro_recall: float
    micro_f1: float
    sample_f1: float


class Confusion(Part):
    """Documents that have one label but do not get it, while they get another one wrongly."""

    present: str
    predicted: str
    documents: int


class ConfusionMatrix(Part):
    """Of single-label data: rows are the documents' labels, columns the best-scored ones."""

    labels: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]


class Confusions(Part):
    """Which labels are taken for which."""

    labels: int = pydantic.Field(description="labels whose pairs were counted")
    pairs: tuple[Confusion, ...] = pydantic.Field(description="the most frequent first")
    matrix: ConfusionMatrix | None = None


class ErrorExample(Part):
    """A document on which the model is confident and wrong."""

    label: str
    score: float
    id: str
    labels: tuple[str, ...] = pydantic.Field(description="those that the document has")
    text: str


class Errors(Part):
    """The most confident errors, the most confident first."""

    wrong: tuple[ErrorExample, ...] = pydantic.Field(description="assigned, but not present")
    missed: tuple[ErrorExample, ...] = pydantic.Field(description="present, but not assigned")


class PerLabel(Part):
    """Every label at its own threshold, as columns in the order of label ids.

    Columns, not a list of objects: the evaluation of 200,000 labels is read in 0.5 s instead of
    7.5 s, and its file is 50 MB instead of 83 MB.
    """

    name: tuple[str, ...]
    group: tuple[str, ...] = pydantic.Field(description="head, mid or tail")
    train_positives: tuple[int, ...]
    loss_weight: tuple[float, ...] = pydantic.Field(description="of the label's positives")
    threshold: tuple[float, ...]
    threshold_source: tuple[str, ...] = pydantic.Field(
        description=(
            "`own`, or why the label has none, see `trainer.metrics.thresholds.LabelSource`"
        )
    )
    roc_auc: tuple[float | None, ...]
    average_precision: tuple[float | None, ...]
    ece: tuple[float, ...]
    positives: tuple[int, ...]
    predicted: tuple[int, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]

    @pydantic.model_validator(mode="after")
    def _columns_are_of_equal_length(self) -> "PerLabel":
        lengths = {name: len(column) for name, column in self}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"received columns of different lengths: {lengths}")
        return self

    def __len__(self) -> int:
        return len(self.name)

    def rows(self) -> list["LabelRow"]:
        """The columns as one named tuple per label."""
        return [LabelRow(*values) for values in zip(*(column for _, column in self), strict=True)]


LabelRow: Any = collections.namedtuple("LabelRow", list(PerLabel.model_fields))


class Evaluation(Part):
    """The evaluation of one split."""

    format_version: int = pydantic.Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)
    split: str
    documents: int
    labels: int
    thresholds: TunedThresholds
    methods: tuple[Method, ...] = pydantic.Field(description="in the order in which they are shown")
    accuracy: float | None = pydantic.Field(
        None,
        description=(
            "of single-label data: the part of documents that have their best-scored label; null "
            "where more than 1 in 100 documents have several labels, or none"
        ),
    )
    curve_metrics: CurveMetrics
    calibration: Calibration
    sweep: Sweep
    precision_recall: dict[str, PrecisionRecall] = pydantic.Field(
        description="of `all` labels together, and of each group of them"
    )
    groups: tuple[LabelGroup, ...]
    slices: tuple[Slice, ...]
    confusions: Confusions
    errors: Errors
    per_label: PerLabel

    def method(self, key: str) -> Method:
        """The method with that key.

        Raises:
          KeyError: the evaluation has no such method.
        """
        for method in self.methods:
            if method.key == key:
                return method
        raise KeyError(key)

    @property
    def own_thresholds(self) -> int:
        """The number of labels whose own threshold differs from the global one."""
        columns, common = self.per_label, self.thresholds.global_threshold
        pairs = zip(columns.threshold, columns.threshold_source, strict=True)
        return sum(source == "own" and threshold != common for threshold, source in pairs)

    @property
    def ks(self) -> list[int]:
        """The k of `evaluate.at_k`, ascending."""
        ranked = (method.ranking.precision_at for method in self.methods if method.ranking)
        return sorted({k for at in ranked for k in at})

    def _repr_html_(self) -> str:
        """The table of methods, which a notebook shows."""
        head = "".join(f"<th>{title}</th>" for title in ("", *DECISION_TITLES))
        rows = []
        for method in self.methods:
            values = [getattr(method.metrics, field) for field in DECISION_TITLES.values()]
            cells = "".join(f"<td>{value:.3f}</td>" for value in values)
            rows.append(f"<tr><th>{method.caption}</th>{cells}</tr>")
        caption = f"{self.split}: {self.documents:,} documents, {self.labels:,} labels"
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{''.join(rows)}</table>"


# --- files -------------------------------------------------------------------------------


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Writes an evaluation as JSON that `read_evaluation` reads, one value a line."""
    write_atomically(path, evaluation.model_dump_json(indent=1) + "\n")


def read_evaluation(path: Path) -> Evaluation:
    """Reads what `write_evaluation` wrote.

    Raises:
      UserError: the file cannot be read, is damaged, or has another format version.
    """
    advice = "run `python -m trainer.task evaluate` again"
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {advice}") from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise UserError(
            f"{path} is not an evaluation of format version {FORMAT_VERSION} ({what}): it is "
            f"damaged, or another version of multihot wrote it; {advice}"
        ) from None
