#!/usr/bin/env python3
"""What the commands do when the machine around them fails.

A disk that is full or read-only, permissions that are missing, shards that go or change while they
are read, workers that hang, two runs on one output, a clock that jumps, too little memory, much of
everything. Each must end with one error in words, or go on. Where it has ended, the cause is
removed and the same command must make what an uninterrupted run makes.

It mounts file systems and makes a group of processes (of cgroups' first version): it needs root.

  python scripts/check_faults.py --only full hang
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "scripts"))  # of the processes that are forked, too

from kills import attempts, faults  # noqa: E402

from beam_jobs.contract.command_line import run_main  # noqa: E402


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=faults.KINDS, default=list(faults.KINDS))
    parser.add_argument(
        "--folder", type=Path, help="keeps the uninterrupted runs for the next time"
    )
    arguments = parser.parse_args(argv)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    print("| fault | where | what came of it | then |\n|---|---|---|---|", flush=True)
    is_well = True
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        wholes = attempts.Wholes(folder, with_store=False)
        for kind in arguments.only:
            for seen in faults.KINDS[kind](wholes):
                print(seen.line(), flush=True)
                is_well &= seen.is_well
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    run_main(main)
