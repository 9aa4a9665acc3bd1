"""The report: one page that opens from disk and fetches nothing, with what a run's evaluation found, and its plots as PNG files beside it."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.config import differing_keys
from beam_jobs.contract.errors import UserError
from trainer.evaluation.text_report import HEADLINE, RANKED
from trainer.report.plots import draw_all
from trainer.runs.evaluation_record import LABEL_THRESHOLDS, ONE_THRESHOLD
from trainer.runs.run import Run, run_of_model

PAGE = "index.html"
MOST_LABELS = 20_000  # in the table of the page, the most frequent: 2 MB
_MOST_MATRIX_LABELS = 40
_PAIRS = 20
_ERRORS = 10
_CHANGES = 8

# Key, title, digits (None: text).
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
    ("loss_weight", "loss weight", 2),
)


def report(
    *,
    run_dir: str | None,
    model_dir: str | None,
    compare: Sequence[str] = (),
    output: str | None = None,
) -> None:
    """Writes the page and its plots, and says where.

    Args:
      run_dir: the run; or
      model_dir: an exported model, or the directory of its versions, which leads to its run.
      compare: run directories to be put beside it.
      output: the directory to write; default: `report` in the run directory.

    Raises:
      UserError: a directory is something else, was not evaluated, or cannot be written.
    """
    run = Run(Path(run_dir) if run_dir else run_of_model(Path(model_dir or "")))
    others = [Run(Path(directory)) for directory in compare]
    runs = (
        {str(each.directory): each.history for each in (run, *others)}
        if others
        else {"": run.history}
    )
    plots = draw_all(run.evaluation, runs)
    directory = Path(output) if output else run.directory / "report"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, (_, png) in plots.items():
            write_atomically(directory / f"{name}.png", png)
        write_atomically(
            directory / PAGE, page(run, others, {name: svg for name, (svg, _) in plots.items()})
        )
    except OSError as error:
        raise UserError(
            f"--output: cannot write in {directory}: {error.strerror}; expected a directory you may write"
        ) from None
    print(f"wrote {directory / PAGE} and {len(plots)} plots as PNG beside it")


# --- the page --------------------------------------------------------------------------


def page(run: Run, others: Sequence[Run], plots: Mapping[str, str]) -> str:
    """The page as HTML; everything that comes from data is escaped."""
    sections = {
        # id: (title, title in the navigation, content)
        "results": ("Results", "Results", _results(run)),
        **({"compare": ("Runs side by side", "Compare", _compare(run, others))} if others else {}),
        "learning": ("Learning curves", "Learning", _figures(plots, "loss", "validation-f1")),
        "thresholds": ("Thresholds", "Thresholds", _thresholds(run, plots)),
        "frequency": ("Does the tail learn?", "Tail", _frequency(run, plots)),
        "calibration": ("Calibration", "Calibration", _calibration(run, plots)),
        "slices": ("Slices of documents", "Slices", _slices(run)),
        "labels": ("Every label", "Labels", _labels(run)),
        "confusions": ("Confusions", "Confusions", _confusions(run)),
        "errors": ("Errors the model is surest of", "Errors", _errors(run)),
        "data": ("Data", "Data", _data(run)),
    }
    evaluation, assets = run.evaluation, resources.files(__package__) / "page"
    links = "".join(f'<a href="#{key}">{short}</a>' for key, (_, short, _) in sections.items())
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{content}</section>'
        for key, (title, _, content) in sections.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>{_text(run.config.name)}: evaluation</title>
<link rel="icon" href="data:,">
<style>{(assets / "report.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header><div>
<h1>{_text(run.config.name)}</h1>
<p class="lead">Model <b>{_text(run.config.model.name)}</b>, evaluated on {evaluation["documents"]:,} documents
of the {_text(evaluation["split"])} split with {evaluation["labels"]:,} labels. Run {_text(run.directory)}.</p>
{_tiles(run)}
<nav aria-label="Sections">{links}</nav>
</div></header>
<main>
{body}
<footer>Written by multihot. This page holds all it needs: it opens from disk and fetches nothing.</footer>
</main>
<script type="application/json" id="label-data">{_label_data(run)}</script>
<script>{(assets / "report.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _text(value: Any) -> str:
    return html.escape(str(value))


def _number(value: float | int | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def _table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    classes: Sequence[str] = (),
    names: int = 1,
) -> str:
    """A table of escaped cells, which scrolls by itself where it is too wide; the first `names` columns stand to the left, numbers to the right."""
    head = "".join(
        f'<th scope="col"{_name_class(i < names)}>{title}</th>' for i, title in enumerate(header)
    )
    lines = []
    for number, row in enumerate(rows):
        of_row = f' class="{classes[number]}"' if classes and classes[number] else ""
        lines.append(
            f"<tr{of_row}>"
            + "".join(f"<td{_name_class(i < names)}>{cell}</td>" for i, cell in enumerate(row))
            + "</tr>"
        )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _name_class(is_name: bool) -> str:
    return ' class="name"' if is_name else ""


def _figures(plots: Mapping[str, str], *names: str, more: str = "") -> str:
    shown = [
        f'<figure class="card"><h3>{_TITLES[name][0]}</h3>{plots[name]}<figcaption>{_TITLES[name][1]}</figcaption></figure>'
        for name in names
        if name in plots
    ]
    return f'<div class="grid">{"".join(shown)}{f"<div>{more}</div>" if more else ""}</div>'


_TITLES = {
    "loss": ("Training loss", "Mean over the documents of each epoch, weighted as in training."),
    "validation-f1": ("Validation micro-F1", "At the threshold that is best in each epoch."),
    "threshold-sweep": (
        "Threshold sweep",
        "One threshold for all labels, on the split reported here. The line marks the one tuned on validation.",
    ),
    "precision-recall": (
        "Precision and recall",
        "All labels together, and head, mid and tail labels apart, over all thresholds.",
    ),
    "label-frequency": (
        "Label frequency",
        "Head labels hold half of all positives of the train split, head and mid labels nine tenths.",
    ),
    "loss-weight": (
        "Loss weight against frequency",
        "What the loss multiplies the positives of a label by.",
    ),
    "f1-by-frequency": (
        "F1 against frequency",
        "Labels that occur in this split, at their own thresholds.",
    ),
    "calibration": (
        "Calibration",
        "On the diagonal, a score is the frequency with which it is right. All pairs of a document and a label.",
    ),
}


def _tiles(run: Run) -> str:
    evaluation = run.evaluation
    one, own = run.system(ONE_THRESHOLD), run.system(LABEL_THRESHOLDS)

    def interval(system, key):
        ends = system.get("intervals", {}).get(key)
        return f"95%: {ends[0]:.3f} to {ends[1]:.3f}" if ends else "no interval"

    baseline = max(
        (s for s in evaluation["systems"] if s["name"].startswith("baseline")),
        key=lambda s: s["micro_f1"],
    )
    tiles = [
        ("micro-F1", _number(one["micro_f1"]), interval(one, "micro_f1")),
        (
            "macro-F1 of labels that occur",
            _number(own["macro_f1_present"]),
            interval(own, "macro_f1_present"),
        ),
        (
            f"precision at {run.first_rank}",
            _number(one["precision_at"][run.first_rank]),
            "of the best-scored labels",
        ),
        (
            "mean average precision",
            _number(evaluation["areas"]["mean_average_precision"]),
            "over labels that occur",
        ),
        (
            "best baseline, micro-F1",
            _number(baseline["micro_f1"]),
            _text(baseline["name"].removeprefix("baseline: ")),
        ),
    ]
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><span>{a}</span><b>{b}</b><span>{c}</span></div>'
            for a, b, c in tiles
        )
        + "</div>"
    )


def _results(run: Run) -> str:
    systems, labels = run.evaluation["systems"], run.evaluation["labels"]
    ranks = sorted({int(k) for system in systems for k in system.get("precision_at", {})})
    best = {key: max(system[key] for system in systems) for key in HEADLINE.values()}

    def cell(system, key):
        value = _number(system[key])
        return f"<b>{value}</b>" if system[key] == best[key] > 0 else value

    rows, classes = [], []
    for system in systems:
        at = [_number(system.get("precision_at", {}).get(str(k))) for k in ranks]
        rows.append([_text(system["name"]), *(cell(system, key) for key in HEADLINE.values()), *at])
        classes.append("baseline" if system["name"].startswith("baseline") else "")
    table = _table(["system", *HEADLINE, *(f"P@{k}" for k in ranks)], rows, classes=classes)
    present = systems[0]["labels_present"]
    note = (
        f"<p class='note below'>macro-F1* is over the {present:,} labels that occur in this split; the other {labels - present:,} count as 0 "
        "in macro-F1.</p>"
        if present < labels
        else ""
    )
    areas, ranked = run.evaluation["areas"], run.system(ONE_THRESHOLD)
    more = [
        (
            "mean average precision",
            f"{_number(areas['mean_average_precision'])} ± {_number(areas['mean_average_precision_error'])}",
        ),
        (
            "macro ROC AUC",
            f"{_number(areas['macro_roc_auc'])} ± {_number(areas['macro_roc_auc_error'])}",
        ),
        ("coverage error", _number(ranked["coverage_error"], 1)),
        ("ranking loss", _number(ranked["ranking_loss"], 4)),
        ("label ranking average precision", _number(ranked["label_ranking_average_precision"])),
        ("weighted F1", _number(run.system(LABEL_THRESHOLDS)["weighted_f1"])),
        ("subset accuracy", _number(ranked["subset_accuracy"])),
        ("Hamming loss", _number(ranked["hamming_loss"], 5)),
    ]
    keys = {"P": "precision_at"} | RANKED
    at_k = _table(
        ["at k", *map(str, ranks)],
        [[name, *(_number(ranked[key][str(k)]) for k in ranks)] for name, key in keys.items()],
    )
    return (
        table
        + note
        + f'<div class="grid"><div>{_table(["more of the model", "value"], more)}</div><div>{at_k}'
        + "<p class='note below'>± is what the bins of the streamed score histograms may change. PSP: precision with labels weighted by "
        "inverse propensity, over the best attainable.</p></div></div>"
    )


def _compare(run: Run, others: Sequence[Run]) -> str:
    columns = {
        "micro-F1": lambda r: r.system(ONE_THRESHOLD)["micro_f1"],
        "macro-F1*": lambda r: r.system(LABEL_THRESHOLDS)["macro_f1_present"],
        "sample-F1": lambda r: r.system(ONE_THRESHOLD)["sample_f1"],
        f"P@{run.first_rank}": lambda r: r.system(ONE_THRESHOLD)["precision_at"].get(
            run.first_rank
        ),
        "mAP": lambda r: r.evaluation["areas"]["mean_average_precision"],
        "ECE": lambda r: r.evaluation["calibration"]["stages"][-1]["ece"],
        "epochs": lambda r: len(r.history),
        "documents/s": lambda r: max(
            (row["documents_per_second"] for row in r.history), default=None
        ),
    }
    rows = []
    for each in (run, *others):
        cells = []
        for name, value in columns.items():
            own, first = value(each), value(run)
            change = (
                f' <span class="note">{own - first:+.3f}</span>'
                if each is not run and isinstance(own, float) and first is not None
                else ""
            )
            cells.append(_number(own, 4 if name == "ECE" else 3) + change)
        rows.append([_text(each.name), *cells])
    parts = [_table(["run", *columns], rows, classes=["best"] + [""] * len(others))]
    for other in others:
        if (other.manifest.config_hash, other.manifest.input_hash) != (
            run.manifest.config_hash,
            run.manifest.input_hash,
        ):
            parts.append(
                f'<p class="note below">{_text(other.name)} was evaluated on another dataset: the numbers do not compare.</p>'
            )
        elif other.evaluation["split"] != run.evaluation["split"]:
            parts.append(
                f'<p class="note below">{_text(other.name)} was evaluated on its {_text(other.evaluation["split"])} split.</p>'
            )
    dumps = [each.config.model_dump(mode="json") for each in (run, *others)]
    keys = sorted(
        {key for other in dumps[1:] for key, _, _ in differing_keys(dumps[0], other)}
        - {"train.run_dir", "export.model_dir"}
    )
    if keys:
        values = [[_text(key), *(_text(_at(dump, key)) for dump in dumps)] for key in keys]
        parts.append(
            _table(
                [
                    "what differs in the configs",
                    *(_text(each.directory) for each in (run, *others)),
                ],
                values,
            )
        )
    first = {row["name"]: row["f1"] for row in run.evaluation["per_label"] if row["positives"]}
    for other in others:
        changes = [
            (row["f1"] - first[row["name"]], row)
            for row in other.evaluation["per_label"]
            if row["name"] in first
        ]
        tables = []
        for title, sign in (("better", 1), ("worse", -1)):
            moved = sorted(
                (c for c in changes if c[0] * sign > 0), key=lambda c: (-abs(c[0]), c[1]["name"])
            )[:_CHANGES]
            rows = [
                [
                    _text(row["name"]),
                    _number(row["train_positives"]),
                    _number(row["f1"]),
                    f"{change:+.3f}",
                ]
                for change, row in moved
            ]
            if rows:
                tables.append(
                    f"<div>{_table([f'{title} in {_text(other.directory)}', 'train', 'F1', 'change'], rows)}</div>"
                )
        parts.append(f'<div class="grid">{"".join(tables)}</div>')
    return "".join(parts)


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part, "–") if isinstance(values, Mapping) else "–"
    return json.dumps(values, ensure_ascii=False) if not isinstance(values, str) else values


def _thresholds(run: Run, plots: Mapping[str, str]) -> str:
    tuned = run.evaluation["thresholds"]
    if not tuned["documents"]:
        told = f"The {_text(tuned['tuned_on'])} split is empty: nothing was tuned, and {tuned['global']:.3f} is the threshold of all labels."
    else:
        own = sum(row["threshold"] != tuned["global"] for row in run.evaluation["per_label"])
        told = (
            f"Tuned on {tuned['documents']:,} documents of the {_text(tuned['tuned_on'])} split and on nothing else: "
            f"<b>{tuned['global']:.3f}</b> for all labels; {own:,} labels have another one of their own. "
            f"Of every number of labels to give to each document, {tuned['top_k']} is the best."
        )
    return f"<p>{told}</p>" + _figures(plots, "threshold-sweep", "precision-recall")


def _frequency(run: Run, plots: Mapping[str, str]) -> str:
    rows = [
        [
            f"{_text(row['name'])}: {row['least']:,} to {row['most']:,} train documents",
            *(
                _number(row[key])
                for key in ("labels", "positives", "micro_f1", "macro_f1", "without_hits")
            ),
        ]
        for row in run.evaluation["groups"]
    ]
    table = _table(
        ["labels by frequency", "labels", "positives", "micro-F1", "macro-F1", "with F1 0"], rows
    )
    return _figures(plots, "f1-by-frequency", "label-frequency", "loss-weight", more=table)


def _calibration(run: Run, plots: Mapping[str, str]) -> str:
    stages = run.evaluation["calibration"]["stages"]
    rows = [
        [_text(stage["name"]), _number(stage["ece"], 4), _number(stage["ece_error"], 4)]
        for stage in stages
    ]
    table = _table(["scores from", "expected calibration error", "± bins"], rows)
    told = (
        "<p class='note below'>Fitted on validation and measured here. The expected calibration error is over all pairs of a document and a "
        "label, in 15 bins.</p>"
    )
    caption = _TITLES["calibration"][1]
    return f'<div class="grid"><figure class="card">{plots["calibration"]}<figcaption>{caption}</figcaption></figure><div>{table}{told}</div></div>'


def _slices(run: Run) -> str:
    columns = {
        "documents": "documents",
        "micro-F1": "micro_f1",
        "precision": "micro_precision",
        "recall": "micro_recall",
        "sample-F1": "sample_f1",
    }
    rows = [
        [
            f"{_text(row['by'])}: {_text(row['name'])}",
            *(_number(row[key]) for key in columns.values()),
        ]
        for row in run.evaluation["slices"]
    ]
    fields = run.manifest.metadata_fields
    note = (
        ""
        if fields
        else "<p class='note below'>Records hold no metadata to slice by; <code>data.metadata_fields</code> names some.</p>"
    )
    return _table(["slice", *columns], rows) + note


def _labels(run: Run) -> str:
    groups = [group["name"] for group in run.evaluation["groups"]]
    options = "".join(f'<option value="{_text(name)}">{_text(name)}</option>' for name in groups)
    header = "".join(
        f'<th scope="col"{_name_class(digits is None)}><button type="button">{title}</button></th>'
        for _, title, digits in _LABEL_COLUMNS
    )
    hidden = len(run.evaluation["per_label"]) - MOST_LABELS
    note = (
        f"<p class='note'>The {MOST_LABELS:,} most frequent labels; {hidden:,} more are in the evaluation's files.</p>"
        if hidden > 0
        else ""
    )
    return f"""{note}<div class="controls">
