#!/usr/bin/env python3
r"""Measures what a second worker gains in training: one core for each, on this machine.

For each model and size of a batch it trains a few epochs with one worker, then with several, each
on a core of its own (by affinity) with one thread, and prints a row of a Markdown table: documents
a second in the fastest epoch without validation, processor time of a step, how many times one
worker that is, and what the workers together have sent through the loopback device per step. All
else that is sent there is counted as well, so nothing else should be using it, or the cores.

  python scripts/benchmark_workers.py --config configs/docstrings.yaml
  python scripts/benchmark_workers.py --config configs/docstrings.yaml --models bow cnn \
    --batch-sizes 256 2048 --epochs 4 --set model.dropout=0.1

The scores of the last epoch are in the table, so that a gain which costs quality is seen.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from launch_workers import free_ports  # noqa: E402

COLUMNS = (
    "model",
    "batch",
    "workers",
    "documents/s",
    "times one",
    "efficiency",
    "processor ms a step",
    "MB sent a step",
    "micro-F1",
)
TRAINER = (
    "import resource, sys\n"
    "from trainer import task\n"
    "try:\n"
    "    task.run()\n"
    "finally:\n"
    "    usage = resource.getrusage(resource.RUSAGE_SELF)\n"
    "    print('processor seconds', usage.ru_utime + usage.ru_stime, flush=True)\n"
)


class Measured(NamedTuple):
    """A run: documents a second, steps, processor seconds of a worker, bytes sent, micro-F1."""

    rate: float
    steps: int
    core_seconds: float
    sent_bytes: int
    score: float | None


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < arguments.workers and not arguments.share_cores:
        sys.exit(
            f"--workers: received {arguments.workers}, expected at most {len(cores)}, the cores "
            "that this process may use, or --share-cores"
        )
    cores = [cores[index % len(cores)] for index in range(arguments.workers)]
    print(row(COLUMNS), row(["---"] * len(COLUMNS)), sep="\n")
    for model in arguments.models:
        for batch_size in arguments.batch_sizes:
            settings = [
                *(f"model.name={model}", f"train.batch_size={batch_size}", "train.patience=null"),
                *arguments.set,
            ]
            alone = None
            for workers in (1, arguments.workers):
                # Their difference, so that what starting takes is not a step's.
                runs = [
                    measure(
                        arguments.config, [*settings, f"train.epochs={epochs}"], cores[:workers]
                    )
                    for epochs in (1, arguments.epochs)
                ]
                print(row(cells(model, batch_size, workers, *runs, alone)), flush=True)
                alone = alone or runs[1]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="of a dataset that is made")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="default 2")
    parser.add_argument(
        "--share-cores",
        action="store_true",
        help="where there are fewer cores than workers; then processor time alone is telling",
    )
    parser.add_argument("--models", nargs="+", default=["bow"], metavar="NAME", help="default bow")
    parser.add_argument(
        "--batch-sizes",
        nargs="+",
        type=int,
        default=[256, 2048],
        metavar="N",
        help="documents of a step over all workers; default 256 2048",
    )
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="at least 2; default 4")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the config")
    arguments = parser.parse_args(argv)
    if arguments.workers < 2 or arguments.epochs < 2:
        parser.error(
            f"received --workers {arguments.workers} --epochs {arguments.epochs}, "
            "expected at least 2 of each"
        )
    return arguments


def measure(config: str, settings: Sequence[str], cores: Sequence[int]) -> Measured:
    """Trains with one worker on each core; ends the script where that fails."""
    with tempfile.TemporaryDirectory() as place:
        run_dir = Path(place, "run")
        pairs = [
            part for value in (*settings, f"train.run_dir={run_dir}") for part in ("--set", value)
        ]
        command = [sys.executable, "-c", TRAINER, "train", "--config", config, *pairs]
        ports = free_ports(len(cores))
        sent = loopback_bytes()
        processes = [
            subprocess.Popen(
                command,
                env=environment(index, ports),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=lambda core=core: os.sched_setaffinity(0, [core]),
            )
            for index, core in enumerate(cores)
        ]
        outputs = [process.communicate()[0] for process in processes]
        if any(process.returncode for process in processes):
            sys.exit("\n".join(outputs))
        sent = loopback_bytes() - sent
        history = json.loads((run_dir / "history.json").read_text())
    # A worker may log after it, when the other one has left.
    seconds = [float(output.rpartition("processor seconds")[2].split()[0]) for output in outputs]
    rate = max(epoch["documents_per_second"] for epoch in history)
    score = history[-1]["validation_micro_f1"]
    return Measured(rate, history[-1]["step"], max(seconds), sent, score)


def environment(index: int, ports: Sequence[int]) -> dict[str, str]:
    """A worker's environment: one thread, and its task in the cluster if there are several."""
    values = dict(os.environ, PYTHONPATH=str(ROOT), TF_NUM_INTRAOP_THREADS="1", OMP_NUM_THREADS="1")
    if len(ports) > 1:
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        task = {"type": "worker", "index": index}
        values["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    return values


def loopback_bytes() -> int:
    """What the loopback device of Linux has sent."""
    line = Path("/proc/net/dev").read_text().partition("lo:")[2]
    return int(line.split()[8])


def cells(
    model: str,
    batch_size: int,
    workers: int,
    short: Measured,
    long: Measured,
    alone: Measured | None,
) -> list[str]:
    """A row, of a run of one epoch and a longer one; `alone`: that of one worker."""
    steps = long.steps - short.steps
    times = long.rate / alone.rate if alone else 1.0
    return [
        *(model, f"{batch_size:,}", str(workers), f"{long.rate:,.0f}"),
        *(f"{times:.2f}", f"{times / workers:.2f}"),
        f"{1e3 * (long.core_seconds - short.core_seconds) / steps:.1f}",
        f"{(long.sent_bytes - short.sent_bytes) / steps / 1e6:.2f}",
        "" if long.score is None else f"{long.score:.4f}",
    ]


def row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
