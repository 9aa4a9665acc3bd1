"""The progress of long work: a live line on a terminal or in a notebook, elsewhere plain lines."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_LINE_SECONDS = 10.0
NOTEBOOK_SECONDS = 0.5  # between two changes of the line


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
        # Rich needs ipywidgets in a notebook, and calls it a terminal.
        self._cell = _NotebookLine(what) if console.is_jupyter else None
        if console.is_terminal and not self._cell:
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
        if self._cell:
            self._cell.clear()

    def update(self, done: float, total: float, status: str) -> None:
        """Shows that `done` of `total` is done; `status` says it in words, with the rate."""
        if self._live:
            self._live.update(self._task, completed=done, total=total, status=status)
            return
        if self._cell:
            self._cell.update(done / total if total else 0.0, status)
            return
        now = time.monotonic()
        if now - self._last_line >= self._plain_line_seconds:
            self._last_line = now
            left = (now - self._started) * (total / done - 1) if done else None
            print(
                f"{self._what}: {status}" + ("" if left is None else f", about {left:.0f} s left"),
                flush=True,
            )


class _NotebookLine:
    """A line below a notebook's cell, which changes where it is."""

    def __init__(self, what: str):
        self._what, self._handle = what, None
        self._last = time.monotonic()  # short work shows nothing

    def update(self, fraction: float, status: str) -> None:
        now = time.monotonic()
        if now - self._last >= NOTEBOOK_SECONDS:
            self._last = now
            self._show(f"{self._what}: {fraction:4.0%}  {status}")

    def clear(self) -> None:
        if self._handle:
            self._show("")

    def _show(self, text: str) -> None:
        from IPython.display import Pretty, display

        line: Any = Pretty(text)
        if self._handle:
            self._handle.update(line)
        else:
            self._handle = display(line, display_id=True)
