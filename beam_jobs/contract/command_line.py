"""What every command line shares: `--config`, `--set`, `--help`, and how a run ends."""

import argparse
import functools
import gc
import io
import os
import signal
import sys
from collections.abc import Callable

from beam_jobs.contract import user_code
from beam_jobs.contract.config import Config, load_config
from beam_jobs.contract.errors import (
    KnownFailure,
    UserError,
    failure_of_place,
    first_line,
    is_want_of_memory,
    refused_memory,
)
from beam_jobs.contract.validation import describe_keys

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None

EXIT_FAILURE = 1
EXIT_USER_ERROR = 2
EXIT_LOST_WORKER = 75  # EX_TEMPFAIL of sysexits.h: start all workers again
EXIT_INTERRUPTED = 128 + signal.SIGINT

_MORE_MEMORY = "expected more of it, or less at a time: smaller batches, fewer workers"
_WHOLE = "what was finished before is whole"
# In bytes, since there is no memory to make them.
_LOST_THREAD = f"error: memory ran out as a thread began; {_MORE_MEMORY}; {_WHOLE}\n".encode()
_FEW_ADDRESSES = 4 << 30  # bytes; TensorFlow takes more than half of it with the smallest models


def add_config_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Adds `--config`, `--set` and `--list-keys`, which every stage takes."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        required=required,
        help="the experiment's YAML file, such as configs/docstrings.yaml",
    )
    add_set_argument(parser)
    parser.add_argument(
        "--list-keys",
        action=_ListKeys,
        help="print every config key with its type, default and meaning, and exit",
    )


def add_set_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--set`, whose values are the list `overrides` of the parsed arguments."""
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override one key of the config; VALUE is read as YAML; may be repeated",
    )


class _ListKeys(argparse.Action):
    def __init__(self, option_strings, dest, **kwargs):
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        print(describe_keys(Config))
        parser.exit()


def config_from(arguments: argparse.Namespace) -> Config:
    """The resolved config that parsed `--config` and `--set` arguments name.

    The user's own modules are found beside that file from then on.
    """
    user_code.search_beside(arguments.config)
    return load_config(arguments.config, overrides=arguments.overrides)


def split_at_dashes(argv: list[str]) -> tuple[list[str], list[str]]:
    """(our arguments, those after `--`, which are Apache Beam's)."""
    index = argv.index("--") if "--" in argv else len(argv)
    return argv[:index], argv[index + 1 :]


def _escape_what_the_terminal_lacks() -> None:
    """Has stdout and stderr print `\\xe9` for characters that their encoding does not have, such as
    ASCII, and for bytes of file names that are not UTF-8, rather than fail.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def collect_garbage_rarely() -> None:
    """Has Python look for cycles of garbage after 50,000 new objects rather than 700.

    What TensorFlow and Beam make as they are imported and as graphs are traced stays, and looking
    through it again and again took 0.7 of the 4.1 s of `import tensorflow` and a tenth of the time
    of training, evaluation and export of a small model (Python 3.11).
    """
    gc.set_threshold(50_000, 20, 20)


def _few_addresses() -> int | None:
    """The bytes of addresses that a limit such as `ulimit -v` leaves; None: it leaves enough."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit if limit != resource.RLIM_INFINITY and limit < _FEW_ADDRESSES else None


def _warn_of_few_addresses() -> None:
    """Says what such a limit leads to, before a library ends the process by it."""
    if (limit := _few_addresses()) is not None:
        print(
            f"warning: a limit (ulimit -v) leaves this process {limit >> 20:,} MiB of addresses; "
            "where TensorFlow gets no more it ends the process by a signal, without an error. "
            f"Expected {_FEW_ADDRESSES >> 20:,} MiB or more, or a limit of memory (a cgroup)",
            file=sys.stderr,
            flush=True,
        )


@functools.cache  # once in a process
def _end_where_a_thread_is_lost() -> None:
    """Ends the process with one error where memory runs out before a thread's first line.

    `Thread.start` waits forever for such a thread (Python 3.11), which is told of nowhere else.
    """
    other = sys.unraisablehook

    def tell(unraisable) -> None:
        is_of_thread = "thread started by" in (unraisable.err_msg or "")
        if is_of_thread and issubclass(unraisable.exc_type, MemoryError):
            os.write(2, _LOST_THREAD)
            os._exit(EXIT_USER_ERROR)
        other(unraisable)

    sys.unraisablehook = tell


def run_main(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Runs `main(argv)` and ends the process with its exit status.

    Status 0: done. 1: a failure whose cause is known, as one message on stderr says. 2: the user's
    input was wrong, a file may not be read or written, a disk is full, or memory ran out, as one
    message says. 130: Ctrl-C. Any other exception passes through and Python ends with its traceback
    and status 1.
    """
    _escape_what_the_terminal_lacks()
    _warn_of_few_addresses()
    _end_where_a_thread_is_lost()
    collect_garbage_rarely()
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "2"
    )  # TensorFlow's own start-up notes tell the user nothing
    try:
        main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # a closed pipe is then noticed here, not when the interpreter ends
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except KnownFailure as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILURE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILURE)
    except Exception as error:
        told = failure_of_place(error)
        reason = first_line(error) if is_want_of_memory(error) else None
        if reason is None and _few_addresses() is not None:
            reason = refused_memory(error)
        if told is None and reason is not None:
            told = f"memory ran out: {reason[:200]}; {_MORE_MEMORY}"
        if told is None:
            raise
        print(f"error: {told}; {_WHOLE}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
