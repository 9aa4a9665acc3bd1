"""A command in a place where something fails, and what came of it."""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

from kills import attempts
from kills.processes import Process
from kills.stages import Stage
from scripts.measured_process import process_tree, proportional_set_mb

SECONDS = 600  # in which everything must have ended
LOCAL = ("preprocess", "train", "evaluate", "export", "predict", "tune")


@dataclasses.dataclass
class Seen:
    """A fault, and what came of it.

    Attributes:
      fault: what it was.
      where: the stage.
      came: the exit status, the time and the last line.
      then: what the same command made when the cause was gone.
      is_well: it ended in words or went on, and nothing is lost.
    """

    fault: str
    where: str
    came: str
    then: str
    is_well: bool

    def line(self) -> str:
        cells = (self.fault, self.where, self.came, self.then)
        line = "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"
        return line if self.is_well else f"{line} <- FAULT"


class Ended:
    """How a command ended; this waits for it.

    Attributes:
      status: its exit status, negative for a signal; None: it was still there after its seconds.
      seconds: since it began.
      processor_seconds: of its processes, as at the last of two looks a second.
      peak_mb: the largest sum of memory over them.
      printed: all that it has printed.
    """

    def __init__(self, process: Process, began: float, limit: float = SECONDS):
        self.processor_seconds = self.peak_mb = 0.0
        while process.wait(0.5) is None and time.monotonic() - began < limit:
            tree = process_tree(process.pid)
            self.peak_mb = max(self.peak_mb, sum(map(proportional_set_mb, tree)))
            used = sum(map(_processor_seconds, tree))
            self.processor_seconds = max(self.processor_seconds, used)
        self.status = process.wait(0)
        self.seconds = time.monotonic() - began
        if self.status is None:
            process.kill()
            process.wait()
        self.printed = process.printed()

    @property
    def message(self) -> str:
        """The error in words, or the last line."""
        lines = [line for line in self.printed.splitlines() if line.strip()] or [""]
        told = [line for line in lines if line.startswith("error: ")]
        return (told or lines)[-1]

    @property
    def is_clean(self) -> bool:
        """It did its work, or ended with status 2 and one error in words."""
        if self.status == 0:
            return "Traceback" not in self.printed
        return self.status == 2 and "Traceback" not in self.printed and "error: " in self.printed

    def in_words(self, folder: Path) -> str:
        message = self.message.replace(f"{folder}/", "").replace(f"{folder.parent}/", "")
        how = "never ended" if self.status is None else f"status {self.status}"
        if self.printed.count("Traceback"):
            how += ", a traceback"
        return f"{how} after {self.seconds:.0f} s: `{message[:200]}`"


def _processor_seconds(pid: int) -> float:
    """Of a process and those of its processes that have ended; 0: it is gone itself."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def start(
    stage: Stage, home: Path, *more: str, prepare: Callable[[], None] | None = None
) -> Process:
    """Starts a stage's command, with more arguments, after `prepare` in its process."""
    temporary = str(home / "tmp")
    environment = {"TF_NUM_INTRAOP_THREADS": "1", "TMPDIR": temporary, "HOME": temporary}
    arguments = list(stage.arguments)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    arguments[at:at] = more
    return Process(arguments, home, environment, prepare)


def run(
    stage: Stage,
    home: Path,
    *more: str,
    prepare: Callable[[], None] | None = None,
    limit: float = SECONDS,
) -> Ended:
    """As `start`, and waits for the end, so many seconds at most."""
    began = time.monotonic()
    return Ended(start(stage, home, *more, prepare=prepare), began, limit)


def wait_for(found: Callable[[], bool], process: Process) -> None:
    """Returns when something is there, or the process has ended, or after two minutes."""
    ends = time.monotonic() + 120
    while not found() and time.monotonic() < ends and process.wait(0.05) is None:
        pass


def home_before(wholes: attempts.Wholes, stage: Stage) -> Path:
    """A folder with all that a stage starts from."""
    return attempts.home_of(Path(wholes.of(stage).before), wholes.folder / "home")


def differences(wholes: attempts.Wholes, stage: Stage, home: Path) -> list[str]:
    """What is other than an uninterrupted run makes it."""
    whole = Path(wholes.of(stage).after)
    try:
        return stage.differences(attempts.output_of(stage, home), attempts.output_of(stage, whole))
    except OSError as error:
        return [f"cannot be compared: {error}"]


def in_words(found: list[str]) -> str:
    """Differences for people."""
    return "; ".join(found)[:300] if found else "equal"


def again(
    wholes: attempts.Wholes,
    stage: Stage,
    home: Path,
    *,
    prepare: Callable[[], None] | None = None,
) -> tuple[str, bool]:
    """What the same command makes now, in words, and whether that is as it should be."""
    ended = run(stage, home, prepare=prepare)
    if ended.status != 0:
        return ended.in_words(home), False
    found = differences(wholes, stage, home)
    return in_words(found), not found


def nearest_folder(path: Path) -> Path:
    """The path, or the folder nearest to it that is there."""
    while not path.exists():
        path = path.parent
    return path


def process_group_of(process: Process) -> int:
    """The group of a command's processes, once it has one of its own."""
    while os.getpgid(process.pid) != process.pid and process.wait(0.01) is None:
        pass
    return process.pid
