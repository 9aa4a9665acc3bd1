"""Fits all labels in blocks, over cores and workers; a block that is done is never fitted again.

A block is a file in a directory that all workers share. Labels that are fitted together are never
parted, so that weights do not depend on the blocks. Where the labels take longer than a few
seconds, processes of their own fit them: liblinear's random numbers are global, so threads would
make the weights depend on their timing.
"""

import contextlib
import json
import math
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from beam_jobs.contract import child_process
from beam_jobs.contract.errors import UserError
from trainer.linear import worker
from trainer.linear.solver import Block, Fitter, Problem, load_block, save_block, save_problem

_CELLS_OF_BLOCK = 50_000_000  # features x labels, a few seconds
_MAX_BLOCKS = 512
_SECONDS_WORTH_PROCESSES = 6.0  # of fitting that is left; a process starts in one or two
_POLL_SECONDS = 0.2

Progress = Callable[[int, int], None]  # labels done, of how many


class LabelFits:
    """The fits of one problem's labels.

    Args:
      problem: what is fitted.
      directory: where blocks are kept; made if it is missing.
      cores: processes that may fit at the same time.
      share: (index, number) of this worker; blocks are dealt out to workers in turn.
    """

    def __init__(
        self, problem: Problem, directory: Path, *, cores: int = 1, share: tuple[int, int] = (0, 1)
    ):
        self._problem, self._directory, self._cores, self._share = problem, directory, cores, share
        num_labels = problem.labels.shape[1]
        size = max(1, _CELLS_OF_BLOCK // max(problem.features.nnz, 1))
        # As many in each, and more of them than cores and workers, so that all end together;
        # whole groups of labels that are fitted together.
        parts = max(math.ceil(num_labels / size), 4 * cores * share[1])
        size = math.ceil(num_labels / min(parts, _MAX_BLOCKS, num_labels))
        size = math.ceil(size / problem.group) * problem.group
        starts = range(0, num_labels, size)
        self._fitter: Fitter | None = None
        self._blocks = [(first, min(first + size, num_labels)) for first in starts]

    @property
    def num_fitted(self) -> int:
        """How many labels are there already, of all workers."""
        return sum(
            last - first for first, last in self._blocks if self._file((first, last)).exists()
        )

    def fit(self, *, check: Callable[[], None], progress: Progress) -> None:
        """Fits this worker's blocks that are not there yet.

        Args:
          check: called often; what it raises ends the fit, and finished blocks stay.
          progress: is told of labels that are done.

        Raises:
          UserError: a process that fits labels was ended.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        index, workers = self._share
        for leftover in self._directory.glob(f"problem-{index}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        own = self._blocks[index::workers]
        left = [block for block in own if not self._file(block).exists()]
        done, total = sum(last - first for first, last in set(own) - set(left)), 0
        total = done + sum(last - first for first, last in left)
        started, fitted = time.monotonic(), 0
        while left:
            seconds_left = (time.monotonic() - started) / fitted * (total - done) if fitted else 0
            if self._cores > 1 and len(left) > 1 and seconds_left > _SECONDS_WORTH_PROCESSES:
                self._fitter = None  # they have their own, which need the memory
                blocks = self._fit_in_processes(list(left), check)
            else:
                blocks = [self._fit_here(left[0], check)]
            for first, last in blocks:
                left.remove((first, last))
                fitted, done = fitted + last - first, done + last - first
                progress(done, total)

    def blocks(self) -> Iterator[Block]:
        """The blocks of all workers, in the order of labels."""
        return (load_block(self._file(block)) for block in self._blocks)

    def _file(self, block: tuple[int, int]) -> Path:
        return self._directory / f"labels-{block[0]}-{block[1]}.npz"

    def _fit_here(self, block: tuple[int, int], check: Callable[[], None]) -> tuple[int, int]:
        self._fitter = self._fitter or Fitter(self._problem)
        save_block(self._file(block), self._fitter.fit(*block, check=check))
        return block

    def _fit_in_processes(
        self, blocks: Sequence[tuple[int, int]], check: Callable[[], None]
    ) -> Iterator[tuple[int, int]]:
        """Yields each block when it is fitted."""
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        finished: queue.SimpleQueue = queue.SimpleQueue()
        for block in blocks:
            waiting.put(block)
        with tempfile.TemporaryDirectory(
            dir=self._directory, prefix=f"problem-{self._share[0]}-"
        ) as shared:
            save_problem(Path(shared), self._problem)
            with contextlib.ExitStack() as processes:
                for _ in range(min(self._cores, len(blocks))):
                    processes.enter_context(self._process(shared, waiting, finished))
                for _ in blocks:
                    yield _next(finished, check)

    @contextlib.contextmanager
    def _process(
        self, shared: str, waiting: queue.SimpleQueue, finished: queue.SimpleQueue
    ) -> Iterator[None]:
        """A process that fits blocks that wait, until the context is left."""
        options = {
            "directory": shared,
            "loss": self._problem.loss,
            "C": self._problem.C,
            "min_weight": self._problem.min_weight,
            "pos_weight": self._problem.pos_weight,
            "exact": self._problem.exact,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", worker.__name__, json.dumps(options)],
            env=child_process.environment() | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process, which ends that one
        )
        feeder = threading.Thread(target=self._feed, args=(process, waiting, finished))
        feeder.start()
        try:
            yield
        finally:
            process.kill()
            feeder.join()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _feed(self, process, waiting: queue.SimpleQueue, finished: queue.SimpleQueue) -> None:
        """Gives one block after the other to a process, and says which are finished."""
        with contextlib.suppress(queue.Empty):
            while True:
                block = waiting.get_nowait()
                answer = ""
                with contextlib.suppress(OSError):
                    line = {"first": block[0], "last": block[1], "file": str(self._file(block))}
                    process.stdin.write(json.dumps(line) + "\n")
                    process.stdin.flush()
                    answer = process.stdout.readline()
                if answer.strip() != worker.DONE:
                    finished.put(process.wait())
                    return
                finished.put(block)


def _next(finished: queue.SimpleQueue, check: Callable[[], None]) -> tuple[int, int]:
    while True:
        check()
        try:
            result = finished.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            continue
        if isinstance(result, int):
            raise UserError(
                f"a process that fits labels has ended with status {result}, perhaps for want of "
                "memory; the labels that are done are kept, and the same command goes on with the "
                "others"
            )
        return result
