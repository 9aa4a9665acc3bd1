"""Ctrl-C and SIGTERM end a run at a whole step."""

import signal


class StopRequest:
    """While open, notes SIGINT and SIGTERM in `requested` instead of ending the process; a second SIGINT interrupts as usual."""

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
