"""Disks that are full, and files that somebody may not read or write."""

import contextlib
import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from kills import attempts
from kills.outcomes import LOCAL, Seen, again, home_before, nearest_folder, run
from kills.stages import STAGES, Stage

# What each stage reads: each is taken from it.
_READ = {
    "preprocess": ("small.yaml", "documents.jsonl"),
    "train": ("out/small/dataset/manifest.json", "out/small/dataset/*/*-train.tfrecord-00001-*"),
    "evaluate": ("out/small/dataset/*/*-validation.tfrecord-00000-*", "out/small/run/best/*.data*"),
    "export": ("out/small/run/best/*.data*", "out/small/run/thresholds.json"),
    "predict": ("documents.jsonl", "out/small/model/1/variables/*.data*"),
    "tune": ("out/small/dataset/*/*-train.tfrecord-00001-*",),
}
_FOLDERS = ("dataset", "run", "model")
# <linux/capability.h> and <linux/prctl.h>: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
_CAPABILITIES, _DROP_FROM_BOUNDS, _PASS_OVER = 0x20080522, 24, (1, 2)


# --- full --------------------------------------------------------------------------------


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
    for name in LOCAL:
        stage = STAGES[name]
        for size in (8 << 10, 48 << 10, 140 << 10):
            home = home_before(wholes, stage)
            with _mounted(home / stage.output, size) as remount:
                ended = run(stage, home)
                remount("size=200m")
                then, is_same = again(wholes, stage, home)
            yield Seen(
                f"{size >> 10} KiB left",
                name,
                ended.in_words(home),
                then,
                ended.is_clean and is_same,
            )
            if ended.status == 0:
                break


# --- read-only ---------------------------------------------------------------------------


@contextlib.contextmanager
def _read_only(paths: list[Path]) -> Iterator[None]:
    """Files and folders that nobody may write, whoever they are: as on a disk mounted read-only."""
    with contextlib.ExitStack() as stack:
        for path in paths:
            subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
            stack.callback(subprocess.run, ["umount", "-l", str(path)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield


def read_only_input(wholes: attempts.Wholes) -> Iterator[Seen]:
    """All that a stage reads and does not write is on a disk mounted read-only: it goes on."""
    for name in LOCAL:
        stage = STAGES[name]
        home = home_before(wholes, stage)
        names = ("small.yaml", "documents.jsonl", *(f"out/small/{each}" for each in _FOLDERS))
        inputs = [home / each for each in names if each != stage.output and (home / each).exists()]
        with _read_only(inputs):
            then, is_same = again(wholes, stage, home)
        yield Seen("input on a read-only disk", name, "goes on" if is_same else "", then, is_same)


def read_only_output(wholes: attempts.Wholes) -> Iterator[Seen]:
    """The place of a stage's output is on a disk mounted read-only."""
    for name in LOCAL:
        stage = STAGES[name]
        home = home_before(wholes, stage)
        with _read_only([nearest_folder(home / stage.output)]):
            ended = run(stage, home)
        then, is_same = again(wholes, stage, home)
        is_well = ended.status == 2 and ended.is_clean and is_same
        yield Seen("output on a read-only disk", name, ended.in_words(home), then, is_well)


# --- denied ------------------------------------------------------------------------------


def _obey_permissions() -> None:
    """Takes from root, in this process and those that it starts, what passes over permissions."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in _PASS_OVER:
        libc.prctl(_DROP_FROM_BOUNDS, number, 0, 0, 0)
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for i in range(3):  # effective, permitted and inheritable
        sets[i] &= ~sum(1 << number for number in _PASS_OVER)
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


@contextlib.contextmanager
def _with_mode(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def denied_input(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A file that the process may not read."""
    for name, patterns in _READ.items():
        for pattern in patterns:
            yield _denied(wholes, STAGES[name], pattern, 0, "may not be read")


def denied_output(wholes: attempts.Wholes) -> Iterator[Seen]:
    """A folder for the output in which the process may not write."""
    for name in LOCAL:
        stage = STAGES[name]
        yield _denied(wholes, stage, None, 0o555, "may not be written")


def _denied(
    wholes: attempts.Wholes, stage: Stage, pattern: str | None, mode: int, what: str
) -> Seen:
    """What comes of a mode of the file of a pattern, or without one of the output's folder."""
    home = home_before(wholes, stage)
    path = nearest_folder(home / stage.output) if pattern is None else next(home.glob(pattern))
    with _with_mode(path, mode):
        ended = run(stage, home, prepare=_obey_permissions)
    then, is_same = again(wholes, stage, home, prepare=_obey_permissions)
    shown = path.name if path != home else "the working directory"
    is_well = ended.status == 2 and ended.is_clean and is_same
    return Seen(f"{shown} {what}", stage.name, ended.in_words(home), then, is_well)


KINDS = {
    "full": full,
    "read-only-input": read_only_input,
    "read-only-output": read_only_output,
    "denied-input": denied_input,
    "denied-output": denied_output,
}
