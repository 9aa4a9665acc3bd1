#!/usr/bin/env python3
"""Kills every stage of the product again and again, and looks at what the same command then makes.

Half of the kills come at random moments, half at one operation on files, one that gives something
its name above all: just before it, or, for what TensorFlow and SQLite write, just after. All the
while a reader polls the output, which may never show a half. Then the same command runs to its end:
its output must be that of a run that nothing interrupted, and nothing else may be left there.

The documents are synthetic. The stages on a store use an emulator of S3 on localhost (moto, in the
extra `test`). Each kill has a seed of its own, which replays it.

  python scripts/soak.py --kills 200
  python scripts/soak.py --replay 17
"""

import argparse
import collections
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "scripts"))  # of the processes that are forked, too

from kills import attempts  # noqa: E402
from kills.stages import STAGES  # noqa: E402

from beam_jobs.contract.command_line import run_main  # noqa: E402

PORT = 5791
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the first kill")
    parser.add_argument(
        "--stage", nargs="+", choices=STAGES, default=list(STAGES), help="default: all, in turn"
    )
    parser.add_argument("--replay", metavar="SEED", type=int, help="only the kill of this seed")
    parser.add_argument("--seconds", type=float, help="no further kill after this time")
    parser.add_argument(
        "--folder",
        type=Path,
        help="keeps what failed kills have left, and the uninterrupted runs for the next time",
    )
    arguments = parser.parse_args(argv)
    os.environ.update(_ENVIRONMENT)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        command = ["moto_server", "-p", str(PORT)]
        with open(folder / "s3.log", "wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            attempts.wait_for_store()
            sys.exit(_soak(arguments, folder))
        finally:
            server.kill()


def _soak(arguments: argparse.Namespace, folder: Path) -> int:
    """Kills as often as was asked for; returns the exit status."""
    began, wholes = time.monotonic(), attempts.Wholes(folder)
    results: list[attempts.Result] = []
    seed = arguments.seed if arguments.replay is None else arguments.replay
    kills = arguments.kills if arguments.replay is None else 1
    while sum(result.killed for result in results) < kills:
        if arguments.seconds and time.monotonic() - began > arguments.seconds:
            break
        # By the seed alone, so that it can be replayed.
        name = list(STAGES)[seed % len(STAGES)]
        if name in arguments.stage or arguments.replay is not None:
            result = attempts.attempt(wholes, STAGES[name], seed, random.Random(seed))
            results.append(result)
            print(result.line(), flush=True)
        seed += 1
    _print_table(results)
    return int(any(result.faults for result in results))


def _print_table(results: list[attempts.Result]) -> None:
    by_stage = collections.defaultdict(list)
    for result in results:
        by_stage[result.stage].append(result)
    print("\n| stage | at random | at an operation | equal after | polls | a half seen | faults |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    total = [0] * 6
    for name, some in by_stage.items():
        killed = [result for result in some if result.killed]
        row = [
            sum(result.kind == "random" for result in killed),
            sum(result.kind != "random" for result in killed),
            sum(result.equal for result in killed),
            sum(result.polls for result in some),
            sum(bool(result.seen) for result in some),
            sum(bool(result.faults) for result in some),
        ]
        total = [a + b for a, b in zip(total, row, strict=True)]
        print(f"| {name} | " + " | ".join(f"{value:,}" for value in row) + " |")
    print("| all | " + " | ".join(f"{value:,}" for value in total) + " |")
    ended = sum(not result.killed for result in results)
    print(f"\n{ended} runs came to their end before their kill.")


if __name__ == "__main__":
    run_main(main)
