"""The one exception that means "the user's input was wrong", and how messages show values."""

import errno
import os
import re
from typing import Any

MAX_SHOWN = 80  # characters of a value


class UserError(ValueError):
    """An input that the user can correct: a config, a file, a directory or an argument.

    Its message says what was received, what was expected and how to fix it. The command
    lines print it alone, without a traceback, and exit with status 2. Any other exception
    is a defect of ours or a failure of the machine and exits with status 1.
    """


class KnownFailure(RuntimeError):
    """A failure of the machine whose cause is known, and which the user's input did not make.

    The command lines print its message alone, without a traceback, and exit with status 1.
    """


# What a place answers that is full, read-only or somebody else's.
_PLACE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)


_OF_OPERATIONS = re.compile(r"\{\{[^{}]*\}\} ?| ?\[Op:\w+\]")  # which one failed


def failure_of_place(error: BaseException) -> str | None:
    """What the file system refused, in words; None: the error is another one.

    TensorFlow's errors are no OSError, and have the reason in their text.
    """
    if isinstance(error, OSError):
        if error.errno not in _PLACE_ERRORS:
            return None
        return f"{error.filename or 'cannot write'}: {os.strerror(error.errno)}"
    if type(error).__module__.partition(".")[0] != "tensorflow":
        return None
    reasons = list(map(os.strerror, _PLACE_ERRORS))
    lines = _OF_OPERATIONS.sub("", str(error)).splitlines()
    return next((line for line in lines if any(reason in line for reason in reasons)), None)


def is_want_of_memory(error: BaseException) -> bool:
    """Whether memory has run out: of the machine, of a limit on the process, or of a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    is_tensorflows = type(error).__module__.partition(".")[0] == "tensorflow"
    return isinstance(error, MemoryError) or (
        is_tensorflows and type(error).__name__ == "ResourceExhaustedError"
    )


def shown(value: Any) -> str:
    """A value as an error shows it: its repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
