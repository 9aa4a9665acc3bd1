"""An evaluation as text to read: the model's methods and the baselines, then labels."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from beam_jobs.contract.sections.train import OBJECTIVE_TITLES
from trainer.runs.evaluation_record import (
    DECISION_TITLES,
    LABEL_THRESHOLDS,
    RANKING_TITLES,
    CurveMetrics,
    Evaluation,
    LabelRow,
)

_MAX_NAME_WIDTH = 40  # terminal columns
_LABELS_SHOWN = 10
_NAMES_SHOWN = 5  # of the labels without a threshold of their own
# Wider than any table, so that the text does not depend on the terminal.
_CONSOLE_WIDTH = 10_000
_LABEL_COLUMNS = {
    "train": "train_positives",
    "positives": "positives",
    "predicted": "predicted",
    "threshold": "threshold",
    "precision": "precision",
    "recall": "recall",
    "F1": "f1",
}


def format_evaluation(evaluation: Evaluation) -> str:
    """The evaluation of one split as plain text in fixed-width columns, with a final newline."""
    parts = [
        _methods(evaluation),
        _further_metrics(evaluation),
        _thresholds(evaluation),
        *_groups(evaluation),
        *_slices(evaluation),
        *_labels(evaluation),
    ]
    return "\n\n".join(parts) + "\n"


def classification_report(evaluation: Evaluation) -> str:
    """Every label's metrics at its own threshold, and their averages.

    The text is that of scikit-learn's `classification_report`, to the letter.
    """
    labels = evaluation.per_label.rows()
    names = [_printable(row.name) for row in labels]
    metrics = evaluation.method(LABEL_THRESHOLDS).metrics
    width = max(map(len, [*names, "weighted avg"]))

    def line(name, precision, recall, f1, support):
        return f"{name:>{width}s}  {precision:>9.2f} {recall:>9.2f} {f1:>9.2f} {support:>9}"

    def average(title, prefix):
        return line(
            f"{title} avg",
            getattr(metrics, f"{prefix}_precision"),
            getattr(metrics, f"{prefix}_recall"),
            getattr(metrics, f"{prefix}_f1"),
            sum(evaluation.per_label.positives),
        )

    titles = "".join(f" {title:>9}" for title in ("precision", "recall", "f1-score", "support"))
    lines = [
        " " * width + " " + titles,
        "",
        *(
            line(name, row.precision, row.recall, row.f1, row.positives)
            for name, row in zip(names, labels, strict=True)
        ),
        "",
        average("micro", "micro"),
        average("macro", "macro"),
        average("weighted", "weighted"),
        average("samples", "sample"),
    ]
    return "\n".join(lines) + "\n"


# --- parts -----------------------------------------------------------------------------


def _methods(evaluation: Evaluation) -> str:
    labels, ks = evaluation.labels, evaluation.ks
    present = min((m.metrics.labels_present for m in evaluation.methods), default=labels)
    titles = dict(DECISION_TITLES)
    if present == labels:
        del titles["macro-F1*"]
    rows = []
    for method in evaluation.methods:
        precision_at = method.ranking.precision_at if method.ranking else {}
        decisions = [_number(getattr(method.metrics, field)) for field in titles.values()]
        rows.append([method.caption, *decisions, *(_number(precision_at.get(k)) for k in ks)])
    lines = [
        f"{evaluation.split}: {evaluation.documents:,} documents, {labels:,} labels",
        "",
        _table([*titles, *(f"P@{k}" for k in ks)], rows),
    ]
    if present < labels:
        lines.append(
            f"* over the {present:,} labels that occur in this split; in macro-F1 each of the "
            f"other {labels - present:,} counts as 0"
        )
    return "\n".join(lines)


def _further_metrics(evaluation: Evaluation) -> str:
    """Intervals, areas under curves, ranking and calibration, one line each."""
    lines = []
    for method in evaluation.methods:
        if method.intervals:
            low, high = method.intervals.micro_f1
            ranges = [f"micro-F1 {low:.3f} to {high:.3f}"]
            if method.intervals.macro_f1_present:
                low, high = method.intervals.macro_f1_present
                ranges.append(f"macro-F1 of the labels that occur {low:.3f} to {high:.3f}")
            lines.append(f"95% intervals of `{method.caption}`: {', '.join(ranges)}")
    if evaluation.accuracy is not None:
        lines.append(
            f"accuracy of the best-scored label {evaluation.accuracy:.3f}: documents have one "
            "label each here, and `export.threshold: best` assigns that one"
        )
    curves = evaluation.curve_metrics
    lines.append(
        f"mean average precision {_with_error(curves, 'mean_average_precision')}, "
        f"macro ROC AUC {_with_error(curves, 'macro_roc_auc')} "
        "(+-: what score bins may change)"
    )
    lines += _ranking_line(evaluation)
    stages = [f"{stage.ece:.4f} ({stage.name})" for stage in evaluation.calibration.stages]
    lines.append(f"expected calibration error {' -> '.join(stages)}")
    return "\n".join(lines)


def _with_error(curves: CurveMetrics, name: str) -> str:
    value, error = getattr(curves, name), getattr(curves, f"{name}_error")
    return "-" if value is None else f"{value:.3f} +- {error:.3f}"


def _ranking_line(evaluation: Evaluation) -> list[str]:
    """The ranking of all labels by the model, if it was measured."""
    for method in evaluation.methods:
        ranking = method.ranking
        if ranking and ranking.coverage_error is not None:
            k = max(ranking.recall_at)
            at_k = [
                f"{title}@{k} {getattr(ranking, field)[k]:.3f}"
                for title, field in RANKING_TITLES.items()
                if title != "P"  # which the table of methods has
            ]
            return [
                f"{', '.join(at_k)}, coverage error {ranking.coverage_error:.1f}, "
                f"ranking loss {ranking.ranking_loss:.4f}"
            ]
    return []


def _thresholds(evaluation: Evaluation) -> str:
    tuned = evaluation.thresholds
    threshold = _number(tuned.global_threshold)
    if not tuned.documents:
        text = (
            f"Thresholds: {threshold} for all labels, untuned: the {tuned.tuned_on} split is empty."
        )
    elif tuned.global_source != "tuned":
        _, reason = tuned.global_source.split(": ")
        text = (
            f"Thresholds: {threshold} for all labels, untuned: {reason} "
            f"({tuned.documents:,} documents of the {tuned.tuned_on} split)."
        )
    else:
        different = evaluation.own_thresholds
        text = (
            f"Thresholds, tuned for {OBJECTIVE_TITLES[tuned.objective]} on {tuned.documents:,} "
            f"documents of the {tuned.tuned_on} split: {threshold} global; {different:,} of "
            f"{evaluation.labels:,} labels differ from it\n"
            f"(a label with fewer than {tuned.min_positives:,} positives there keeps the global "
            f"one); k best labels: {tuned.top_k}."
        )
    columns = evaluation.per_label
    groups = labels_without_own_threshold(columns.threshold_source, columns.name)
    return "\n".join([text, *groups])


def labels_without_own_threshold(sources: Sequence[str], names: Sequence[str]) -> list[str]:
    """A line for each reason why labels have no threshold of their own: count and a few names.

    Args:
      sources: where each label's threshold comes from, see
        `trainer.metrics.thresholds.LabelSource`.
      names: names of the labels.
    """
    by_source: dict[str, list[str]] = {}
    for source, name in zip(sources, names, strict=True):
        if source != "own":
            by_source.setdefault(source, []).append(_printable(name))
    lines = []
    for source in sorted(by_source):
        labels = by_source[source]
        shown = ", ".join(_shortened(name) for name in labels[:_NAMES_SHOWN])
        more = len(labels) - _NAMES_SHOWN
        rest = f" and {more:,} more" if more > 0 else ""
        noun = "label" if len(labels) == 1 else "labels"
        lines.append(f"{len(labels):,} {noun}: {source} ({shown}{rest})")
    return lines


def _groups(evaluation: Evaluation) -> list[str]:
    rows = [
        [
            f"{group.name}: {group.min_train_positives:,} to "
            f"{group.max_train_positives:,} documents",
            _number(group.labels),
            _number(group.micro_f1),
            _number(group.macro_f1),
        ]
        for group in evaluation.groups
    ]
    title = "Labels by documents in train"
    return [f"{title}\n{_table(['labels', 'micro-F1', 'macro-F1'], rows)}"] if rows else []


def _slices(evaluation: Evaluation) -> list[str]:
    rows = [
        [
            f"{part.by}: {part.name}",
            _number(part.documents),
            _number(part.micro_f1),
            _number(part.sample_f1),
        ]
        for part in evaluation.slices
    ]
    title = "Documents by slice"
    return [f"{title}\n{_table(['documents', 'micro-F1', 'sample-F1'], rows)}"] if rows else []


def _labels(evaluation: Evaluation) -> list[str]:
    rows = sorted(evaluation.per_label.rows(), key=lambda row: (-row.train_positives, row.name))
    if not rows:
        return []
    if len(rows) <= 3 * _LABELS_SHOWN:
        return [_label_table("All labels, most frequent in train first", rows)]
    tables = [_label_table("Most frequent labels in train", rows[:_LABELS_SHOWN])]
    present = [row for row in rows if row.positives]
    if present:
        # sorted() is stable: of equal F1s the more frequent label comes first.
        best = sorted(present, key=lambda row: -row.f1)[:_LABELS_SHOWN]
        worst = sorted(present, key=lambda row: row.f1)[:_LABELS_SHOWN]
        these = f"of the {len(present):,} labels that occur in this split"
        tables += [_label_table(f"Best F1 {these}", best), _label_table(f"Worst F1 {these}", worst)]
    return tables


def _label_table(title: str, rows: Sequence[LabelRow]) -> str:
    cells = [
        [row.name, *(_number(getattr(row, field)) for field in _LABEL_COLUMNS.values())]
        for row in rows
    ]
    return f"{title}\n{_table(list(_LABEL_COLUMNS), cells)}"


# --- cells -----------------------------------------------------------------------------


def _number(value: int | float | None) -> str:
    """Counts with thousands separators, ratios and thresholds with three decimals."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width: names on the left, which have no title, and numbers on the right."""
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("", no_wrap=True, overflow="ellipsis", max_width=_MAX_NAME_WIDTH)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for name, *numbers in rows:
        table.add_row(Text(_printable(name)), *numbers)
    stream = io.StringIO()
    Console(file=stream, width=_CONSOLE_WIDTH, color_system=None, force_jupyter=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME_WIDTH else name[: _MAX_NAME_WIDTH - 1] + "\u2026"


def _printable(name: str) -> str:
    """The name on one line; control characters, which could steer a terminal, become `?`."""
    return "".join(c if c.isprintable() else "?" for c in name)
