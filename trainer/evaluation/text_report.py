"""An evaluation as text to read: headline beside baselines, then labels."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_NAME_COLUMNS = 40
_LABELS_SHOWN = 10
HEADLINE = {
    "micro-F1": "micro_f1",
    "macro-F1": "macro_f1",
    "macro-F1*": "macro_f1_present",
    "sample-F1": "sample_f1",
    "micro-P": "micro_precision",
    "micro-R": "micro_recall",
}
RANKED = {"R": "recall_at", "nDCG": "ndcg_at", "PSP": "propensity_scored_precision_at"}
_INTERVAL_NAMES = {"micro_f1": "micro-F1", "macro_f1_present": "macro-F1 of the labels that occur"}
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
      evaluation: plain JSON values, which `trainer.evaluation.evaluate` writes:
        {"split": str, "documents": int, "labels": int,
         "thresholds": {"tuned_on": str, "documents": int, "min_positives": int, "global": float, "top_k": int},
         "systems": [{"name": str, **summary}], the model and its baselines, in the order of rows; a summary is that of
           `trainer.metrics.classification.summarize`, with that of `trainer.metrics.ranking.summarize_ranking` where the system ranks labels, and
           "intervals" where there is a bootstrap;
         "areas": {"macro_roc_auc", "mean_average_precision": float or None, and with "_error" behind each what bins may change in it},
         "calibration": {"method": str, "stages": [{"name": str, "ece": float, "ece_error": float, ...}]},
         "groups": [{"name": str, "labels": int, "least": int, "most": int, "micro_f1": float, "macro_f1": float, ...}],
         "slices": [{"by": str, "name": str, "documents": int, "micro_f1": float, "sample_f1": float, ...}],
         "per_label": [{"name": str, "train_positives": int, "positives": int, "predicted": int, "threshold": float,
           "precision": float, "recall": float, "f1": float, ...}], in any order}; other keys are for the page.
    """
    parts = [
        _headline(evaluation),
        _more_numbers(evaluation),
        _thresholds(evaluation),
        *_slice_tables(evaluation),
        *_label_tables(evaluation),
    ]
    return "\n\n".join(parts) + "\n"


def classification_report(evaluation: Mapping[str, Any]) -> str:
    """Each label's precision, recall, F1 and positives at its own threshold, and their averages, laid out as scikit-learn's `classification_report`.

    Args:
      evaluation: see `format_evaluation`; the averages are those of the system "model, a threshold per label".
    """
    names = [_printable(row["name"]) for row in evaluation["per_label"]]
    (system,) = [
        system
        for system in evaluation["systems"]
        if system["name"] == "model, a threshold per label"
    ]
    support = sum(row["positives"] for row in evaluation["per_label"])
    width = max(map(len, [*names, "weighted avg"]))

    def line(name, precision, recall, f1, positives):
        return f"{name:>{width}s}  {precision:>9.2f} {recall:>9.2f} {f1:>9.2f} {positives:>9}"

    rows = [
        line(name, row["precision"], row["recall"], row["f1"], row["positives"])
        for name, row in zip(names, evaluation["per_label"], strict=True)
    ]
    averages = [
        line(
            f"{shown} avg",
            *(system[f"{key}_{name}"] for name in ("precision", "recall", "f1")),
            support,
        )
        for shown, key in (
            ("micro", "micro"),
            ("macro", "macro"),
            ("weighted", "weighted"),
            ("samples", "sample"),
        )
    ]
    header = (
        " " * width
        + " "
        + "".join(f" {name:>9}" for name in ("precision", "recall", "f1-score", "support"))
    )
    return "\n".join([header, "", *rows, "", *averages]) + "\n"


def _headline(evaluation: Mapping[str, Any]) -> str:
    systems, labels = evaluation["systems"], evaluation["labels"]
    present = min((system["labels_present"] for system in systems), default=labels)
    columns = {
        title: key for title, key in HEADLINE.items() if title != "macro-F1*" or present < labels
    }
    ranks = sorted({int(k) for system in systems for k in system.get("precision_at", {})})
    rows = [
        [
            system["name"],
            *(_number(system[key]) for key in columns.values()),
            *(_number(system.get("precision_at", {}).get(str(k))) for k in ranks),
        ]
        for system in systems
    ]
    lines = [
        f"{evaluation['split']}: {evaluation['documents']:,} documents, {labels:,} labels",
        "",
        _table(["", *columns, *(f"P@{k}" for k in ranks)], rows),
    ]
    if present < labels:
        lines.append(
            f"* over the {present:,} labels that occur in this split; in macro-F1 each of the other {labels - present:,} counts as 0"
        )
    return "\n".join(lines)