<label class="grow">name holds<input id="label-name" type="search" autocomplete="off"></label>
<label>group<select id="label-group"><option value="">all</option>{options}</select></label>
<label>positives, at least<input id="label-least" type="number" min="0" value="0" style="width:9em"></label>
</div>
<div class="scroll" tabindex="0"><table id="label-table"><thead><tr>{header}</tr></thead><tbody></tbody></table></div>
<div class="more"><button type="button" id="label-more">Show more</button><span class="note" id="label-status" role="status"></span></div>"""


def _label_data(run: Run) -> str:
    rows = sorted(run.evaluation["per_label"], key=lambda row: -row["train_positives"])[
        :MOST_LABELS
    ]
    data = {
        "columns": [{"key": key, "digits": digits} for key, _, digits in _LABEL_COLUMNS],
        "rows": [[_rounded(row[key], digits) for key, _, digits in _LABEL_COLUMNS] for row in rows],
    }
    # Within a script element only `<` can end it or open a comment.
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _rounded(value: Any, digits: int | None) -> Any:
    return round(value, digits + 1) if digits and value is not None else value


def _confusions(run: Run) -> str:
    confusions, documents = run.evaluation["confusions"], run.evaluation["documents"]
    rows = [
        [
            _text(pair["present"]),
            _text(pair["predicted"]),
            _number(pair["documents"]),
            f"{pair['documents'] / documents:.1%}",
        ]
        for pair in confusions["pairs"][:_PAIRS]
    ]
    looked = (
        f"the {confusions['labels']:,} labels with the most errors on validation"
        if confusions["labels"] < run.evaluation["labels"]
        else "all labels"
    )
    parts = [
        f"<p class='note'>Documents with a label that the model misses, which get another one that they do not have. Pairs of {looked}.</p>"
    ]
    parts.append(
        _table(["present, and missed", "predicted instead", "documents", "of all"], rows, names=2)
    )
    if "matrix" in confusions:
        parts.append(_matrix(confusions["matrix"]))
    return "".join(parts)


def _matrix(matrix: Mapping[str, Any]) -> str:
    """The confusion matrix of single-label data: the labels with the most documents, shaded by their share of the row."""
    totals = [sum(row) for row in matrix["rows"]]
    shown = sorted(sorted(range(len(totals)), key=lambda i: -totals[i])[:_MOST_MATRIX_LABELS])
    head = "".join(f'<th scope="col">{_text(matrix["labels"][i])}</th>' for i in shown)
    lines = []
    for i in shown:
        cells = []
        for j in shown:
            count = matrix["rows"][i][j]
            percent = round(100 * count / max(totals[i], 1))
            shade = (
                f' style="background:color-mix(in srgb, var(--series-{1 if i == j else 2}) {percent * 0.7:.0f}%, transparent)"'
                if count
                else ""
            )
            cells.append(f"<td{shade}>{count or ''}</td>")
        lines.append(
            f'<tr><th scope="row" class="name">{_text(matrix["labels"][i])}</th>{"".join(cells)}</tr>'
        )
    caption = "<caption>Every document has one label: the best-scored label (columns) of the documents of each label (rows)</caption>"
    head = f'<thead><tr><th class="name"></th>{head}</tr></thead>'
    return f'<div class="scroll" tabindex="0"><table class="matrix">{caption}{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _errors(run: Run) -> str:
    cards = []
    for key, title, told in (
        (
            "wrong",
            "Assigned, and wrong",
            "The highest scores of labels that the documents do not have.",
        ),
        ("missed", "Present, and missed", "The lowest scores of labels that the documents have."),
    ):
        items = [
            f'<li><div class="what">{_text(row["label"])}<span>score {row["score"]:.3f}</span></div>'
            f'<p>{_text(row["text"])}</p><div class="own">has {_text(", ".join(row["labels"]) or "no label")} · {_text(row["id"])}</div></li>'
            for row in run.evaluation["errors"][key][:_ERRORS]
        ]
        shown = f'<ol class="errors">{"".join(items)}</ol>' if items else "<p>None.</p>"
        cards.append(
            f'<div class="card"><h3>{title}</h3><p class="note">{told} One a document at most.</p>{shown}</div>'
        )
    return f'<div class="grid">{"".join(cards)}</div>'


def _data(run: Run) -> str:
    manifest, counts = run.manifest, run.manifest.counts
    summary = [
        ("read", counts.read),
        ("written", counts.written),
        ("of them without labels", counts.written_without_labels),
        ("duplicates, merged", counts.duplicates),
        ("near-duplicates, dropped", counts.near_duplicates),
        ("dropped without labels", counts.dropped_without_labels),
        ("rejected", sum(counts.rejected.values())),
        *((f"rejected: {reason}", count) for reason, count in counts.rejected.items()),
    ]
    quantiles = ("0.05", "0.5", "0.95", "1")
    splits = [
        [
            _text(name),
            _number(split.examples),
            *(_number(split.token_length_quantiles.get(q)) for q in quantiles),
        ]
        for name, split in manifest.splits.items()
    ]
    try:
        statistics = manifests.load_statistics(manifest, run.config.output.dataset_dir) or {}
    except (OSError, ValueError):
        statistics = {}
    leaks = [
        [_text(split), *(_text(f"{count:,} {place}") for place, count in where.items())]
        for split, where in statistics.get("near_duplicates", {}).items()
    ]
    leakage = "Equal texts are merged before documents are divided, so that none is in two splits."
    told = (
        _table(["near-duplicates of documents of", *[""] * (max(map(len, leaks)) - 1)], leaks)
        if leaks
        else ""
    )
    missing = (
        ""
        if leaks
        else " Near-duplicates were not looked for, or the dataset is not there any more (<code>duplicates.near</code> reports them)."
    )
    labels = manifest.label_counts
    rows = [
        ("labels kept", manifest.num_labels),
        ("labels found", labels.distinct),
        ("below labels.min_count", labels.below_min_count),
        ("tokens", manifest.vocabulary_size),
    ]
    for name, split in statistics.get("splits", {}).items():
        rows.append((f"labels a document, {_text(name)}", round(split["label_cardinality"], 2)))
        rows.append((f"labels without positives, {_text(name)}", split["labels_without_positives"]))
    config = html.escape(run.config.to_yaml())
    return (
        f'<div class="grid"><div>{_table(["documents", "count"], [[_text(name), _number(count)] for name, count in summary])}</div>'
        f"<div>{_table(['labels and tokens', ''], [[name, _number(count, 2)] for name, count in rows])}</div>"
        f'<div class="wide">{_table(["split", "documents", "tokens: 5%", "median", "95%", "most"], splits)}</div></div>'
        f'<p class="note below">{leakage}{missing}</p>{told}'
        f'<details class="card"><summary>Resolved config</summary><pre>{config}</pre></details>'
    )
