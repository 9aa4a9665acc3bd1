#!/usr/bin/env python3
"""The preprocessing job against the same work without Beam and against naive Beam: documents per
second, time by stage, memory.

Three programs make the same dataset:
  job    python -m beam_jobs.preprocess, on worker processes
  plain  a pool of processes with files between the stages, without Beam; every file must equal the
         job's, byte for byte
  naive  Beam with one Python object per element, on the in-memory runner; its records must be the
         job's. It is slow, so it runs on two samples: their difference gives its speed without its
         start, from which its time for all documents follows

Memory is the largest sum, over a program's whole process tree, of proportional set sizes (PSS),
sampled twice a second.

  python scripts/benchmark_preprocessing.py                     # synthetic documents of 150 words
  python scripts/benchmark_preprocessing.py --arxiv data/arxiv  # titles and abstracts, JSONL.gz
"""

import argparse
import contextlib
import filecmp
import gzip
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from beam_jobs.contract import manifest as manifests  # noqa: E402
from beam_jobs.contract.config import load_config  # noqa: E402
from beam_jobs.contract.quiet import import_tensorflow_quietly, no_beam_warnings  # noqa: E402
from scripts.measured_process import Measured, measure  # noqa: E402

with no_beam_warnings():
    from scripts.rivals import naive, plain

FILES = 8
NOT_COMPARED = {manifests.CONFIG}  # which the job alone writes

CONFIG = """\
name: synthetic
data:
  source: jsonl
  inputs: [documents-*.jsonl.gz]
  id_field: id
  text_fields: [title, abstract]
  labels_field: categories
labels: {min_count: 2}
output: {shards: 8}
"""


# --- input -----------------------------------------------------------------------------


def write_documents(folder: Path, count: int, arxiv: Path | None) -> None:
    """`count` documents in as many files as the benchmark reads, and a config."""
    folder.mkdir()
    (folder / "synthetic.yaml").write_text(CONFIG, encoding="utf-8")
    lines = _lines_of(arxiv, count) if arxiv else _synthetic_lines(count)
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(
                gzip.open(folder / f"documents-{i}.jsonl.gz", "wb", compresslevel=1)
            )
            for i in range(FILES)
        ]
        written = 0
        for line in lines:
            streams[written % FILES].write(line)
            written += 1
    if written < count:
        sys.exit(
            f"error: {arxiv} holds {written:,} documents, expected --documents {count:,} or more"
        )


def _lines_of(arxiv: Path, count: int) -> Iterator[bytes]:
    files = sorted(arxiv.glob("*.jsonl.gz"))
    return itertools.islice(itertools.chain.from_iterable(map(gzip.open, files)), count)


def _synthetic_lines(count: int) -> Iterator[bytes]:
    random = np.random.default_rng(0)
    for i in range(count):
        words = [f"w{token}" for token in random.zipf(1.2, 150) % 50_000]
        labels = sorted({f"label{label}" for label in random.zipf(1.5, 2) % 100})
        row = {
            "id": str(i),
            "title": " ".join(words[:10]).title(),
            "abstract": " ".join(words[10:]) + ".",
            "categories": labels,
        }
        yield json.dumps(row).encode() + b"\n"


# --- measuring -------------------------------------------------------------------------


def run_job(folder: Path, workers: int) -> Measured:
    beam_arguments = [
        "--",
        "--direct_running_mode=multi_processing",
        f"--direct_num_workers={workers}",
    ]
    return measure(
        ["-m", "beam_jobs.preprocess", "--config", "synthetic.yaml", *beam_arguments], folder
    )


def run_other(folder: Path, what: str, workers: int) -> Measured:
    return measure(
        [str(Path(__file__).resolve()), "--workers", str(workers), "--run", what], folder
    )


def files_of(dataset: Path) -> Path:
    """The folder of a dataset's files."""
    return dataset / manifests.read(dataset).generation


def check_same_files(job: Path, plain: Path) -> int:
    """Ends the program unless both directories hold the same files; returns their number."""
    files = {path.name for path in job.iterdir()} - NOT_COMPARED
    _, differing, missing = filecmp.cmpfiles(job, plain, files, shallow=False)
    if differing or missing or {path.name for path in plain.iterdir()} != files:
        sys.exit(
            "error: the plain script's dataset differs from the job's: "
            f"{sorted([*differing, *missing])}"
        )
    return len(files)


