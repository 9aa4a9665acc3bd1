"""What happens while a command runs: files change, processes stop, clocks jump, memory ends."""

import datetime
import functools
import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from beam_jobs.contract.command_line import EXIT_LOST_WORKER
from kills import attempts
from kills.outcomes import (
    LOCAL,
    Ended,
    Seen,
    again,
    differences,
    home_before,
    in_words,
    run,
    start,
    wait_for,
)
from kills.processes import Process
from kills.stages import STAGES, Stage
from kills.watching import Watch

_LONG = ("--set", "train.epochs=60")
_DAY = 24 * 3600
_GROUP = Path("/sys/fs/cgroup/memory/check_faults")


# --- files and processes -----------------------------------------------------------------


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
        home = home_before(wholes, stage)
        shard = next((home / "out/small/dataset").glob("*/*-train.tfrecord-00001-*"))
        content, began = shard.read_bytes(), time.monotonic()
        process = start(stage, home, *_LONG)
        wait_for(functools.partial(_trains, home), process)
        harm(shard)
        ended = Ended(process, began)
        shard.write_bytes(content)
        more = run(stage, home, *_LONG)
        resumed = next((line for line in more.printed.splitlines() if "resuming" in line), "")
        is_well = ended.status == 2 and ended.is_clean and more.status == 0 and bool(resumed)
        yield Seen(f"{fault} in mid-run", "train", ended.in_words(home), resumed, is_well)


