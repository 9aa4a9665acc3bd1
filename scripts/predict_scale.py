#!/usr/bin/env python3
"""What many documents, workers and GPUs take, from what `benchmark_scale.py` measured on few.

Each stage takes a start, and time in proportion to its documents: both are fitted to all measured
sizes but two, on which the fit is checked: the two largest, or those of `--checked`. The rest is
arithmetic on that, on what a step's gradients weigh, and on rates that are given. It prints the
tables of `docs/scale.md`.

  python scripts/predict_scale.py docs/experiments/scale.json
  python scripts/predict_scale.py docs/experiments/scale.json --documents 3e8 --workers 4 32
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_jobs.contract.command_line import run_main  # noqa: E402
from beam_jobs.contract.errors import UserError  # noqa: E402
from scripts.benchmark_scale import least_disturbed  # noqa: E402

STAGES = {
    "preprocess": "preprocess",
    "train": "train, one epoch",
    "evaluate": "evaluate",
    "predict": "bulk prediction",
}
CHECKED = 2  # sizes that are not fitted
# What the jobs are built with, as a test makes sure; they are not imported, since Beam takes long.
SPILL_BYTES = 64 << 20
BUCKET_BYTES = 8 << 20
MAX_BUCKETS = 1 << 12
PARTITIONS = (64, 4096)  # at least and at most
PARTITION_BYTES = 160 << 20
COUNT_BYTES = 40  # of a distinct word and its counts, in one bucket
REFERENCE_BYTES = 200  # of a reference to a part of a spilled file, in the runner's shuffle
INPUT_RATE = 42_000  # documents that a core reads, parses and looks up a second: docs/benchmarks.md
# What an exchange of a step takes, measured: see docs/experiments/workers.md and
# `trainer/training/worker_gain.py`.
SECONDS_OF_EXCHANGES, SECONDS_OF_BYTE = 6e-3, 2.4e-9
# Every worker multiplies the factors of all: of a term of another's document, and one dimension of
# it, as `scripts/benchmark_factors.py` measures.
SECONDS_OF_OTHERS = 0.43e-9
TERM_BYTES = 12  # its row, document and weight
# Of the documents whose gradients are counted: docs/experiments/training_speed.md has their terms.
TERMS, DIM = 82, 128
DOLLARS_PER_REQUEST = 0.4e-6  # of a GET
SHARD_BYTES = 128 << 20


@dataclasses.dataclass(frozen=True)
class Fit:
    """Processor seconds of a stage = start + per_document * documents.

    Attributes:
      fitted: the sizes that it is fitted to.
      checks: (documents, measured, predicted) of the other sizes.
    """

    start: float
    per_document: float
    fitted: tuple[int, ...]
    checks: tuple[tuple[int, float, float], ...]

    def seconds(self, documents: float) -> float:
        """Processor seconds of so many documents on one worker."""
        return self.start + self.per_document * documents


def fit(rows: Sequence[dict[str, Any]], checked: Sequence[int] = ()) -> Fit:
    """The fit to rows of one stage, least squares of relative errors.

    Args:
      rows: of several sizes; of one size the row counts that took the least.
      checked: sizes that are not fitted; none: the two largest.

    Raises:
      UserError: there are too few sizes.
    """
    rows = sorted(least_disturbed(rows), key=lambda row: row["documents"])
    checked = checked or [row["documents"] for row in rows[-CHECKED:]]
    fitted = [row for row in rows if row["documents"] not in checked]
    others = [row for row in rows if row["documents"] in checked]
    if len(fitted) < 2 or len(others) < CHECKED:
        raise UserError(
            f"received {len(rows)} sizes of the stage {rows[0]['stage']}, of which {len(others)} "
            f"are to be checked; expected {CHECKED} or more of these and two others: measure more "
            "with --documents"
        )
    sizes = np.array([row["documents"] for row in fitted], float)
    seconds = np.array([row["processor_seconds"] for row in fitted])
    terms = np.stack([np.ones_like(sizes), sizes], axis=1) / seconds[:, None]
    (start, per_document), *_ = np.linalg.lstsq(terms, np.ones(len(fitted)), rcond=None)
    return Fit(
        float(start),
        float(per_document),
        tuple(row["documents"] for row in fitted),
        tuple(
            (
                row["documents"],
                row["processor_seconds"],
                float(start + per_document * row["documents"]),
            )
            for row in others
        ),
    )


def fits(results: dict[str, Any], checked: Sequence[int] = ()) -> dict[str, Fit]:
    """The fit of each stage that was measured on enough sizes.

    Raises:
      UserError: none was.
    """
    of_stages = {
        stage: [
            row for row in results["rows"] if row["kind"] == "documents" and row["stage"] == stage
        ]
        for stage in STAGES
    }
    enough = {
        stage: rows
        for stage, rows in of_stages.items()
        if len({row["documents"] for row in rows}) >= 2 + CHECKED
    }
    return {stage: fit(rows, checked) for stage, rows in (enough or of_stages).items() if rows}


# --- what is predicted -------------------------------------------------------------------


def hours(fit: Fit, documents: float, workers: int) -> float:
    """Hours of a stage whose documents are divided among workers of one core, that start at once.

    That nothing else limits them is what the page's section on limits is about.
    """
    return (fit.start + fit.per_document * documents / workers) / 3600


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step of one of several workers, in seconds of its core.

    Attributes:
      own: of its own documents; with one worker there is nothing else.
      exchange: of what it gives and gets.
      others: of the embeddings' gradient of all other workers' documents, which every worker works
        out for itself.
    """

    own: float
    exchange: float
    others: float

    @property
    def slowdown(self) -> float:
        """How many times as long it takes as without other workers."""
        return (self.own + self.exchange + self.others) / self.own


