"""The progress of a local run, seen from the files that its workers have finished."""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from beam_jobs.contract.progress import ProgressLine

POLL_SECONDS = 0.5


@contextlib.contextmanager
def watch(
    *,
    parts_dir: Path,
    num_parts: int,
    work_dir: Path,
    num_buckets: int,
    has_pieces: bool,
    dataset_dir: Path,
) -> Iterator[None]:
    """Shows, until the block ends, how much is read, merged, split into pieces and written. Beam's local runner itself tells only at the end."""
    with run_in_background(
        lambda done: _watch(
            done, parts_dir, num_parts, work_dir, num_buckets, has_pieces, dataset_dir
        )
    ):
        yield


@contextlib.contextmanager
def run_in_background(watch: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `watch` in a thread while the block runs; the event it receives is set at the block's end, and it must then return."""
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(done,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _watch(
    done: threading.Event,
    parts_dir: Path,
    num_parts: int,
    work_dir: Path,
    num_buckets: int,
    has_pieces: bool,
    dataset_dir: Path,
) -> None:
    started = time.monotonic()
    seen: dict[Path, dict[str, int]] = {}

    def read_status() -> tuple[int, str]:
        for path in parts_dir.glob("*.json"):
            if path not in seen:
                seen[path] = json.loads(path.read_text())
        read, rejected = (sum(part[key] for part in seen.values()) for key in ("read", "rejected"))
        rate = read / (time.monotonic() - started)
        return (
            len(seen),
            f"{len(seen)}/{num_parts} parts, {read:,} documents, {rejected:,} rejected, {rate:,.0f} documents/s",
        )

    def bucket_status(prefix: str) -> tuple[int, str]:
        count = len(list(work_dir.glob(f"{prefix}-*.arrow")))
        return count, f"{count}/{num_buckets} buckets"

    def write_status() -> tuple[int, str]:
        shards = [path for path in dataset_dir.glob("*.tfrecord-*") if path.suffix != ".tmp"]
        total = sum(path.stat().st_size for path in shards)
        return len(shards), f"{len(shards)} shards, {total / 1e6:,.1f} MB"

    stages = [
        ("reading", read_status, num_parts),
        ("merging", lambda: bucket_status("bucket"), num_buckets),
    ]
    if has_pieces:
        stages.append(("splitting words into pieces", lambda: bucket_status("pieces"), num_buckets))
    stages.append(("writing", write_status, None))
    for (what, status, total), following in itertools.zip_longest(stages, stages[1:]):
        with ProgressLine(what) as line:
            while not done.is_set():
                count, text = status()
                # A bucket may stay empty, and nobody tells of it: when the next stage has begun this one is over too.
                if total is not None and (count >= total or following[1]()[0]):
                    break
                line.update(count, total or max(count, 1), text)
                done.wait(POLL_SECONDS)
