"""What every call of the Python API shares: what it prints, and how it fails."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.quiet import import_tensorflow_quietly, no_tensorflow_warnings

# What messages advise on a command line, and what that is in Python.
_IN_PYTHON = {
    "`python -m beam_jobs.preprocess`": "`multihot.preprocess`",
    "`python -m trainer.task train`": "`multihot.train`",
    "`python -m trainer.task evaluate`": "`run.evaluate()`",
    "`python -m trainer.task export`": "`run.export()`",
    "--overwrite": "overwrite=True",
    "--fresh": "fresh=True",
    "--force": "force=True",
    "--model: ": "",
    "--run: ": "",
    "--set ": "settings: ",
}


@contextlib.contextmanager
def python_call(*, verbose: bool, tensorflow: bool = True) -> Iterator[None]:
    """The block of one call.

    Args:
      verbose: let it print to stdout, as the command does.
      tensorflow: import TensorFlow first, without its start-up notes.

    Raises:
      UserError: as within the block, in the words of Python.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if tensorflow:
        import_tensorflow_quietly()
    quiet = contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO())
    try:
        with quiet, no_tensorflow_warnings():
            yield
    except UserError as error:
        raise UserError(in_python(str(error))) from None


def as_given(directory: str | os.PathLike[str]) -> Path | str:
    """A directory's path, or its URL; raises UserError if no such store is known."""
    if not places.is_remote(directory):
        return Path(directory)
    try:
        return places.check(os.fspath(directory).rstrip("/"))
    except ValueError as error:
        raise UserError(f"received {os.fspath(directory)!r}; {error}") from None


def on_disk(directory: str | os.PathLike[str], *, what: str) -> Path:
    """A directory's path; raises UserError, with `what` as its name, if it is a URL."""
    if places.is_remote(directory):
        received = os.fspath(directory)
        raise UserError(f"{what}: received {received!r}, expected a directory on a disk")
    return Path(directory)


def in_python(message: str) -> str:
    """A message of a command line with its advice in Python."""
    for command, call in _IN_PYTHON.items():
        message = message.replace(command, call)
    return message
