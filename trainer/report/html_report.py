"""The report of a run: a page that opens from disk and fetches nothing, and its plots as PNG files.

Here are the page's values; its structure and wording are in `templates/report.html`.
"""

import collections
import csv
import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract import places
from beam_jobs.contract.config import differing_keys
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.train import OBJECTIVE_TITLES
from trainer.report.plots import draw_all
from trainer.runs.evaluation_record import (
    DECISION_TITLES,
    LABEL_THRESHOLDS,
    OBJECTIVE_FIELDS,
    ONE_THRESHOLD,
    RANKING_TITLES,
    ConfusionMatrix,
    Evaluation,
    LabelRow,
)
from trainer.runs.layout import AUDIT, REPORT, audit_dir
from trainer.runs.run import Run, run_of_model

PAGE = "index.html"
MAX_LABELS = 20_000  # in the table of the page, the most frequent: 2 MB
_MAX_MATRIX_LABELS = 40
_MAX_PAIRS = 20
_MAX_ERRORS = 10
_MAX_SUSPECTS = 20  # of each kind
_MAX_CHANGES = 8
_NOTHING = "–"
_QUANTILES = ("0.05", "0.5", "0.95", "1")  # of token lengths

# Columns of the table of labels: field, title, digits (None: text).
_LABEL_COLUMNS = (
    ("name", "label", None),
    ("group", "group", None),
    ("train_positives", "train", 0),
    ("positives", "positives", 0),
    ("predicted", "predicted", 0),
    ("f1", "F1", 3),
    ("precision", "precision", 3),
    ("recall", "recall", 3),
    ("average_precision", "AP", 3),
    ("roc_auc", "ROC AUC", 3),
    ("ece", "ECE", 4),
    ("threshold", "threshold", 3),
    ("threshold_source", "threshold from", None),
    ("loss_weight", "loss weight", 2),
)


def report(
    *,
    run_dir: str | None,
    model_dir: str | None,
    compare: Sequence[str] = (),
    output: str | None = None,
) -> None:
    """Writes the page and its plots, and prints where.

    Args:
      run_dir: the run; or
      model_dir: an exported model, or the directory of its versions, which leads to its run.
      compare: directories of runs to compare with it.
      output: the directory to write; default: `report` in the run directory.

    Raises:
      UserError: a directory is something else, was not evaluated, or cannot be written.
    """
    run = Run(run_dir or run_of_model(model_dir or ""))
    others = [Run(directory) for directory in compare]
    histories = {"": run.history}
    if others:
        histories = {each.place: each.history for each in (run, *others)}
    plots = draw_all(run.evaluation, histories)
    directory = output or places.join(run.place, REPORT)
    try:
        for name, (_, png) in plots.items():
            places.write(places.join(directory, f"{name}.png"), png)
        svgs = {name: svg for name, (svg, _) in plots.items()}
        places.write(places.join(directory, PAGE), page(run, others, svgs))
    except OSError as error:
        raise UserError(
            f"--output: cannot write in {directory}: {error.strerror}; expected a directory you "
            "may write"
        ) from None
    print(f"wrote {places.join(directory, PAGE)} and {len(plots)} plots as PNG beside it")


def page(run: Run, others: Sequence[Run], plots: Mapping[str, str]) -> str:
    """The page as HTML, in which everything that comes from data is escaped.

    Args:
      run: the run.
      others: the runs to compare with it.
      plots: SVG elements by name.
    """
    evaluation = run.evaluation
    return (
        _environment()
        .get_template("report.html")
        .render(
            run=run,
            evaluation=evaluation,
            objective=OBJECTIVE_TITLES[evaluation.thresholds.objective],
            one_threshold=run.method(ONE_THRESHOLD),
            label_thresholds=run.method(LABEL_THRESHOLDS),
            best_baseline=_best_baseline(evaluation),
            plots={name: Markup(svg) for name, svg in plots.items()},
            decision_titles=list(DECISION_TITLES),
            method_rows=_method_rows(evaluation),
            ranking_rows=_ranking_rows(run),
            comparison=_Comparison.of(run, others) if others else None,
            labels_with_own_threshold=evaluation.own_thresholds,
            labels_by_source=sorted(
                collections.Counter(evaluation.per_label.threshold_source).items()
            ),
            label_columns=_LABEL_COLUMNS,
            label_data=_label_data(evaluation),
            max_labels=MAX_LABELS,
            max_pairs=_MAX_PAIRS,
            max_errors=_MAX_ERRORS,
            audit=_audit(run),
            audit_dir=audit_dir(run.directory),
            matrix=_matrix(evaluation.confusions.matrix) if evaluation.confusions.matrix else None,
            document_rows=_document_rows(run),
            quantiles=_QUANTILES,
            statistics=_statistics(run),
        )
    )


