"""The plots of the report: SVG elements for the page, and the same as PNG files."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from beam_jobs.contract.sections.train import OBJECTIVE_TITLES
from trainer.runs.evaluation_record import Evaluation

# In the page's SVG each colour becomes the CSS variable of its name, which has one value for light
# mode and one for dark mode.
COLOURS = {
    "ink": "#1f2328",
    "muted": "#59636e",
    "grid": "#dfe3e8",
    "series-1": "#0b62c4",
    "series-2": "#c2570c",
    "series-3": "#1a7f4b",
    "series-4": "#8a3ffc",
}
SERIES = [COLOURS[f"series-{i}"] for i in range(1, 5)]
_DASHES = ("-", "--", ":", "-.")  # so that lines differ without colours too
_MAX_POINTS = 2000  # of a scatter plot
_MIN_LABELS_FOR_MEDIAN = 20
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": COLOURS["ink"],
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "axes.edgecolor": COLOURS["grid"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",  # text stays text, in the page's font
}


def draw_all(
    evaluation: Evaluation, runs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, tuple[str, bytes]]:
    """Every plot of a report, as (SVG element, PNG file), by name.

    Args:
      evaluation: the evaluation that is reported.
      runs: the history of epochs by name of the run; that of the report comes first.
    """
    objective = evaluation.thresholds.objective
    validated = f"{OBJECTIVE_TITLES[objective]} on validation"
    figures = {
        "loss": lambda: _learning(runs, "loss", "loss of a training document", scale="log"),
        "validation-f1": lambda: _learning(runs, f"validation_{objective}", validated),
        "threshold-sweep": lambda: _sweep(evaluation),
        "precision-recall": lambda: _precision_recall(evaluation),
        "label-frequency": lambda: _label_frequency(evaluation),
        "loss-weight": lambda: _against_frequency(
            evaluation, "loss_weight", "weight of a label's positives"
        ),
        "f1-by-frequency": lambda: _against_frequency(evaluation, "f1", "F1", with_median=True),
        "calibration": lambda: _calibration(evaluation),
    }
    drawn = {}
    for name, draw in figures.items():
        with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
            figure = draw()
            if figure is not None:
                drawn[name] = _svg(figure, name), png(figure)
    return drawn


# --- files -----------------------------------------------------------------------------


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element that shares an HTML page with others.

    Its ids are made different from those of other figures, its colours become CSS variables and its
    text takes the font of the page.
    """
    stream = io.BytesIO()
    figure.savefig(
        stream,
        format="svg",
        transparent=True,
        metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
    )
    root = ElementTree.fromstring(stream.getvalue())
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, _attribute(key, value, prefix=f"{name}-"))
    view_box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib |= {"viewBox": view_box, "role": "img", "aria-label": name}
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode").strip()


def _attribute(key: str, value: str, *, prefix: str) -> str:
    """The value of an attribute of `_svg`."""
    if key == "id":
        return prefix + value
    if key == f"{{{_XLINK}}}href":
        return value.replace("#", f"#{prefix}")
    value = value.replace("url(#", f"url(#{prefix}")
    # Matplotlib writes `font: SIZE FAMILIES` up to version 3.10, and `font-family: FAMILIES` since.
    value = re.sub(r"font: ([^;]*?)'?sans-serif'?[^;]*", r"font: \1var(--font)", value)
    value = re.sub(r"font-family: [^;]*", "font-family: var(--font)", value)
    for variable, colour in COLOURS.items():
        value = value.replace(colour, f"var(--{variable})")
    return value


def png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


# --- drawings --------------------------------------------------------------------------


def new_axes(x: str, y: str, *, height: float = 3.3) -> Any:
    axes = Figure(figsize=(5.4, height), layout="constrained").subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return axes


