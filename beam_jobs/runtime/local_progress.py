"""The progress of a local run, seen from the files that its workers have finished."""

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence

from beam_jobs.contract.progress import ProgressLine

POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of a job, whose progress is shown.

    Attributes:
      title: what it does.
      status: returns the number of finished units of work and a text about them.
      total: units of work; None: unknown.
    """

    title: str
    status: Callable[[], tuple[int, str]]
    total: int | None


@contextlib.contextmanager
def watch(stages: Sequence[Stage]) -> Iterator[None]:
    """Shows the progress of one stage after the other until the block ends.

    Beam's local runner itself reports only at its end.
    """
    with run_in_background(lambda done: _watch(done, stages)):
        yield


@contextlib.contextmanager
def run_in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `work` in a thread while the block runs.

    The event that `work` receives is set at the end of the block; `work` must then return.
    """
    done = threading.Event()
    worker = threading.Thread(target=work, args=(done,), daemon=True)
    worker.start()
    try:
        yield
    finally:
        done.set()
        worker.join()


def _watch(done: threading.Event, stages: Sequence[Stage]) -> None:
    for stage, following in itertools.zip_longest(stages, stages[1:]):
        with ProgressLine(stage.title) as line:
            while not done.is_set():
                count, text = stage.status()
                if stage.total is not None and count >= stage.total:
                    break
                # A unit of work may never be finished, such as an empty bucket: a stage is over,
                # too, as soon as the next one has begun.
                if following is not None and following.status()[0]:
                    break
                line.update(count, stage.total or max(count, 1), text)
                done.wait(POLL_SECONDS)
