"""What the benchmark writes: a table, JSON, a plot."""

import json
import statistics
from pathlib import Path
from typing import Any

_QUALITY = {
    "micro-F1": ("one_threshold", "micro_f1"),
    "macro-F1": ("one_threshold", "macro_f1"),
    "micro-F1, per label": ("label_thresholds", "micro_f1"),
    "macro-F1, per label": ("label_thresholds", "macro_f1"),
    "P@1": ("precision_at", "1"),
    "P@3": ("precision_at", "3"),
    "P@5": ("precision_at", "5"),
    "nDCG@5": ("ndcg_at", "5"),
    "PSP@5": ("psp_at", "5"),
}
# What a user waits for: tuning thresholds and exporting come on top, for all alike.
STAGES = ("start", "features", "train", "score")


def total_seconds(run: dict[str, Any], which: str = "seconds") -> float:
    """From analyzed text to scores: wall time, or processor time ("core_seconds")."""
    return sum(run[which].get(stage, 0) for stage in STAGES)


# What a run cost, and with how many digits it is printed.
_COSTS = {
    "seconds": (total_seconds, 1),
    **{stage: (lambda run, stage=stage: run["seconds"].get(stage, 0), 1) for stage in STAGES},
    "core seconds": (lambda run: total_seconds(run, "core_seconds"), 1),
    "peak MB": (lambda run: run["peak_bytes"] / 1e6, 0),
    "model MB": (lambda run: run["model_bytes"] / 1e6, 0),
    "ms a document": (lambda run: run["ms_per_document"], 2),
}


def write(directory: Path, results: dict[str, Any]) -> str:
    """Writes `peers.json`, `peers.md` and `peers.png`; returns the table.

    Args:
      directory: where to.
      results: dataset and split, and systems: by name, with title, and runs or skipped.
    """
    text = table(results)
    (directory / "peers.json").write_text(json.dumps(results, indent=1) + "\n")
    (directory / "peers.md").write_text(text)
    if any(system["runs"] for system in results["systems"].values()):
        _plot(directory / "peers.png", results)
    return text


def table(results: dict[str, Any]) -> str:
    """Two Markdown tables: quality and costs, medians over runs, best micro-F1 first."""
    systems = results["systems"].values()
    done = sorted(
        (system for system in systems if system["runs"]),
        key=lambda system: -_median(system, "one_threshold", "micro_f1"),
    )
    lines = [
        f"{results['dataset']}: {results['train_documents']:,} train documents, "
        f"{results['labels']:,} labels; measured on {results['documents']:,} documents of "
        f"{results['split']}. Thresholds are tuned on validation: one for all labels, or one per "
        "label. Macro-F1 is over labels that occur; ± is half of the 95% interval.",
        "",
        _row(["system", *_QUALITY]),
        _row(["---", *["---:"] * len(_QUALITY)]),
    ]
    for system in done:
        cells = [f"{_median(system, *path):.3f}" for path in _QUALITY.values()]
        low, high = system["runs"][0]["one_threshold"]["intervals"]["micro_f1"]
        cells[0] += f" ± {(high - low) / 2:.3f}"
        lines.append(_row([system["title"], *cells]))
    for system in systems:
        if system["skipped"]:
            lines.append(_row([system["title"], system["skipped"]]))
    lines += [
        "",
        _row(["system", *_COSTS, "runs"]),
        _row(["---", *["---:"] * (len(_COSTS) + 1)]),
    ]
    for system in done:
        runs = system["runs"]

        def median(of, runs=runs):
            return statistics.median(map(of, runs))

        cells = [f"{median(of):,.{digits}f}" for of, digits in _COSTS.values()]
        lines.append(_row([system["title"], *cells, str(len(runs))]))
    return "\n".join(lines) + "\n"


def _median(system: dict[str, Any], section: str, key: str) -> float:
    return statistics.median(run[section][key] for run in system["runs"])


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plot(path: Path, results: dict[str, Any]) -> None:
    """Micro-F1 with one threshold over seconds from text to scores."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, system in results["systems"].items():
        if not system["runs"]:
            continue
        seconds = statistics.median(map(total_seconds, system["runs"]))
        f1 = _median(system, "one_threshold", "micro_f1")
        is_ours = name.startswith("ours")
        axes.plot(seconds, f1, "o", color="tab:orange" if is_ours else "tab:blue")
        axes.annotate(name, (seconds, f1), xytext=(5, 4), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    axes.set_xlabel("seconds from analyzed text to scores")
    axes.set_ylabel(f"micro-F1, {results['split']}")
    axes.set_title(results["dataset"])
    figure.savefig(path, dpi=120)
    plt.close(figure)
