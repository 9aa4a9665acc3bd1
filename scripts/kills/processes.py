"""Commands in processes that are forked from one that has imported what they need."""

import gc
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from beam_jobs.contract.command_line import run_main

ROOT = Path(__file__).resolve().parents[2]
_MODULES = (
    *("trainer.training.train", "trainer.evaluation.evaluate", "trainer.serving.export"),
    *("trainer.tuning.search", "beam_jobs.preprocessing.job", "beam_jobs.prediction.job"),
)


class Process:
    """A command of the product.

    Args:
      arguments: a module and its arguments.
      folder: its working directory.
      environment: added to that of this process.
      prepare: called in the process before the command; it can be pickled.
    """

    _context = None

    def __init__(
        self,
        arguments: list[str],
        folder: Path,
        environment: dict[str, str],
        prepare: Callable[[], None] | None = None,
    ):
        if Process._context is None:
            Process._context = multiprocessing.get_context("forkserver")
            Process._context.set_forkserver_preload([__name__, *_MODULES])
        # Beside the folder, which may be read-only; and there before the process, which may be
        # killed as it starts.
        descriptor, self._output = tempfile.mkstemp(".txt", "printed-", folder.parent)
        os.close(descriptor)
        self._process = Process._context.Process(
            target=_run, args=(arguments, str(folder), self._output, environment, prepare)
        )
        self._process.start()
        self.pid = self._process.pid

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit status, negative for a signal; None: it has not ended in that time."""
        self._process.join(seconds)
        return self._process.exitcode

    def kill(self) -> None:
        """Kills it and its children at once; it may have ended by itself."""
        for end in (os.killpg, os.kill):  # the latter before it has a group of its own
            try:
                end(self._process.pid, signal.SIGKILL)
                return
            except ProcessLookupError:
                continue

    def printed(self) -> str:
        """What it has printed."""
        return Path(self._output).read_text(encoding="utf-8", errors="replace")


def _run(
    arguments: list[str],
    folder: str,
    output: str,
    environment: dict[str, str],
    prepare: Callable[[], None] | None,
) -> None:
    os.setsid()
    gc.freeze()  # what was imported before the fork is no garbage
    os.chdir(folder)
    descriptor = os.open(output, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ |= environment
    tempfile.tempdir = None
    from kills import operations

    operations.install()
    if prepare is not None:
        prepare()
    module, *rest = arguments
    sys.argv = [module, *rest]
    run_main(importlib.import_module(module).main, rest)
