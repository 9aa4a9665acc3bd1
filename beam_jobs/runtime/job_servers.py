"""Beam's job servers, which a job starts and submits itself to: those for Flink and Spark are Java
programs, and Prism is one of its own.
"""

import collections
import contextlib
import logging
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from beam_jobs.contract.errors import KnownFailure, UserError, shown

# What a jar of a job server contains and no other jar does.
_DRIVERS = {
    "Flink": "org/apache/beam/runners/flink/FlinkJobServerDriver.class",
    "Spark": "org/apache/beam/runners/spark/SparkJobServerDriver.class",
}
ENGINES = tuple(_DRIVERS)
# How programs of Linux, macOS and Windows begin, scripts, and ZIP archives.
_PROGRAMS = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"MZ", b"#!", b"PK")
_LEAST_JAVA = 11
_JAVA = "expected Java 11 or 17, found by PATH or named with -- --job_server_java_launcher=FILE"
_VERSION = re.compile(r'version "(?:1\.)?(\d+)[^"]*"')  # Java 8 calls itself 1.8
_SECONDS = 60.0  # for a Java to say its version
_LAST_LINES, _JOIN_SECONDS = 20, 5.0
_CLOSED = "Cannot monitor channel state: Channel closed"
# Beam's logger for what a server prints has the name of the class that starts it.
_LOGGERS = {"Flink": "FlinkJarJobServer", "Spark": "SparkJarJobServer"}
_NOT_STARTED = re.compile(r"Service failed to start up with error (-?\d+)")


def check_jar(engine: str, path: str, *, what: str) -> None:
    """Raises UserError unless a file is Beam's job server for an engine.

    Args:
      engine: `Flink` or `Spark`.
      path: the file.
      what: the option that names it.
    """
    expected = (
        f"expected the jar of Beam's job server for {engine}, such as "
        f"beam-runners-{engine.lower()}-...-job-server-VERSION.jar of Maven"
    )
    if not Path(path).is_file():
        raise UserError(f"{what}: there is no file {path}; {expected}")
    try:
        with zipfile.ZipFile(path) as jar:
            content = set(jar.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{what}: {path} is no jar: {error}; {expected}") from None
    found = [name for name, driver in _DRIVERS.items() if driver in content]
    if engine not in found:
        is_other = f"Beam's job server for {found[0]}" if found else "another program"
        raise UserError(f"{what}: {path} is {is_other}; {expected}")


def check_prism(path: str, *, what: str) -> None:
    """Raises UserError unless a file may be Prism: a program, or one in a ZIP archive.

    Args:
      path: the file.
      what: the option that names it.
    """
    expected = "expected Beam's Prism for this machine, as scripts/run_prism.sh builds it"
    if not Path(path).is_file():
        raise UserError(f"{what}: there is no file {path}; {expected}")
    with open(path, "rb") as stream:
        start = stream.read(4)
    if not start.startswith(_PROGRAMS):
        raise UserError(f"{what}: {path} is no program: it begins with {start!r}; {expected}")


def check_java(launcher: str) -> None:
    """Raises UserError unless a Java runs that is new enough.

    Args:
      launcher: the command.
    """
    try:
        ended = subprocess.run(
            [launcher, "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{launcher} cannot be started: {error}; {_JAVA}") from None
    said = (ended.stderr + ended.stdout).strip()
    version = _VERSION.search(said)
    if version is None:
        raise UserError(
            f"`{launcher} -version` ended with status {ended.returncode} and said no version: "
            f"{shown(said)}; {_JAVA}"
        )
    if int(version[1]) < _LEAST_JAVA:
        raise UserError(
            f"{launcher} is Java {version[1]}, which is too old for Beam's job servers; {_JAVA}"
        )


@contextlib.contextmanager
def failures_told(engine: str) -> Iterator[None]:
    """Turns the failure of a job server to start, during the block, into a KnownFailure.

    The last lines that the server printed, which Beam drops, go to stderr before.
    """
    logger = logging.getLogger(_LOGGERS[engine])
    kept = _LastLines()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    threads = set(threading.enumerate())
    try:
        with _closed_channels_not_shown():
            try:
                yield
            except RuntimeError as error:
                status = _NOT_STARTED.search(str(error))
                if status is None:
                    raise
                _join(set(threading.enumerate()) - threads)  # they read what the server prints
                raise _failure(engine, int(status[1]), kept.lines) from error
    finally:
        logger.removeHandler(kept)
        logger.setLevel(level)
        logger.propagate = propagates


def _failure(engine: str, status: int, printed: Iterable[str]) -> KnownFailure:
    """What is raised where a job server has ended, once what it has printed is shown."""
    lines = dict.fromkeys(printed)  # once, though Beam has tried three times
    for line in lines:
        print(f"job server: {line}", file=sys.stderr)
    return KnownFailure(
        f"Beam's job server for {engine} ended with status {status} before it took the job, "
        f"{'as it says above' if lines else 'and printed nothing'}; nothing is published"
    )


@contextlib.contextmanager
def _closed_channels_not_shown() -> Iterator[None]:
    """During the block, gRPC's threads that wait for a server to answer end in silence when Beam
    gives it up.
    """
    show = threading.excepthook

    def show_others(raised: threading.ExceptHookArgs) -> None:
        if _CLOSED not in str(raised.exc_value):
            show(raised)

    threading.excepthook = show_others
    try:
        yield
    finally:
        threading.excepthook = show


def _join(threads: Iterable[threading.Thread]) -> None:
    deadline = time.monotonic() + _JOIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


class _LastLines(logging.Handler):
    """Keeps the last lines that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
