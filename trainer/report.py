"""An evaluation as text to read: headline beside baselines, then labels."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_NAME_COLUMNS = 40
_LABELS_SHOWN = 10
_HEADLINE = {
    "micro-F1": "micro_f1",
    "macro-F1": "macro_f1",
    "macro-F1*": "macro_f1_present",
    "sample-F1": "sample_f1",
    "micro-P": "micro_precision",
    "micro-R": "micro_recall",
}
_LABEL_COLUMNS = {
    "train": "train_positives",
    "positives": "positives",
    "predicted": "predicted",
    "threshold": "threshold",
    "precision": "precision",
    "recall": "recall",
    "F1": "f1",
}


def format_evaluation(evaluation: Mapping[str, Any]) -> str:
    """The evaluation of one split as fixed-width text that ends with a newline.

    Args:
      evaluation: plain JSON values:
        {"split": str, "documents": int, "labels": int,
         "thresholds": {"tuned_on": str, "documents": int, "min_positives": int, "global": float},
         "systems": [{"name": str, **summary}], the model and its baselines, in the order of rows; a summary is that of
           `trainer.metrics.summarize`, where "precision_at" may be missing;
         "per_label": [{"name": str, "train_positives": int, "positives": int, "predicted": int, "threshold": float,
           "precision": float, "recall": float, "f1": float}]}, in any order.
    """
    parts = [_headline(evaluation), _thresholds(evaluation), *_label_tables(evaluation)]
    return "\n\n".join(parts) + "\n"


def _headline(evaluation: Mapping[str, Any]) -> str:
    systems, labels = evaluation["systems"], evaluation["labels"]
    present = min((system["labels_present"] for system in systems), default=labels)
    columns = {title: key for title, key in _HEADLINE.items() if title != "macro-F1*" or present < labels}
    ranks = sorted({int(k) for system in systems for k in system.get("precision_at", {})})
    rows = [
        [system["name"], *(_number(system[key]) for key in columns.values()), *(_number(system.get("precision_at", {}).get(str(k))) for k in ranks)]
        for system in systems
    ]
    lines = [
        f"{evaluation['split']}: {evaluation['documents']:,} documents, {labels:,} labels",
        "",
        _table(["", *columns, *(f"P@{k}" for k in ranks)], rows),
    ]
    if present < labels:
        lines.append(f"* over the {present:,} labels that occur in this split; in macro-F1 each of the other {labels - present:,} counts as 0")
    return "\n".join(lines)


def _thresholds(evaluation: Mapping[str, Any]) -> str:
    tuned = evaluation["thresholds"]
    if not tuned["documents"]:
        return f"Thresholds: {_number(tuned['global'])} for all labels, untuned: the {tuned['tuned_on']} split is empty."
    own = sum(row["threshold"] != tuned["global"] for row in evaluation["per_label"])
    return (
        f"Thresholds, tuned on {tuned['documents']:,} documents of the {tuned['tuned_on']} split: {_number(tuned['global'])} global; "
        f"{own:,} of {evaluation['labels']:,} labels differ from it\n"
        f"(a label with fewer than {tuned['min_positives']:,} positives there keeps the global one)."
    )


def _label_tables(evaluation: Mapping[str, Any]) -> list[str]:
    def by_frequency(row):
        return -row["train_positives"], row["name"]

    rows = sorted(evaluation["per_label"], key=by_frequency)
    if len(rows) <= 3 * _LABELS_SHOWN:
        return [_label_table("All labels, most frequent in train first", rows)] if rows else []
    present = [row for row in rows if row["positives"]]
    # sorted() is stable: of equal F1s the more frequent label stands first.
    best = sorted(present, key=lambda row: -row["f1"])[:_LABELS_SHOWN]
    worst = sorted(present, key=lambda row: row["f1"])[:_LABELS_SHOWN]
    tables = [_label_table("Most frequent labels in train", rows[:_LABELS_SHOWN])]
    if present:
        of = f"of the {len(present):,} labels that occur in this split"
        tables += [_label_table(f"Best F1 {of}", best), _label_table(f"Worst F1 {of}", worst)]
    return tables


def _label_table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [[row["name"], *(_number(row[key]) for key in _LABEL_COLUMNS.values())] for row in rows]
    return f"{title}\n" + _table(["", *_LABEL_COLUMNS], cells)


def _number(value: int | float | None) -> str:
    """Counts with thousands separators, ratios and thresholds with three decimals, nothing as a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width in a terminal: names to the left, numbers to the right."""
    lines = [list(header)] + [[_fit(row[0]), *row[1:]] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    text = []
    for line in lines:
        name = line[0] + " " * (widths[0] - _width(line[0]))
        text.append("  ".join([name, *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]))
    return "\n".join(text)


def _fit(name: str) -> str:
    """A name of at most _NAME_COLUMNS terminal columns, on one line; control characters, which could steer a terminal, become `?`."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    if _width(name) <= _NAME_COLUMNS:
        return name
    while _width(name) > _NAME_COLUMNS - 3:
        name = name[:-1]
    return name + "..."


def _width(text: str) -> int:
    """Terminal columns: two for an East Asian wide character, none for a combining mark."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