def _more_numbers(evaluation: Mapping[str, Any]) -> str:
    """Intervals of the headline, areas under curves, ranking and calibration, a line each."""
    lines = []
    for system in evaluation["systems"]:
        if "intervals" in system:
            ranges = [
                f"{_INTERVAL_NAMES[name]} {low:.3f} to {high:.3f}"
                for name, (low, high) in system["intervals"].items()
            ]
            lines.append(f"95% intervals of `{system['name']}`: {', '.join(ranges)}")
    areas = evaluation["areas"]
    lines.append(
        f"mean average precision {_with_error(areas, 'mean_average_precision')}, macro ROC AUC {_with_error(areas, 'macro_roc_auc')} "
        "(+-: what score bins may change)"
    )
    ranked = next((system for system in evaluation["systems"] if "coverage_error" in system), None)
    if ranked:
        k = max(ranked["recall_at"], key=int)
        at = [f"{shown}@{k} {ranked[key][k]:.3f}" for shown, key in RANKED.items()]
        lines.append(
            f"{', '.join(at)}, coverage error {ranked['coverage_error']:.1f}, ranking loss {ranked['ranking_loss']:.4f}"
        )
    stages = [
        f"{stage['ece']:.4f} ({stage['name']})" for stage in evaluation["calibration"]["stages"]
    ]
    lines.append(f"expected calibration error {' -> '.join(stages)}")
    return "\n".join(lines)


def _with_error(areas: Mapping[str, Any], name: str) -> str:
    return "-" if areas[name] is None else f"{areas[name]:.3f} +- {areas[name + '_error']:.3f}"


def _slice_tables(evaluation: Mapping[str, Any]) -> list[str]:
    groups = [
        [
            f"{row['name']}: {row['least']:,} to {row['most']:,} documents",
            *(_number(row[key]) for key in ("labels", "micro_f1", "macro_f1")),
        ]
        for row in evaluation["groups"]
    ]
    tables = (
        ["Labels by documents in train\n" + _table(["", "labels", "micro-F1", "macro-F1"], groups)]
        if groups
        else []
    )
    rows = [
        [
            f"{row['by']}: {row['name']}",
            *(_number(row[key]) for key in ("documents", "micro_f1", "sample_f1")),
        ]
        for row in evaluation["slices"]
    ]
    return tables + (
        ["Documents by slice\n" + _table(["", "documents", "micro-F1", "sample-F1"], rows)]
        if rows
        else []
    )


def _thresholds(evaluation: Mapping[str, Any]) -> str:
    tuned = evaluation["thresholds"]
    if not tuned["documents"]:
        return f"Thresholds: {_number(tuned['global'])} for all labels, untuned: the {tuned['tuned_on']} split is empty."
    own = sum(row["threshold"] != tuned["global"] for row in evaluation["per_label"])
    return (
        f"Thresholds, tuned on {tuned['documents']:,} documents of the {tuned['tuned_on']} split: {_number(tuned['global'])} global; "
        f"{own:,} of {evaluation['labels']:,} labels differ from it\n"
        f"(a label with fewer than {tuned['min_positives']:,} positives there keeps the global one); k best labels: {tuned['top_k']}."
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
        text.append(
            "  ".join(
                [
                    name,
                    *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
                ]
            )
        )
    return "\n".join(text)


def _fit(name: str) -> str:
    """A name of at most _NAME_COLUMNS terminal columns, on one line; control characters, which could steer a terminal, become `?`."""
    name = _printable(name)
    if _width(name) <= _NAME_COLUMNS:
        return name
    while _width(name) > _NAME_COLUMNS - 3:
        name = name[:-1]
    return name + "..."


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)


def _width(text: str) -> int:
    """Terminal columns: two for an East Asian wide character, none for a combining mark."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
