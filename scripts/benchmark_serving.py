#!/usr/bin/env python3
"""Size, load time, batch throughput and latency of exported models, each in a process of its own.

Documents are made up: 100 words of the model's vocabulary, frequent ones as often as Zipf's law has them. Numbers are of the model
called in Python, without a server. Other work on the machine shows in them: give it nothing else to do.

  python scripts/benchmark_serving.py out/docstrings/model out/docstrings/model/1
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import dataclasses, json, sys
from beam_jobs.contract.command_line import run_main
from beam_jobs.contract.quiet import import_tensorflow_quietly
import_tensorflow_quietly()
def main(arguments):
    from trainer.serving.benchmark import measure
    print(json.dumps(dataclasses.asdict(measure(arguments[0], requests=int(arguments[1]), batches=int(arguments[2])))))
run_main(main)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="what `multihot-export` has written"
    )
    parser.add_argument(
        "--requests", type=int, default=1000, help="requests of one document (default %(default)s)"
    )
    parser.add_argument(
        "--batches", type=int, default=50, help="batches of 256 documents (default %(default)s)"
    )
    arguments = parser.parse_args()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    print(
        f"{'MB':>8} {'load s':>7} {'documents/s':>12} {'p50 ms':>7} {'p95 ms':>7} {'p99 ms':>7}  model"
    )
    for model in arguments.models:
        command = [
            sys.executable,
            "-c",
            CODE,
            model,
            str(arguments.requests),
            str(arguments.batches),
        ]
        result = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if result.returncode:
            sys.exit(result.returncode)
        found = json.loads(result.stdout)
        latencies = " ".join(f"{found['latency_ms'][q]:>7.2f}" for q in ("50", "95", "99"))
        print(
            f"{found['bytes'] / 1e6:>8.1f} {found['load_seconds']:>7.2f} {found['documents_per_second']:>12,.0f} {latencies}  {model}",
            flush=True,
        )


if __name__ == "__main__":
    main()