def _learning(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], key: str, title: str, *, scale: str = "linear"
) -> Figure | None:
    series = {
        name: [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
        for name, history in runs.items()
    }
    series = {name: points for name, points in series.items() if points}
    if not series:
        return None
    axes = new_axes("epoch", title)
    for i, (name, points) in enumerate(series.items()):
        axes.plot(
            *zip(*points, strict=True),
            _DASHES[i % 4],
            marker="o",
            markersize=4,
            color=SERIES[i % 4],
            label=name,
        )
    values = [value for points in series.values() for _, value in points]
    if scale == "log" and min(values) > 0 and max(values) >= 10 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    epochs = sorted({epoch for points in series.values() for epoch, _ in points})
    axes.set_xticks(epochs[:: max(1, len(epochs) // 8)])
    if len(series) > 1:
        axes.legend()
    return axes.figure


def _sweep(evaluation: Evaluation) -> Figure:
    sweep = evaluation.sweep
    axes = new_axes("threshold, one for all labels", "")
    names = {
        "micro_f1": "micro-F1",
        "macro_f1": "macro-F1",
        "micro_precision": "precision",
        "micro_recall": "recall",
    }
    for i, (key, name) in enumerate(names.items()):
        axes.plot(sweep.threshold, getattr(sweep, key), _DASHES[i], color=SERIES[i], label=name)
    axes.axvline(evaluation.thresholds.global_threshold, color=COLOURS["muted"], linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(ncols=2, loc="lower center")
    return axes.figure


def _precision_recall(evaluation: Evaluation) -> Figure:
    axes = new_axes("recall", "precision")
    names = {"all": "all labels", "head": "head", "mid": "mid", "tail": "tail"}
    for i, (key, name) in enumerate(names.items()):
        curve = evaluation.precision_recall.get(key)
        if curve is not None:
            axes.plot(curve.recall, curve.precision, _DASHES[i], color=SERIES[i], label=name)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(loc="lower left")
    return axes.figure


def _label_frequency(evaluation: Evaluation) -> Figure:
    counts = sorted(evaluation.per_label.train_positives, reverse=True)
    axes = new_axes("labels, the most frequent first", "train documents")
    ranks = range(1, len(counts) + 1)
    step = max(1, len(counts) // _MAX_POINTS)
    axes.plot(list(ranks)[::step], [max(count, 0.5) for count in counts][::step], color=SERIES[0])
    start = 0
    for i, group in enumerate(evaluation.groups):
        end = start + group.labels
        axes.axvspan(start + 0.5, end + 0.5, color=SERIES[i], alpha=0.1, linewidth=0)
        # The middle of the group on the logarithmic axis.
        middle = ((start + 0.5) * (end + 0.5)) ** 0.5
        axes.text(
            middle,
            0.96,
            group.name,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            color=COLOURS["muted"],
            fontsize=9,
        )
        start = end
    axes.set_xlim(0.5, start + 0.5)
    _logarithmic(axes, "xy")
    return axes.figure


def _against_frequency(
    evaluation: Evaluation, key: str, title: str, *, with_median: bool = False
) -> Figure:
    rows = sorted(evaluation.per_label.rows(), key=lambda row: row.train_positives)
    if with_median:
        rows = [row for row in rows if row.positives]
    axes = new_axes("train documents with the label", title)
    step = max(1, math.ceil(len(rows) / _MAX_POINTS))
    shown = rows[::step]
    axes.plot(
        [max(row.train_positives, 0.5) for row in shown],
        [getattr(row, key) for row in shown],
        "o",
        markersize=3.5,
        alpha=0.35,
        color=SERIES[0],
        markeredgewidth=0,
        label="a label",
    )
    if with_median and len(rows) >= _MIN_LABELS_FOR_MEDIAN:
        tenths = [rows[len(rows) * i // 10 : len(rows) * (i + 1) // 10] for i in range(10)]

        def median(tenth, name):
            return sorted(getattr(row, name) for row in tenth)[len(tenth) // 2]

        axes.plot(
            [max(median(tenth, "train_positives"), 0.5) for tenth in tenths],
            [median(tenth, key) for tenth in tenths],
            color=SERIES[1],
            label="median of a tenth",
        )
        axes.set_ylim(-0.03, 1.03)
        axes.legend(loc="lower right")
    _logarithmic(axes, "x")
    return axes.figure


def _calibration(evaluation: Evaluation) -> Figure:
    axes = new_axes("mean score", "frequency")
    axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=1)
    for i, stage in enumerate(evaluation.calibration.stages):
        axes.plot(
            [row.mean_score for row in stage.bins],
            [row.frequency for row in stage.bins],
            _DASHES[i],
            marker="o",
            markersize=4,
            color=SERIES[i],
            label=stage.name,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(loc="upper left")
    return axes.figure


def _logarithmic(axes: Any, which: str) -> None:
    for axis in which:
        getattr(axes, f"set_{axis}scale")("log")
        formatter = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else "")
        getattr(axes, f"{axis}axis").set_major_formatter(formatter)
        getattr(axes, f"{axis}axis").set_minor_formatter(NullFormatter())
