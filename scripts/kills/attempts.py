"""One kill: the stage is begun, killed, watched, and run again."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from beam_jobs.contract import places
from kills import operations
from kills.processes import Process
from kills.stages import BUCKET, STAGES, Stage, write_inputs
from kills.watching import Watch

_POLL_SECONDS = 0.02
# In which a command that nobody kills must end: on a machine that others use, too.
_END_SECONDS, _END_TIMES, _WHOLE_SECONDS = 300, 10, 3600
# What TensorFlow and SQLite write is not seen by Python.
_WATCHED = {"train", "train-workers", "export", "tune"}


@dataclasses.dataclass
class Whole:
    """A run of a stage that nothing interrupted.

    Attributes:
      before: the path of what it started from.
      after: that of its working directory, and `store` in it: what it wrote to a store.
      seconds: how long it took.
      operations: those on files, in their order.
      changes: those of its output as the kernel told of them.
    """

    before: str
    after: str
    seconds: float
    operations: list[str]
    changes: list[str]

    @property
    def limit(self) -> float:
        """Seconds in which it must end."""
        return max(_END_SECONDS, _END_TIMES * self.seconds)


@dataclasses.dataclass
class Result:
    """What became of a kill."""

    seed: int
    stage: str
    kind: str
    moment: str
    killed: bool
    equal: bool
    seen: str | None
    polls: int
    faults: list[str]

    def line(self) -> str:
        verdict = "; ".join(self.faults) if self.faults else "equal, nothing half seen"
        if not self.killed:
            verdict = f"ended before its kill: {verdict}"
        return f"seed {self.seed:4d}  {self.stage:<18}  {self.moment:<60}  {verdict}"


class Wholes:
    """The uninterrupted runs, each made when it is first asked for; a folder keeps them."""

    def __init__(self, folder: Path, *, with_store: bool = True):
        self.folder, self._with_store = folder, with_store
        self._made: dict[str, Whole] = {}

    def of(self, stage: Stage) -> Whole:
        kept = self.folder / "whole" / f"{stage.name}.json"
        if stage.name not in self._made and kept.exists():
            self._made[stage.name] = Whole(**json.loads(kept.read_text(encoding="utf-8")))
        if stage.name not in self._made:
            whole = self._made[stage.name] = self._make(stage)
            kept.write_text(json.dumps(dataclasses.asdict(whole)), encoding="utf-8")
        return self._made[stage.name]

    def _make(self, stage: Stage) -> Whole:
        after = self.folder / "whole" / stage.name
        shutil.rmtree(after, ignore_errors=True)
        if stage.after is None:
            before = self.folder / "inputs"
            before.mkdir(exist_ok=True)
            write_inputs(before)
        else:
            before = Path(self.of(STAGES[stage.after]).after)
        home = home_of(before, self.folder / "home")
        if self._with_store:
            empty_store()
        log = home / "operations.log"
        began = time.monotonic()
        with Watch(home / "out") as watch:
            processes = start(stage, home, log=log)
            for process in processes:
                status = process.wait(_WHOLE_SECONDS)
                if status != 0:
                    for each in processes:
                        each.kill()
                    how = "does not end" if status is None else f"ends with status {status}"
                    raise RuntimeError(f"{stage.name} alone {how}:\n{process.printed()}")
        seconds = time.monotonic() - began
        told = operations.read_log(log)
        if self._with_store:
            fetch_store(home)
        after.parent.mkdir(exist_ok=True)
        home.rename(after)
        return Whole(str(before), str(after), seconds, told, watch.changes)


def attempt(wholes: Wholes, stage: Stage, seed: int, rng: random.Random) -> Result:
    """Kills a stage once at the moment that the numbers draw, and runs it again."""
    whole = wholes.of(stage)
    home = home_of(Path(whole.before), wholes.folder / "home")
    empty_store()
    kind, at, moment = _draw(stage, whole, rng)
    expected = output_of(stage, Path(whole.after))
    with _polled(stage, home, expected) as poll:
        killed, faults = _kill(stage, whole, home, kind, at, rng)
        faults += _run_again(stage, home, whole.limit)
    fetch_store(home)
    differences = []
    if not faults:
        try:
            differences = stage.differences(output_of(stage, home), expected)
            differences += _left_beside(home, Path(whole.after), stage)
        except Exception as error:
            differences = [f"cannot be compared: {type(error).__name__}: {error}"]
    faults += differences + ([f"a reader saw {poll.seen}"] if poll.seen else [])
    if faults:
        kept = wholes.folder / f"failed-{seed}"
        shutil.rmtree(kept, ignore_errors=True)
        home.rename(kept)
    return Result(seed, stage.name, kind, moment, killed, not faults, poll.seen, poll.polls, faults)


def _draw(stage: Stage, whole: Whole, rng: random.Random) -> tuple[str, float, str]:
    """How the kill is aimed, at what, and that in words."""
    if rng.random() < 0.5:
        at = rng.random()
        return "random", at * whole.seconds, f"at {at:.4f} of its time"
    if stage.name in _WATCHED and rng.random() < 0.5:
        number = rng.randrange(len(whole.changes))
        return "watched", number + 1, f"after change {number + 1}: {whole.changes[number]}"
    told = whole.operations
    naming = [i for i, operation in enumerate(told) if operations.publishes(operation)]
    naming += [i + 1 for i in naming if i + 1 < len(told)]
    number = rng.choice(naming) if naming and rng.random() < 0.6 else rng.randrange(len(told))
    return "operation", number + 1, f"before operation {number + 1}: {told[number]}"


def _kill(
    stage: Stage, whole: Whole, home: Path, kind: str, at: float, rng: random.Random
) -> tuple[bool, list[str]]:
    """(whether it was killed before its end, what was wrong with how the rest ended)."""
    log = home / "operations.log" if kind == "operation" else None
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        processes: list[Process] = []
        victim = rng.randrange(stage.workers) if kind == "random" else 0
        if kind == "watched":
            stack.enter_context(Watch(home / "out", int(at), lambda: processes[0].kill()))
        processes += start(stage, home, log=log, at=int(at))
        if kind == "random":
            processes[victim].wait(max(0.0, at - (time.monotonic() - began)))
            processes[victim].kill()
        faults, killed = [], False
        for process in [processes[victim], *processes]:
            status = process.wait(whole.limit)
            if status is None:
                process.kill()
                faults.append(f"a worker was still there {whole.limit:.0f} s after the other's end")
            killed |= status == -9
        printed = "".join(process.printed() for process in processes)
    if "Traceback" in printed and stage.workers == 1:
        faults.append("the killed command printed a traceback")
    return killed, faults


def _run_again(stage: Stage, home: Path, limit: float) -> list[str]:
    processes = start(stage, home)
    for process in processes:
        status = process.wait(limit)
        if status is None:
            process.kill()
            return ["the same command does not end"]
        if status != 0:
            last = process.printed().strip().splitlines() or [""]
            return [f"the same command ends with status {status}: {last[-1][:300]}"]
        if "Traceback" in process.printed():
            return ["the same command printed a traceback"]
    return []


def start(stage: Stage, home: Path, *, log: Path | None = None, at: int = 0) -> list[Process]:
    """Starts the stage's processes; the operations of the first go to the log."""
    environment = {"TMPDIR": str(home / "tmp"), "TF_NUM_INTRAOP_THREADS": "1"}
    watched = environment | {
        operations.LOG: str(log),
        operations.AT: str(at),
        operations.ROOT: str(home),
        "PYTHONPATH": os.pathsep.join([operations.STARTUP, os.environ["PYTHONPATH"]]),
    }
    processes = []
    addresses = [f"127.0.0.1:{port}" for port in free_ports(stage.workers)]
    for index in range(stage.workers):
        given = dict(watched if log and index == 0 else environment)
        if stage.workers > 1:
            task = {"type": "worker", "index": index}
            given["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        processes.append(Process(list(stage.arguments), home, given))
    return processes


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [own.getsockname()[1] for own in sockets]
    for own in sockets:
        own.close()
    return ports


@dataclasses.dataclass
class _Poll:
    polls: int = 0
    seen: str | None = None


@contextlib.contextmanager
def _polled(stage: Stage, home: Path, expected: Path) -> Iterator[_Poll]:
    """Reads the output again and again while the block runs."""
    poll, ended = _Poll(), threading.Event()
    place = stage.output if stage.is_remote else str(home / stage.output)

    def read() -> None:
        while not ended.wait(_POLL_SECONDS * (5 if stage.is_remote else 1)):
            try:
                poll.seen = poll.seen or stage.reader(place, expected)
            except Exception as error:
                poll.seen = poll.seen or f"{type(error).__name__}: {error}"
            poll.polls += 1

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield poll
    finally:
        ended.set()
        thread.join()


# --- folders and the store ---------------------------------------------------------------


def home_of(before: Path, home: Path) -> Path:
    shutil.rmtree(home, ignore_errors=True)
    ignored = shutil.ignore_patterns("operations.log", "store", "tmp")
    shutil.copytree(before, home, ignore=ignored)
    for name in ("out", "tmp"):
        (home / name).mkdir(exist_ok=True)
    return home


def output_of(stage: Stage, home: Path) -> Path:
    """The output of a stage, or the copy of one on a store."""
    return home / "store" if stage.is_remote else home / stage.output


def _left_beside(home: Path, whole: Path, stage: Stage) -> list[str]:
    """Files in the working directory, outside the output, that an uninterrupted run has not."""

    def others(folder: Path) -> set[str]:
        return {
            name
            for name in places.list_files(folder)
            if not name.startswith(("operations.log", "tmp/", "store/", stage.output))
        }

    return [f"{name} is left beside the output" for name in sorted(others(home) - others(whole))]


def _client():
    import boto3

    return boto3.client("s3")


def wait_for_store() -> None:
    """Returns when the emulator answers."""
    for _ in range(300):
        try:
            urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"]).close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        raise RuntimeError("moto_server does not answer")
    _client().create_bucket(Bucket=BUCKET)


def empty_store() -> None:
    places.delete_directory(f"s3://{BUCKET}/out")


def fetch_store(home: Path) -> None:
    """Copies what is on the store to `store` in a folder."""
    for name in places.list_files(f"s3://{BUCKET}/out"):
        places.download(f"s3://{BUCKET}/out/{name}", home / "store" / name)
