"""The tables of `docs/scale.md`: what was measured, what was fitted to it, what is predicted."""

import math
from collections.abc import Sequence
from typing import Any

from scripts.benchmark_scale import least_disturbed
from scripts.scale.cost_model import (
    Fit,
    dense_pays_from,
    exchanged_bytes,
    given_bytes,
    gpu_step,
    hours,
    sizes,
    step_of,
)

NAMES = {
    "preprocess": "preprocess",
    "train": "train, one epoch",
    "evaluate": "evaluate",
    "predict": "bulk prediction",
}
DOLLARS_PER_REQUEST = 0.4e-6  # of a GET


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured_table(results: dict[str, Any]) -> str:
    """What was measured of each number of documents."""
    rows = [row for row in results["rows"] if row["kind"] == "documents"]
    rows = sorted(
        least_disturbed(rows), key=lambda row: (list(NAMES).index(row["stage"]), row["documents"])
    )
    lines = [
        [
            NAMES[row["stage"]],
            f"{row['documents']:,}",
            f"{row['processor_seconds']:.1f}",
            f"{row['peak_mb']:,.0f}",
            f"{row['peak_disk_mb']:,.0f}",
        ]
        for row in rows
    ]
    return table(["stage", "documents", "processor s", "peak memory, MB", "peak disk, MB"], lines)


def labels_table(results: dict[str, Any]) -> str:
    """What was measured of each number of labels, a row a model; `-` where a stage was not."""
    rows = least_disturbed([row for row in results["rows"] if row["kind"] == "labels"])
    if not rows:
        return ""
    stages = ("preprocess", "train", "evaluate")
    lines = []
    for wanted, model in sorted({(row["wanted"], row["model"]) for row in rows}):
        of = {r["stage"]: r for r in rows if (r["wanted"], r["model"]) == (wanted, model)}
        lines.append(
            [
                f"{of['preprocess']['labels']:,}",
                f"`{model}`",
                *(
                    f"{of[stage]['processor_seconds']:.1f}" if stage in of else "-"
                    for stage in stages
                ),
                *(f"{of[stage]['peak_mb']:,.0f}" if stage in of else "-" for stage in stages),
            ]
        )
    header = ["labels", "model", *(f"{NAMES[stage]}, s" for stage in stages)]
    return table([*header, *(f"{stage}, MB" for stage in stages)], lines)


def coefficients(all_fits: dict[str, Fit]) -> str:
    """What was fitted, and the sizes that were not."""
    rows = []
    for stage, one in all_fits.items():
        checks = [
            f"{measured:,.0f} / {predicted:,.0f} ({predicted / measured - 1:+.0%})"
            for _, measured, predicted in one.checks
        ]
        rate = f"{1 / one.per_document:,.0f}"
        rows.append([NAMES[stage], f"{one.start:.1f}", rate, *checks])
    sizes_checked = next(iter(all_fits.values())).checks
    header = ["stage", "start, processor s", "documents a core second"]
    header += [f"{size:,} documents: measured / predicted s" for size, _, _ in sizes_checked]
    return table(header, rows)


def stages_table(
    all_fits: dict[str, Fit],
    documents: Sequence[float],
    workers: Sequence[int],
    slowdowns: Sequence[float],
) -> str:
    """Core hours of each stage, and hours on several workers.

    `slowdowns`: by number of workers, how many times as long a step takes with its exchange.
    """
    rows = []
    for number in documents:
        for stage, one in all_fits.items():
            factors = slowdowns if stage == "train" else [1.0] * len(workers)
            rows.append(
                [
                    f"{number:,.0f}",
                    NAMES[stage],
                    f"{one.per_document * number / 3600:,.2f}",
                    *(
                        _time(hours(one, number * factor, count))
                        for count, factor in zip(workers, factors, strict=True)
                    ),
                ]
            )
    header = ["documents", "stage", "core hours", "1 worker"]
    return table([*header, *(f"{count:,} workers" for count in workers[1:])], rows)


def sizes_table(results: dict[str, Any], documents: Sequence[float]) -> str:
    """Bytes and requests of preprocessing."""
    rows = []
    for number in documents:
        one = sizes(results, number)
        rows.append(
            [
                f"{number:,.0f}",
                *map(_bytes, (one.text, one.stored, one.between, one.dataset)),
                f"{one.shards:,}",
                f"{one.buckets:,} of {_bytes(one.bucket)}",
                _bytes(one.partition),
                f"{one.ranges:,.0f}",
                _bytes(one.references),
                f"{one.ranges * DOLLARS_PER_REQUEST:,.2f}",
            ]
        )
    header = ["documents", "text", "input, compressed", "between stages", "dataset", "shards"]
    header += [
        "buckets",
        "counts of a partition of tokens",
        "ranges read",
        "references to them",
        "dollars",
    ]
    return table(header, rows)


def exchange_table(
    one: Fit, gradients: Sequence[dict[str, Any]], workers: Sequence[int], networks: Sequence[float]
) -> str:
    """A step of several workers: what each gets, and how many times as fast as one they are."""
    rows = []
    for row in gradients:
        for count in workers:
            steps = [
                step_of(one, row, workers=count, bytes_per_second=gigabits * 1e9 / 8)
                for gigabits in networks
            ]
            rows.append(
                [
                    f"{row['batch_size']:,}",
                    f"{count:,}",
                    f"{given_bytes(row) / 1e6:.2f}",
                    f"{exchanged_bytes(row, count) / 1e6:,.1f}",
                    f"{1e3 * steps[-1].own:,.0f}",
                    f"{1e3 * steps[-1].others:,.0f}",
                    *(f"{count / step.slowdown:.1f}" for step in steps),
                    f"{math.ceil(dense_pays_from(row, max(networks) * 1e9 / 8))}",
                ]
            )
    header = ["documents a step and worker", "workers", "each gives, MB", "and gets, MB"]
    header += ["ms of its own documents", "ms of the others'"]
    header += [f"times one, at {gigabits:g} Gbit/s" for gigabits in networks]
    return table([*header, "a dense sum would be faster from"], rows)


def gpu_table(
    gradients: dict[str, Any],
    documents: Sequence[float],
    gpus: Sequence[int],
    *,
    train_share: float,
    bytes_per_second: float,
    share: float,
) -> str:
    """Hours of an epoch on GPUs, without its validation, and the cores that feed them."""
    one = gpu_step(gradients, bytes_per_second=bytes_per_second, share=share)
    rows = [
        [
            f"{number:,.0f}",
            *(
                _time(number * train_share / one.documents_per_second / count / 3600)
                for count in gpus
            ),
        ]
        for number in documents
    ]
    rows.append(["cores that read", *(f"{one.input_cores * count:,.0f}" for count in gpus)])
    names = ["1 GPU" if count == 1 else f"{count:,} GPUs" for count in gpus]
    return table(["documents", *names], rows)


def _bytes(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1e3:,.1f} kB"


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    if hours >= 1 / 60:
        return f"{hours * 60:,.1f} min"
    return f"{hours * 3600:.0f} s" if hours >= 1 / 3600 else "< 1 s"
