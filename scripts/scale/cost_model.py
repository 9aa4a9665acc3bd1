"""What is fitted to measured stages, and what follows for more documents, workers and GPUs.

A stage takes a start, and time in proportion to its documents.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_jobs.contract.errors import UserError
from scripts.benchmark_scale import STAGES, least_disturbed

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