def step_of(fit: Fit, gradients: dict[str, Any], *, workers: int, bytes_per_second: float) -> Step:
    """A step on a network of so many bytes a second.

    The fit is that of training, by documents of the train split. A worker's own copying of what it
    sends and gets takes longer than a fast network.
    """
    documents = gradients["batch_size"]
    of_byte = max(SECONDS_OF_BYTE, 1 / bytes_per_second)
    return Step(
        own=fit.per_document * documents,
        exchange=SECONDS_OF_EXCHANGES * (workers > 1)
        + of_byte * exchanged_bytes(gradients, workers),
        others=SECONDS_OF_OTHERS * TERMS * DIM * documents * (workers - 1),
    )


def train_share(results: dict[str, Any]) -> float:
    """The share of the documents that are of the train split."""
    row = next(row for row in results["rows"] if row["kind"] == "documents")
    return row["train_documents"] / row["documents"]


def given_bytes(gradients: dict[str, Any]) -> float:
    """Bytes that a worker gives to every other in a step for the embeddings.

    They are the factors of their gradient, a vector of each document and the weights of its terms,
    or its rows, whichever is less.
    """
    factors = gradients["batch_size"] * (4 * DIM + TERM_BYTES * TERMS)
    return min(factors, gradients["sparse_gradient_bytes"])


def exchanged_bytes(gradients: dict[str, Any], workers: int) -> float:
    """Bytes that a worker gets in a step: of all others, and twice its share of dense sums."""
    others, ring = workers - 1, 2 * (workers - 1) / workers
    return others * given_bytes(gradients) + ring * gradients["dense_gradient_bytes"]


