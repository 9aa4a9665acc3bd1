#!/usr/bin/env python3
"""Peak memory and throughput of preprocessing and training at 1x and 4x the documents.

Makes JSONL documents of 150 words from a Zipf distribution over 50,000 tokens with two of 100 labels each, runs the
command lines on them and reports the peak resident memory of the largest process of each command.

  python scripts/benchmark_memory.py --documents 25000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS = 150
VOCABULARY = 50_000
LABELS = 100

CONFIG = """\
name: made
data: {source: jsonl, inputs: [documents.jsonl]}
output: {shards: 8}
train: {epochs: 1}
"""


def write_documents(path: Path, count: int) -> None:
    random = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as stream:
        for _ in range(count):
            tokens = random.zipf(1.2, WORDS) % VOCABULARY
            labels = sorted({f"label{i}" for i in random.zipf(1.5, 2) % LABELS})
            stream.write(
                json.dumps({"text": " ".join(f"w{t}" for t in tokens), "labels": labels}) + "\n"
            )


def measure(arguments: list[str], cwd: Path) -> tuple[float, float]:
    """(seconds, MB of the command's largest process)."""
    started = time.monotonic()
    # A process of its own, whose children's peak is then this command's alone.
    code = "import resource, subprocess, sys; status = subprocess.call(sys.argv[1:], stdout=sys.stderr);"
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(status)"
    command = [sys.executable, "-c", code, sys.executable, "-m", *arguments]
    root = str(Path(__file__).resolve().parents[1])
    result = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(result.stderr)
    return time.monotonic() - started, int(result.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--documents", type=int, default=25_000, help="documents at 1x (default %(default)s)"
    )
    arguments = parser.parse_args()
    print(
        f"{'documents':>10} {'input MB':>9} {'preprocess s':>13} {'peak MB':>8} {'train s':>8} {'peak MB':>8}"
    )
    for factor in (1, 4):
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            write_documents(root / "documents.jsonl", factor * arguments.documents)
            (root / "made.yaml").write_text(CONFIG, encoding="utf-8")
            size = (root / "documents.jsonl").stat().st_size / 1e6
            beam = measure(["beam_jobs.preprocess", "--config", "made.yaml"], root)
            train = measure(["trainer.task", "train", "--config", "made.yaml"], root)
        print(
            f"{factor * arguments.documents:>10,} {size:>9.1f} {beam[0]:>13.1f} {beam[1]:>8,.0f} {train[0]:>8.1f} {train[1]:>8,.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
