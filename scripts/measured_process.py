"""What a Python command takes, with all processes that it starts: time, processor, memory, disk."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes:
      seconds: of the wall clock.
      processor_seconds: user and system, of the command and of all that it waited for.
      peak_mb: the largest sum, over the process tree, of proportional set sizes (PSS), sampled
        twice a second.
      peak_disk_mb: the largest size of the watched directory, sampled likewise; 0 without one.
      printed: standard output and error.
    """

    seconds: float
    processor_seconds: float
    peak_mb: float
    peak_disk_mb: float
    printed: str


def measure(arguments: Sequence[str], cwd: Path, *, watched: Path | None = None) -> Measured:
    """Runs `python ARGUMENTS` in a directory; ends the program with its output if it fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        ended, peaks, sizes = threading.Event(), [0.0], [0.0]

        def watch() -> None:
            while not ended.wait(SAMPLE_SECONDS):
                peaks.append(sum(map(proportional_set_mb, process_tree(process.pid))))
                sizes.append(_size_mb(watched) if watched else 0.0)

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        ended.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read()
    if process.returncode:
        sys.exit(f"error: {arguments} ended with status {process.returncode}:\n{printed}")
    processor_seconds = used.ru_utime + used.ru_stime
    return Measured(seconds, processor_seconds, max(peaks), max(sizes), printed)


def process_tree(root: int) -> set[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    tree = {root}
    while found := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= found
    return tree


def proportional_set_mb(pid: int) -> float:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as lines:
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
    return 0.0


def _size_mb(directory: Path) -> float:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # it has been deleted
                total += os.stat(os.path.join(folder, name)).st_size
    return total / 1e6
