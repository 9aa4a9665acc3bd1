"""A trial's process: it trains as `multihot-train` does, and ends with the search that began it.

    python -m trainer.tuning.trial_process SEARCH CONFIG DIRECTORY...

SEARCH is the search's process ID, and the directories are those with code of the user's own. A
search that is killed takes its trial with it, so that another can go on with it at once.
"""

import ctypes
import os
import signal
import sys

from beam_jobs.contract import user_code
from beam_jobs.contract.command_line import run_main
from beam_jobs.contract.config import load_config
from trainer.libraries import import_keras_alone

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(argv: list[str]) -> None:
    """Trains the config."""
    search, path, *directories = argv
    end_with(int(search))
    for directory in directories:
        user_code.search_in(directory)
    config = load_config(path)
    import_keras_alone()
    from trainer.training.signals import StoppedBySignal
    from trainer.training.train import train

    try:
        train(config)
    except StoppedBySignal as stopped:
        sys.exit(stopped.exit_status)


def end_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, or ends it if the parent has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the search has ended")


if __name__ == "__main__":
    run_main(main)