def check_same_records(job: Path, naive: Path) -> int:
    """Ends the program unless both hold the same records and vocabulary; returns their number."""
    import_tensorflow_quietly()
    import tensorflow as tf

    total = 0
    for split in manifests.SPLITS:
        ours, theirs = (
            sorted(tf.data.TFRecordDataset(sorted(map(str, paths))).as_numpy_iterator())
            for paths in _shards(job, naive, split)
        )
        if ours != theirs:
            sys.exit(f"error: the naive job's {split} split differs from the job's")
        total += len(ours)
    if (job / manifests.VOCABULARY).read_bytes() != (naive / "vocabulary").read_bytes():
        sys.exit("error: the naive job's vocabulary differs from the job's")
    return total


def _shards(job: Path, naive: Path, split: str) -> tuple[list[Path], list[Path]]:
    return list(job.glob(f"*-{split}.tfrecord-*")), list(naive.glob(f"{split}-*"))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--documents",
        type=int,
        default=200_000,
        help="documents (default %(default)s); memory also at a half and a quarter",
    )
    parser.add_argument(
        "--naive-documents",
        type=int,
        default=8_000,
        help="documents of the naive job's larger sample (default %(default)s)",
    )
    parser.add_argument(
        "--arxiv",
        type=Path,
        help="a folder of *.jsonl.gz with id, title, abstract and categories; without it documents "
        "are synthetic",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="worker processes (default: one a core)"
    )
    parser.add_argument(
        "--run", choices=["plain", "naive"], help=argparse.SUPPRESS
    )  # what the benchmark starts itself with
    return parser.parse_args()


def show(what: str, documents: int, measured: Measured) -> None:
    rate = documents / measured.seconds
    print(
        f"{what:8} {documents:>10,} {measured.seconds:>8.1f} {rate:>12,.0f} "
        f"{measured.peak_mb:>8,.0f}",
        flush=True,
    )


def compare(arguments: argparse.Namespace) -> None:
    """Runs every program and prints the table and the ratios."""
    sizes = [arguments.documents // 4, arguments.documents // 2, arguments.documents]
    samples = [arguments.naive_documents // 4, arguments.naive_documents]
    with tempfile.TemporaryDirectory() as temporary:
        print(
            f"{'program':8} {'documents':>10} {'seconds':>8} {'documents/s':>12} {'peak MB':>8}",
            flush=True,
        )

        for size in sizes:
            folder = Path(temporary, str(size))
            write_documents(folder, size, arguments.arxiv)
            job = run_job(folder, arguments.workers)
            show("job", size, job)
        printed = job.printed.splitlines()
        stages = next(line for line in printed if line.startswith("time in each step"))
        without_beam = run_other(folder, "plain", arguments.workers)
        show("plain", size, without_beam)
        same_files = check_same_files(
            files_of(folder / "out/synthetic/dataset"), folder / "plain/dataset"
        )
        naive_seconds = []
        for sample in samples:
            folder = Path(temporary, f"sample-{sample}")
            write_documents(folder, sample, arguments.arxiv)
            measured = run_other(folder, "naive", arguments.workers)
            show("naive", sample, measured)
            naive_seconds.append(measured.seconds)
        run_job(folder, arguments.workers)
        same_records = check_same_records(
            files_of(folder / "out/synthetic/dataset"), folder / "naive"
        )

    per_document = (naive_seconds[1] - naive_seconds[0]) / (samples[1] - samples[0])
    if per_document <= 0:
        sys.exit(
            "error: the naive job took no longer for more documents: the machine is too busy, or "
            "--naive-documents too small"
        )
    naive_all = naive_seconds[1] + per_document * (arguments.documents - samples[1])
    print(f"job, {stages}")
    print(
        f"job / plain: {without_beam.seconds / job.seconds:.2f} x the documents/s; "
        f"{same_files} files with the same bytes"
    )
    print(
        f"job / naive: {naive_all / job.seconds:.1f} x the documents/s, naive at "
        f"{1 / per_document:,.0f} documents/s without its start; "
        f"{same_records:,} records the same on its sample"
    )


def main() -> None:
    arguments = parse_arguments()
    if arguments.run == "plain":
        plain.run(load_config("synthetic.yaml"), arguments.workers)
    elif arguments.run == "naive":
        naive.run(load_config("synthetic.yaml"), FILES)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