def hang(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A worker that is stopped, not ended: the others must tell, and not wait forever."""
    stage = STAGES["train-workers"]
    for victim in (1, 0):
        home = home_before(wholes, stage)
        addresses = [f"127.0.0.1:{port}" for port in attempts.free_ports(2)]
        processes = []
        for index in range(2):
            task = {"type": "worker", "index": index}
            cluster = json.dumps({"cluster": {"worker": addresses}, "task": task})
            more = [*stage.arguments, "--set", "train.epochs=400"]
            processes.append(Process(more, home, {"TF_CONFIG": cluster}))
        wait_for(functools.partial(_trains, home), processes[0])
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
            ended.status == EXIT_LOST_WORKER and "error: " in ended.printed,
        )


def hang_beam(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A worker process of the Beam job that is stopped."""
    stage = STAGES["preprocess-workers"]
    home = home_before(wholes, stage)
    began = time.monotonic()
    process = start(stage, home)
    pattern = f"pgrep -P {process.pid} -f beam_jobs.worker"
    found: list[int] = []

    def has_workers() -> bool:
        listed = subprocess.run(pattern.split(), capture_output=True, text=True, check=False)
        found[:] = map(int, listed.stdout.split())
        return bool(found)

    wait_for(has_workers, process)
    time.sleep(2)
    os.kill(found[0], signal.SIGSTOP)
    told_after = None
    while time.monotonic() - began < 200 and process.wait(1) is None:
        if "warning: worker process" in process.printed():
            told_after = time.monotonic() - began
            break
    os.kill(found[0], signal.SIGCONT)
    ended = Ended(process, began)
    differ = differences(wholes, stage, home)
    came = "nobody told of it" if told_after is None else f"told after {told_after:.0f} s"
    then = f"when it goes on: {ended.in_words(home)}; {in_words(differ)}"
    is_well = told_after is not None and ended.status == 0 and not differ
    yield Seen("a Beam worker hangs", "preprocess", came, then, is_well)


# --- two at once -------------------------------------------------------------------------


def two_at_once(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A second command on the output of one that is in the middle of its work, and stands still."""
    for name in LOCAL:
        stage = STAGES[name]
        home = home_before(wholes, stage)
        with Watch(home) as watch:
            first = start(stage, home)
            wait_for(lambda watch=watch: len(_written(watch)) > 2, first)
            os.killpg(first.pid, signal.SIGSTOP)
        began = time.monotonic()
        second = start(stage, home)
        waited = second.wait(30) is None
        os.killpg(first.pid, signal.SIGCONT)
        of_second, of_first = Ended(second, began), Ended(first, began)
        # A second process of a search takes part in it, and so draws other values.
        found = [] if name == "tune" else differences(wholes, stage, home)
        came = f"the second: {'waits for the first, then ' if waited else ''}"
        then = f"the first: {of_first.in_words(home)}; {in_words(found)}"
        is_well = of_first.status == 0 and of_first.is_clean and of_second.is_clean and not found
        yield Seen("two at once", name, came + of_second.in_words(home), then, is_well)


def _written(watch: Watch) -> list[str]:
    """The changes in its folder that are of an output."""
    return [change for change in watch.changes if not re.search(r" tmp", change)]


# --- clocks ------------------------------------------------------------------------------


def clock(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A clock that jumps by a day, again and again, on files from tomorrow and from 1970.

    It is Python's clock of the command's process; the kernel, which dates files, keeps the time.
    """
    for name in LOCAL:
        stage = STAGES[name]
        home = home_before(wholes, stage)
        tomorrow = time.time() + _DAY
        for number, path in enumerate(sorted(home.rglob("*"))):
            os.utime(path, (tomorrow, tomorrow) if number % 2 else (0, 0))
        ended = run(stage, home, prepare=_jumping_clock)
        found = differences(wholes, stage, home) if ended.status == 0 else []
        is_well = ended.status == 0 and ended.is_clean and not found
        yield Seen("a clock that jumps", name, ended.in_words(home), in_words(found), is_well)


def _jumping_clock() -> None:
    """Has `time` and `datetime` of this process jump each half second: by a day on, or back."""
    real, real_nanoseconds = time.time, time.time_ns

    def offset() -> int:
        return (0, _DAY, -_DAY)[int(time.monotonic() * 2) % 3]

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(time.time(), tz)

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_nanoseconds() + offset() * 10**9
    datetime.datetime = Jumping


# --- memory ------------------------------------------------------------------------------


def memory_limit(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A process that is refused memory, as by `ulimit -v`: so many megabytes more than it has."""
    for name in LOCAL:
        for megabytes in (4, 32, 256):
            prepare = functools.partial(_limit_addresses, megabytes)
            seen = _with_little_memory(wholes, STAGES[name], f"{megabytes} MB more", prepare)
            yield seen
            if "status 0" in seen.came:
                break


def memory_group(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A group of processes that the kernel kills as it takes too much memory."""
    for name in (*LOCAL, "preprocess-workers"):
        for megabytes in (24, 96, 384):
            _GROUP.mkdir()
            (_GROUP / "memory.limit_in_bytes").write_text(str(megabytes << 20))
            what = f"a group of {megabytes} MB"
            try:
                seen = _with_little_memory(wholes, STAGES[name], what, _enter_group)
            finally:
                _remove_group()
            yield seen
            if "status 0" in seen.came:
                break


def _with_little_memory(
    wholes: attempts.Wholes, stage: Stage, what: str, prepare: Callable[[], None]
) -> Seen:
    """Told in words, or ended by the system: in both cases nothing may be lost."""
    home = home_before(wholes, stage)
    ended = run(stage, home, prepare=prepare)
    if ended.status == 0:
        found = differences(wholes, stage, home)
        then, is_same = in_words(found), not found
    else:
        then, is_same = again(wholes, stage, home)
    by_signal = ended.status is not None and ended.status < 0
    is_told = "error: " in ended.printed and "Traceback" not in ended.printed
    is_well = is_same and (ended.is_clean or by_signal or is_told)
    return Seen(what, stage.name, ended.in_words(home), then, is_well)


def _limit_addresses(megabytes: int) -> None:
    with open("/proc/self/statm", encoding="ascii") as stream:
        now = int(stream.read().split()[0]) * resource.getpagesize()
    limit = now + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _enter_group() -> None:
    (_GROUP / "cgroup.procs").write_text(str(os.getpid()))


def _remove_group() -> None:
    """Removes the group once its last process has gone."""
    for _ in range(100):
        try:
            return _GROUP.rmdir()
        except OSError:
            time.sleep(0.1)


KINDS = {
    "shards": shards,
    "hang": hang,
    "hang-beam": hang_beam,
    "two-at-once": two_at_once,
    "clock": clock,
    "memory-limit": memory_limit,
    "memory-group": memory_group,
}