def _audit(run: Run) -> dict[str, list[dict[str, str]]]:
    """The first rows of each kind that `audit` has written for the run, by title; empty: none."""
    try:
        text = (audit_dir(run.directory) / AUDIT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    rows = list(csv.DictReader(io.StringIO(text)))
    titles = {"wrong": "Labels that look wrong", "missing": "Labels that look missing"}
    return {
        title: [row for row in rows if row["kind"] == kind][:_MAX_SUSPECTS]
        for kind, title in titles.items()
    }


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return environment


def _number(value: float | int | None, digits: int = 3) -> str:
    """A count with thousands separators, or a number with so many digits after the point."""
    if value is None:
        return _NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


# --- results ---------------------------------------------------------------------------


def _best_baseline(evaluation: Evaluation) -> Any:
    baselines = [method for method in evaluation.methods if method.is_baseline]
    field = OBJECTIVE_FIELDS[evaluation.thresholds.objective]
    return max(baselines, key=lambda method: getattr(method.metrics, field))


def _method_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Each method with its metrics and whether they are the best of all methods."""
    best = {
        field: max(getattr(method.metrics, field) for method in evaluation.methods)
        for field in DECISION_TITLES.values()
    }
    rows = []
    for method in evaluation.methods:
        values = {field: getattr(method.metrics, field) for field in best}
        precision_at = method.ranking.precision_at if method.ranking else {}
        rows.append(
            {
                "method": method,
                "cells": [(value, value == best[field] > 0) for field, value in values.items()],
                "precision_at": [precision_at.get(k) for k in evaluation.ks],
            }
        )
    return rows


def _ranking_rows(run: Run) -> list[list[str]]:
    ranking = run.method(ONE_THRESHOLD).ranking
    return [
        [title, *(_number(getattr(ranking, field)[k]) for k in run.evaluation.ks)]
        for title, field in RANKING_TITLES.items()
    ]


# --- runs side by side -----------------------------------------------------------------


def _decisions(key: str, field: str) -> Callable[[Run], float]:
    return lambda run: getattr(run.method(key).metrics, field)


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """A run compared with others.

    Attributes:
      titles: of the columns of `rows`.
      rows: of each run, its name and (value, change from the first run or None) by column.
      other_datasets: names of runs that were evaluated on another dataset.
      other_splits: (name, split) of runs that were evaluated on another split of it.
      runs: directories of all runs.
      config_rows: config keys that differ, with their value in every run.
      label_changes: of each other run, [(title, rows)] of labels that it does better and worse.
    """

    titles: list[str]
    rows: list[tuple[str, list[tuple[str, str | None]]]]
    other_datasets: list[str]
    other_splits: list[tuple[str, str]]
    runs: list[str]
    config_rows: list[list[str]]
    label_changes: list[list[tuple[str, list[list[str]]]]]

    @classmethod
    def of(cls, run: Run, others: Sequence[Run]) -> "_Comparison":
        columns, all_runs = _comparison_columns(run), (run, *others)
        first = {title: value_of(run) for title, value_of in columns.items()}
        rows = [(run.name, [(_comparison_number(t, v), None) for t, v in first.items()])]
        for other in others:
            cells = []
            for title, value_of in columns.items():
                value, change = value_of(other), None
                if isinstance(value, float) and first[title] is not None:
                    change = f"{value - first[title]:+.3f}"
                cells.append((_comparison_number(title, value), change))
            rows.append((other.name, cells))
        same_dataset = [other for other in others if _dataset_of(other) == _dataset_of(run)]
        return cls(
            titles=list(columns),
            rows=rows,
            other_datasets=[other.name for other in others if other not in same_dataset],
            other_splits=[
                (other.name, other.evaluation.split)
                for other in same_dataset
                if other.evaluation.split != run.evaluation.split
            ],
            runs=[each.place for each in all_runs],
            config_rows=_config_rows(all_runs),
            label_changes=[_label_changes(run, other) for other in others],
        )


def _comparison_columns(run: Run) -> dict[str, Callable[[Run], float | int | None]]:
    """What is compared, by title; the k of precision at k is the lowest of the first run."""
    first_k = run.evaluation.ks[0]

    def precision_at_first_k(run: Run) -> float | None:
        return run.method(ONE_THRESHOLD).ranking.precision_at.get(first_k)

    def documents_per_second(run: Run) -> int | None:
        return max((row["documents_per_second"] for row in run.history), default=None)

    return {
        "micro-F1": _decisions(ONE_THRESHOLD, "micro_f1"),
        "macro-F1*": _decisions(LABEL_THRESHOLDS, "macro_f1_present"),
        "sample-F1": _decisions(ONE_THRESHOLD, "sample_f1"),
        f"P@{first_k}": precision_at_first_k,
        "mAP": lambda run: run.evaluation.curve_metrics.mean_average_precision,
        "ECE": lambda run: run.evaluation.calibration.stages[-1].ece,
        "epochs": lambda run: len(run.history),
        "documents/s": documents_per_second,
    }


def _comparison_number(title: str, value: float | int | None) -> str:
    return _number(value, 4 if title == "ECE" else 3)


def _dataset_of(run: Run) -> tuple[str, str]:
    return run.manifest.config_hash, run.manifest.input_hash


def _config_rows(runs: Sequence[Run]) -> list[list[str]]:
    first, *others = configs = [run.config.model_dump(mode="json") for run in runs]
    keys = {key for other in others for key, _, _ in differing_keys(first, other)}
    return [
        [key, *(_value_at(config, key) for config in configs)]
        for key in sorted(keys - {"train.run_dir", "export.model_dir"})
    ]


def _value_at(config: Any, key: str) -> str:
    """The value of a dotted key, a dash where the config has no such key."""
    value = config
    for part in key.split("."):
        value = value.get(part, _NOTHING) if isinstance(value, Mapping) else _NOTHING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _label_changes(run: Run, other: Run) -> list[tuple[str, list[list[str]]]]:
    """The labels whose F1 differs most between two runs, better and worse ones."""
    first = {row.name: row.f1 for row in run.evaluation.per_label.rows() if row.positives}
    changes = [
        (row.f1 - first[row.name], row)
        for row in other.evaluation.per_label.rows()
        if row.name in first
    ]

    def table(title: str, chosen: list[tuple[float, LabelRow]]):
        largest = sorted(chosen, key=lambda pair: (-abs(pair[0]), pair[1].name))[:_MAX_CHANGES]
        return f"{title} in {other.place}", [
            [row.name, _number(row.train_positives), _number(row.f1), f"{change:+.3f}"]
            for change, row in largest
        ]

    better = table("better", [pair for pair in changes if pair[0] > 0])
    worse = table("worse", [pair for pair in changes if pair[0] < 0])
    return [(title, rows) for title, rows in (better, worse) if rows]


# --- labels ----------------------------------------------------------------------------


def _label_data(evaluation: Evaluation) -> dict[str, Any]:
    """What the page's script shows: the most frequent labels, one list of values per label."""
    rows = sorted(evaluation.per_label.rows(), key=lambda row: -row.train_positives)[:MAX_LABELS]
    return {
        "columns": [{"key": field, "digits": digits} for field, _, digits in _LABEL_COLUMNS],
        "rows": [
            [_rounded(getattr(row, field), digits) for field, _, digits in _LABEL_COLUMNS]
            for row in rows
        ],
    }


def _rounded(value: Any, digits: int | None) -> Any:
    """With one digit more than is shown, so that labels sort by more than what they show."""
    return round(value, digits + 1) if digits and value is not None else value


def _matrix(matrix: ConfusionMatrix) -> dict[str, Any]:
    """The labels with the most documents, and their cells: (documents, percent of the row)."""
    totals = [sum(row) for row in matrix.rows]
    most_frequent = sorted(range(len(totals)), key=lambda i: -totals[i])[:_MAX_MATRIX_LABELS]
    shown = sorted(most_frequent)
    return {
        "labels": [matrix.labels[i] for i in shown],
        "rows": [
            [(matrix.rows[i][j], round(100 * matrix.rows[i][j] / max(totals[i], 1))) for j in shown]
            for i in shown
        ],
    }


# --- data ------------------------------------------------------------------------------


def _document_rows(run: Run) -> list[tuple[str, int]]:
    counts = run.manifest.counts
    return [
        ("read", counts.read),
        ("written", counts.written),
        ("of them without labels", counts.written_without_labels),
        ("duplicates, merged", counts.duplicates),
        ("near-duplicates, dropped", counts.near_duplicates),
        ("dropped without labels", counts.dropped_without_labels),
        ("rejected", sum(counts.rejected.values())),
        *((f"rejected: {reason}", count) for reason, count in counts.rejected.items()),
    ]


def _statistics(run: Run) -> Mapping[str, Any]:
    """Those of the dataset; empty where it is not there any more."""
    try:
        statistics = manifests.load_statistics(run.manifest, run.config.output.dataset_dir)
    except (OSError, ValueError):
        return {}
    return statistics or {}
