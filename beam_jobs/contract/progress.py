"""The progress of long work: a live line on a terminal, elsewhere a plain line at intervals."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_LINE_SECONDS = 10.0


class ProgressLine:
    """The progress of one piece of work; a context manager.

    Args:
      what: what is being done, such as "reading".
      plain_line_seconds: minimum time between two lines where stderr is not a terminal.
    """

    def __init__(self, what: str, *, plain_line_seconds: float = PLAIN_LINE_SECONDS):
        console = Console(stderr=True)
        self._what = what
        self._started = self._last_line = time.monotonic()
        self._plain_line_seconds = plain_line_seconds
        self._live = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[status]}"),
                TimeRemainingColumn(compact=True),
            )
            self._live = Progress(*columns, console=console, transient=True)
            self._task = self._live.add_task(what, total=None, status="")

    def __enter__(self) -> "ProgressLine":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc_info) -> None:
        if self._live:
            self._live.stop()

    def update(self, done: float, total: float, status: str) -> None:
        """Shows that `done` of `total` is done; `status` says it in words, with the rate."""
        if self._live:
            self._live.update(self._task, completed=done, total=total, status=status)
            return
        now = time.monotonic()
        if now - self._last_line >= self._plain_line_seconds:
            self._last_line = now
            left = (now - self._started) * (total / done - 1) if done else None
            print(
                f"{self._what}: {status}" + ("" if left is None else f", about {left:.0f} s left"),
                flush=True,
            )
