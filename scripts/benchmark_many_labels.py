#!/usr/bin/env python3
"""A label tree with many labels, from raw text to requests: time and memory of each stage.

Documents are pieces of 50 words of abstracts of arXiv (`get_data.py arxiv`). A document's labels
are its rarest pairs of neighbouring words, of those pairs that enough documents have: so there are
as many labels as one wants, with the long tail of real text, and real words tell which they are.

Each stage is a command of its own, so its memory is its own: the largest resident set of any one
process of it.

  python scripts/benchmark_many_labels.py --arxiv data/arxiv
  python scripts/benchmark_many_labels.py --arxiv data/arxiv --documents 100000 --labels 50000
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_jobs.contract.command_line import run_main  # noqa: E402
from scripts.made_documents import write_with_pairs  # noqa: E402

FILES = 16  # that the documents are written to
CONFIG = """\
name: many_labels
data: {{source: jsonl, inputs: ["{directory}/*.jsonl.gz"], id_field: id, text_fields: [text],
  labels_field: labels}}
labels: {{min_count: 2}}
vocabulary: {{size: 50000}}
splits: {{train: 0.96, validation: 0.02, test: 0.02}}
model: {{name: bow_tree, embedding_dim: {dim}, bigram_buckets: 0}}
loss: {{name: squared_hinge}}
optimizer: {{name: lazy_adam, learning_rate: 0.01, schedule: linear}}
train: {{epochs: {epochs}, patience: null, run_dir: "{directory}/run"}}
evaluate: {{bootstrap_replicates: 0}}
export: {{model_dir: "{directory}/model"}}
output: {{dataset_dir: "{directory}/dataset"}}
"""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arxiv", required=True, metavar="DIR", help="the abstracts, JSONL.gz")
    parser.add_argument("--documents", type=int, default=500_000, help="default %(default)s")
    parser.add_argument("--labels", type=int, default=200_000, help="default %(default)s")
    parser.add_argument(
        "--each", type=int, default=8, help="labels of a document, at most (default %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=3, help="default %(default)s")
    parser.add_argument("--dim", type=int, default=128, help="default %(default)s")
    parser.add_argument("--requests", type=int, default=200, help="default %(default)s")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the config"
    )
    parser.add_argument("--work", metavar="DIR", help="keep everything in this directory")
    arguments = parser.parse_args(argv)
    if arguments.work:
        Path(arguments.work).mkdir(parents=True, exist_ok=True)
        _run(arguments, Path(arguments.work))
    else:
        with tempfile.TemporaryDirectory() as directory:
            _run(arguments, Path(directory))


def _run(arguments: argparse.Namespace, directory: Path) -> None:
    made = write_with_pairs(
        directory,
        arguments.arxiv,
        documents=arguments.documents,
        labels=arguments.labels,
        each=arguments.each,
        files=FILES,
    )
    print(made, flush=True)
    config = directory / "config.yaml"
    config.write_text(
        CONFIG.format(directory=directory, dim=arguments.dim, epochs=arguments.epochs),
        encoding="utf-8",
    )
    options = ["--config", str(config)]
    for setting in arguments.set:
        options += ["--set", setting]
    _stage("preprocess", ["-m", "beam_jobs.preprocess", *options])
    for command in ("train", "evaluate", "export"):
        _stage(command, ["-m", "trainer.task", command, *options])
    serving = [str(ROOT / "scripts/benchmark_serving.py"), str(directory / "model")]
    _stage("serve", [*serving, "--requests", str(arguments.requests), "--batches", "5"])


def _stage(name: str, arguments: Sequence[str]) -> None:
    """Runs a command and prints what it took."""
    print(f"\n=== {name}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{name} failed")
    print(
        f"=== {name}: {time.monotonic() - started:,.0f} s, "
        f"{used.ru_utime + used.ru_stime:,.0f} processor s, "
        f"{used.ru_maxrss / (1 << 20):.2f} GiB",  # Linux counts in KiB
        flush=True,
    )


if __name__ == "__main__":
    run_main(main)
