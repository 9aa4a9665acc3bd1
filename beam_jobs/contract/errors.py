"""The one exception that means "the user's input was wrong", and how messages show values."""

from typing import Any

MAX_SHOWN = 80  # characters of a value


class UserError(ValueError):
    """An input that the user can correct: a config, a file, a directory or an argument.

    Its message says what was received, what was expected and how to fix it. The command
    lines print it alone, without a traceback, and exit with status 2. Any other exception
    is a defect of ours or a failure of the machine and exits with status 1.
    """


def shown(value: Any) -> str:
    """A value as an error shows it: its repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
