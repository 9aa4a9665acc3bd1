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


_MORE_SPACE = "a place with more space"
# A library that cannot be loaded, or an extension that returns nothing and no reason.
_NO_MEMORY = (
    "failed to map segment from shared object",
    "returned NULL without setting an exception",
    "MemoryError",
    "std::bad_alloc",
)
_NO_TEMPORARY = "No usable temporary directory found"  # as `tempfile` says it
_RIGHTS = "files that you may read, and places that you may write"
# What a place answers that is full, read-only or somebody else's, and what it should be.
_PLACE_ERRORS = {
    errno.ENOSPC: _MORE_SPACE,
    errno.EDQUOT: _MORE_SPACE,
    errno.EFBIG: _MORE_SPACE,
    errno.EROFS: "a place that may be written",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
}


_OF_OPERATIONS = re.compile(r"\{\{[^{}]*\}\} ?| ?\[Op:\w+\]")  # which one failed


def failure_of_place(error: BaseException) -> str | None:
    """What the file system refused and what was expected, in words; None: the error is another one.

    TensorFlow's errors are no OSError, and have the reason in their text.
    """
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT and str(error.strerror).startswith(_NO_TEMPORARY):
            return f"{error.strerror}; expected {_MORE_SPACE} there, or another folder in TMPDIR"
        if error.errno not in _PLACE_ERRORS:
            return None
        refused = f"{error.filename or 'cannot write'}: {os.strerror(error.errno)}"
        return f"{refused}; expected {_PLACE_ERRORS[error.errno]}"
    if type(error).__module__.partition(".")[0] != "tensorflow":
        return None
    for line in _OF_OPERATIONS.sub("", str(error)).splitlines():
        for number, expected in _PLACE_ERRORS.items():
            if os.strerror(number) in line:
                return f"{line}; expected {expected}"
    return None


def is_want_of_memory(error: BaseException) -> bool:
    """Whether memory has run out: of the machine, of a limit on the process, or of a GPU.

    A thread that cannot be started got none for its stack, or there are too many already.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return True
    is_tensorflows = type(error).__module__.partition(".")[0] == "tensorflow"
    return isinstance(error, MemoryError) or (
        is_tensorflows and type(error).__name__ == "ResourceExhaustedError"
    )


def refused_memory(error: BaseException) -> str | None:
    """The line in which a library says that it got no memory, in its own way; None: none does.

    Without a limit on a process's addresses these words may have other causes.
    """
    lines = str(error).splitlines()
    return next((line.strip() for line in lines if any(map(line.count, _NO_MEMORY))), None)


def shown(value: Any) -> str:
    """A value as an error shows it: its repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
