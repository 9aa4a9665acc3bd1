"""Ctrl-C and SIGTERM end a run at a whole step."""

import signal
import threading


class StopRequest:
    """While entered, notes SIGINT and SIGTERM, which then do not end the process.

    A second SIGINT interrupts as usual. In another thread than the main one, where Python handles
    no signals, nothing is noted.

    Attributes:
      requested: the name of the signal that has come; None: none has.
    """

    def __init__(self):
        self.requested: str | None = None
        self._handlers = {}

    def __enter__(self) -> "StopRequest":
        is_main = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGINT, signal.SIGTERM) if is_main else ():
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc_info) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name


class StoppedBySignal(BaseException):
    """A signal has ended a run before it was finished, after a checkpoint.

    Like KeyboardInterrupt it is no Exception, so that a loop over several runs that continues after
    errors ends as well.

    Attributes:
      signal: the signal's name, such as "SIGTERM".
    """

    def __init__(self, name: str):
        super().__init__(f"the run was stopped by {name}; its last step is saved")
        self.signal = name

    @property
    def exit_status(self) -> int:
        """The status that shells give to a process that the signal has ended."""
        return 128 + signal.Signals[self.signal]
