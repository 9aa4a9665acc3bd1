"""Ctrl-C and SIGTERM end a run at a whole step."""

import signal


class StopRequest:
    """While open, notes SIGINT and SIGTERM in `requested` instead of ending the process; a second SIGINT interrupts as usual.

    Attributes:
      requested: the signal's name; None: none has come.
    """

    def __init__(self):
        self.requested: str | None = None
        self._handlers = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc_info) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name


def exit_status(name: str) -> int:
    """The status of a process that a signal has ended, as shells have it."""
    return 128 + signal.Signals[name]
