"""What fails around a command, for `scripts/check_faults.py`."""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kills import attempts
from kills.processes import Process
from kills.stages import STAGES, Stage

_SECONDS = 600  # in which everything must have ended
_LOCAL = ("preprocess", "train", "evaluate", "export", "predict", "tune")


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
    """How a command ended."""

    def __init__(self, process: Process, began: float):
        self.status = process.wait(_SECONDS)
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


def _start(stage: Stage, home: Path, *more: str, prepare: Callable[[], None] | None = None):
    environment = {"TF_NUM_INTRAOP_THREADS": "1", "TMPDIR": str(home / "tmp")}
    arguments = list(stage.arguments)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    arguments[at:at] = more
    return Process(arguments, home, environment, prepare)


def _run(stage: Stage, home: Path, *more: str, prepare: Callable[[], None] | None = None) -> Ended:
    began = time.monotonic()
    return Ended(_start(stage, home, *more, prepare=prepare), began)


def _home(wholes: attempts.Wholes, stage: Stage) -> Path:
    return attempts.home_of(Path(wholes.of(stage).before), wholes.folder / "home")


def _again(wholes: attempts.Wholes, stage: Stage, home: Path) -> tuple[str, bool]:
    """What the same command makes now, in words, and whether that is as it should be."""
    ended = _run(stage, home)
    if ended.status != 0:
        return ended.in_words(home), False
    whole = Path(wholes.of(stage).after)
    found = stage.differences(attempts.output_of(stage, home), attempts.output_of(stage, whole))
    return ("equal" if not found else "; ".join(found)[:300]), not found


# --- disks -------------------------------------------------------------------------------


@contextlib.contextmanager
def _mounted(folder: Path, size: int) -> Iterator[Callable[[str], None]]:
    """A small file system at a folder, which keeps its files; calls mount it with other options."""
    kept = folder.with_name(f"{folder.name}-kept")
    shutil.rmtree(kept, ignore_errors=True)
    if folder.exists():
        folder.rename(kept)
    folder.mkdir(parents=True)
    held = (
        sum(-(-path.stat().st_size // 4096) + 1 for path in kept.rglob("*")) if kept.exists() else 0
    )
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={held * 4096 + size}", "tmpfs", str(folder)],
        check=True,
    )
    if kept.exists():
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        shutil.rmtree(kept)

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A disk that takes a few kilobytes more."""
    for name in _LOCAL:
        stage = STAGES[name]
        for size in (8 << 10, 48 << 10, 140 << 10):
            home = _home(wholes, stage)
            with _mounted(home / stage.output, size) as remount:
                ended = _run(stage, home)
                remount("size=200m")
                then, is_same = _again(wholes, stage, home)
            yield Seen(
                f"{size >> 10} KiB left",
                name,
                ended.in_words(home),
                then,
                ended.is_clean and is_same,
            )
            if ended.status == 0:
                break


# --- while it runs -----------------------------------------------------------------------

_LONG = ("--set", "train.epochs=60")


def _wait_for(found: Callable[[], bool], process: Process) -> None:
    ends = time.monotonic() + 120
    while not found() and time.monotonic() < ends and process.wait(0.05) is None:
        pass


def _trains(home: Path) -> bool:
    return (home / "out/small/run/checkpoints/checkpoint").exists()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def shards(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A shard that goes, or of which a bit flips, while a run reads it."""
    stage = STAGES["train"]
    for fault, harm in (("shard deleted", Path.unlink), ("bit flipped", _flip)):
        home = _home(wholes, stage)
        shard = next((home / "out/small/dataset").glob("*/*-train.tfrecord-00001-*"))
        content, began = shard.read_bytes(), time.monotonic()
        process = _start(stage, home, *_LONG)
        _wait_for(functools.partial(_trains, home), process)
        harm(shard)
        ended = Ended(process, began)
        shard.write_bytes(content)
        again = _run(stage, home, *_LONG)
        resumed = next((line for line in again.printed.splitlines() if "resuming" in line), "")
        is_well = ended.status == 2 and ended.is_clean and again.status == 0 and bool(resumed)
        yield Seen(f"{fault} in mid-run", "train", ended.in_words(home), resumed, is_well)


def hang(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A worker that is stopped, not ended: the others must tell, and not wait forever."""
    stage = STAGES["train-workers"]
    for victim in (1, 0):
        home = _home(wholes, stage)
        addresses = [f"127.0.0.1:{port}" for port in attempts.free_ports(2)]
        processes = []
        for index in range(2):
            task = {"type": "worker", "index": index}
            cluster = json.dumps({"cluster": {"worker": addresses}, "task": task})
            more = [*stage.arguments, "--set", "train.epochs=400"]
            processes.append(Process(more, home, {"TF_CONFIG": cluster}))
        _wait_for(functools.partial(_trains, home), processes[0])
        time.sleep(1)
        os.kill(processes[victim].pid, signal.SIGSTOP)
        began = time.monotonic()
        ended = Ended(processes[1 - victim], began)
        processes[victim].kill()
        processes[victim].wait()
        yield Seen(
            f"worker {victim} of 2 hangs",
            "train",
            ended.in_words(home),
            "",
            ended.status in (1, 2) and ended.seconds < _SECONDS and "error: " in ended.printed,
        )


def hang_beam(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A worker process of the Beam job that is stopped."""
    stage = STAGES["preprocess-workers"]
    home = _home(wholes, stage)
    began = time.monotonic()
    process = _start(stage, home)
    pattern = f"pgrep -P {process.pid} -f beam_jobs.worker"
    found: list[int] = []

    def has_workers() -> bool:
        listed = subprocess.run(pattern.split(), capture_output=True, text=True, check=False)
        found[:] = map(int, listed.stdout.split())
        return bool(found)

    _wait_for(has_workers, process)
    time.sleep(2)
    os.kill(found[0], signal.SIGSTOP)
    told_after = None
    while time.monotonic() - began < 200 and process.wait(1) is None:
        if "warning: worker process" in process.printed():
            told_after = time.monotonic() - began
            break
    os.kill(found[0], signal.SIGCONT)
    ended = Ended(process, began)
    whole = Path(wholes.of(stage).after)
    differ = stage.differences(attempts.output_of(stage, home), attempts.output_of(stage, whole))
    came = "nobody told of it" if told_after is None else f"told after {told_after:.0f} s"
    then = f"when it goes on: {ended.in_words(home)}; {'equal' if not differ else differ}"
    is_well = told_after is not None and ended.status == 0 and not differ
    yield Seen("a Beam worker hangs", "preprocess", came, then, is_well)


KINDS = {"full": full, "shards": shards, "hang": hang, "hang-beam": hang_beam}