def dense_pays_from(gradients: dict[str, Any], bytes_per_second: float) -> float:
    """Workers from which on a sum of the embeddings' dense gradient, in a ring, would be faster."""
    table = gradients["all_dense_gradient_bytes"] - gradients["dense_gradient_bytes"]
    of_byte = max(SECONDS_OF_BYTE, 1 / bytes_per_second)
    of_another = of_byte * given_bytes(gradients)
    of_another += SECONDS_OF_OTHERS * TERMS * DIM * gradients["batch_size"]
    return 1 + 2 * table * of_byte / of_another


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes and requests of preprocessing.

    Attributes:
      text: bytes of text.
      stored: of the input's files, compressed.
      between: of all that is between the stages, at its peak.
      dataset: of the dataset's files.
      shards: of 128 MiB.
      buckets: of documents.
      bucket: bytes of one.
      ranges: parts of spilled files that are read: requests where they are on a store.
      references: bytes of the references to these parts, which go through the runner's shuffle.
      partition: bytes of the buckets' counts of tokens in one of the partitions that sum them.
    """

    text: float
    stored: float
    between: float
    dataset: float
    shards: int
    buckets: int
    bucket: float
    ranges: float
    references: float
    partition: float


def sizes(results: dict[str, Any], documents: float) -> Sizes:
    """Bytes and requests of so many documents like the measured ones."""
    rows = [
        row
        for row in results["rows"]
        if row["kind"] == "documents" and row["stage"] == "preprocess"
    ]
    row = max(rows, key=lambda row: row["documents"])
    scale = documents / row["documents"]
    text = row["text_bytes"] * scale
    between = (row["peak_disk_mb"] * 1e6 - row["output_bytes"]) * scale
    buckets = min(MAX_BUCKETS, max(4, 1 << int(text // BUCKET_BYTES).bit_length()))
    ranges = -(-text // SPILL_BYTES) * buckets
    fewest, most = PARTITIONS
    partitions = min(most, max(fewest, int(text) // PARTITION_BYTES))
    counts = buckets * distinct_words(rows, documents / buckets)
    return Sizes(
        text=text,
        stored=row["input_bytes"] * scale,
        between=between,
        dataset=row["output_bytes"] * scale,
        shards=-(-int(row["output_bytes"] * scale) // SHARD_BYTES),
        buckets=buckets,
        bucket=text / buckets,
        ranges=ranges,
        references=ranges * REFERENCE_BYTES,
        partition=counts * COUNT_BYTES / partitions,
    )


def distinct_words(rows: Sequence[dict[str, Any]], documents: float) -> float:
    """Distinct words of so many documents, by a power law (Heaps 1978) through the two measured
    sizes that are the smallest and the largest."""
    rows = sorted(rows, key=lambda row: row["documents"])
    (few, their_words), (many, more_words) = (
        (row["documents"], row["distinct_words"]) for row in (rows[0], rows[-1])
    )
    exponent = np.log(more_words / their_words) / np.log(many / few)
    return float(their_words * (documents / few) ** exponent)


@dataclasses.dataclass(frozen=True)
class GpuStep:
    """What a GPU can train at most, by the bytes that a step reads and writes.

    Attributes:
      documents_per_second: of one GPU.
      input_cores: cores that read for it.
    """

    documents_per_second: float
    input_cores: float


def gpu_step(gradients: dict[str, Any], *, bytes_per_second: float, share: float) -> GpuStep:
    """A step at a share of the roofline, which memory decides for these models."""
    rate = gradients["batch_size"] * share * bytes_per_second / gradients["bytes"]
    return GpuStep(rate, rate / INPUT_RATE)


# --- tables ------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured_table(results: dict[str, Any]) -> str:
    """What was measured of each number of documents."""
    rows = [row for row in results["rows"] if row["kind"] == "documents"]
    rows = sorted(
        least_disturbed(rows), key=lambda row: (list(STAGES).index(row["stage"]), row["documents"])
    )
    lines = [
        [
            STAGES[row["stage"]],
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
    header = ["labels", "model", *(f"{STAGES[stage]}, s" for stage in stages)]
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
        rows.append([STAGES[stage], f"{one.start:.1f}", rate, *checks])
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
                    STAGES[stage],
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


def tables(results: dict[str, Any], arguments: argparse.Namespace) -> list[str]:
    """All tables; the arguments are those of `make_parser`.

    Raises:
      UserError: the results lack steps or sizes.
    """
    all_fits = fits(results, arguments.checked)
    documents, workers = arguments.documents, [1, *arguments.workers]
    gradients = [row for row in results["rows"] if row["kind"] == "gradients"]
    if "train" not in all_fits or not gradients:
        raise UserError(
            "expected figures of `train` and `gradients`: measure them with benchmark_scale.py"
        )
    largest = max(gradients, key=lambda row: row["batch_size"])
    share = train_share(results)
    of_train = dataclasses.replace(
        all_fits["train"], per_document=all_fits["train"].per_document / share
    )
    fastest = max(arguments.networks) * 1e9 / 8
    slowdowns = [
        step_of(of_train, largest, workers=count, bytes_per_second=fastest).slowdown
        for count in workers
    ]
    gpu = {"bytes_per_second": arguments.gpu_terabytes * 1e12, "share": arguments.roofline_share}
    return [
        measured_table(results),
        labels_table(results),
        coefficients(all_fits),
        stages_table(all_fits, documents, workers, slowdowns),
        sizes_table(results, documents),
        exchange_table(of_train, gradients, arguments.workers, arguments.networks),
        gpu_table(largest, documents, arguments.gpus, train_share=share, **gpu),
    ]


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="what `benchmark_scale.py` wrote")
    parser.add_argument(
        "--checked",
        type=int,
        nargs="+",
        default=[],
        help="sizes that the fit is checked on (default: the two largest)",
    )
    lists = {
        "documents": (float, [1e6, 1e8, 1e9], "documents"),
        "workers": (int, [2, 16, 64, 256], "workers of one core, beside one"),
        "networks": (float, [1, 10], "Gbit/s between workers"),
        "gpus": (int, [1, 8, 64], "GPUs"),
    }
    for name, (kind, default, what) in lists.items():
        shown = " ".join(f"{value:g}" for value in default)
        help_text = f"{what} (default: {shown})"
        parser.add_argument(f"--{name}", type=kind, nargs="+", default=default, help=help_text)
    parser.add_argument(
        "--gpu-terabytes",
        type=float,
        default=2.0,
        help="that a GPU's memory moves a second; `benchmark_gpu.py` measures it (%(default)s)",
    )
    parser.add_argument(
        "--roofline-share",
        type=float,
        default=0.25,
        help="of a step's time; `benchmark_gpu.py` measures it (%(default)s)",
    )
    return parser


def main(argv: list[str]) -> None:
    arguments = make_parser().parse_args(argv)
    results = json.loads(arguments.results.read_text(encoding="utf-8"))
    print("\n\n".join(tables(results, arguments)))


if __name__ == "__main__":
    run_main(main)
