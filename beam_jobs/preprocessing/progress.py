"""The stages of a preprocessing job whose progress can be seen in local files."""

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from beam_jobs.contract import places
from beam_jobs.preprocessing.buckets import written_buckets
from beam_jobs.preprocessing.merge_duplicates import MERGED_BUCKETS
from beam_jobs.preprocessing.read import finished_parts
from beam_jobs.preprocessing.subwords import SUBWORD_BUCKETS
from beam_jobs.preprocessing.writer import written_shards
from beam_jobs.runtime.local_progress import Stage


@contextlib.contextmanager
def directory(work_dir: str, *, is_local: bool) -> Iterator[str | None]:
    """Where finished parts of the input leave files that this process sees; None: nowhere.

    Args:
      work_dir: of the job; on a disk workers and submitter share it.
      is_local: whether all workers are on this machine.
    """
    if not places.is_remote(work_dir):
        parts_dir = Path(work_dir, "parts")
        parts_dir.mkdir(parents=True)
        yield str(parts_dir)
    elif is_local:
        with tempfile.TemporaryDirectory() as parts_dir:
            yield parts_dir
    else:
        yield None


def stages(
    *,
    parts_dir: str | None,
    num_parts: int,
    work_dir: str,
    num_buckets: int,
    has_subwords: bool,
    dataset_dir: str,
) -> list[Stage]:
    """The stages in their order; only those whose files are on a disk.

    Args:
      parts_dir: where finished parts of the input leave files; None: nowhere.
      num_parts: parts of the input.
      work_dir: where buckets are written.
      num_buckets: buckets; some may stay empty and without a file.
      has_subwords: whether words are split into subwords.
      dataset_dir: where shards are written.
    """
    if parts_dir is None:
        return []
    reading = Stage("reading", _Reading(Path(parts_dir), num_parts).status, num_parts)
    if places.is_remote(work_dir):
        return [reading]

    def bucket_status(stage: str) -> tuple[int, str]:
        count = len(written_buckets(Path(work_dir), stage))
        return count, f"{count}/{num_buckets} buckets"

    def write_status() -> tuple[int, str]:
        shards = written_shards(Path(dataset_dir))
        total = sum(path.stat().st_size for path in shards)
        return len(shards), f"{len(shards)} shards, {total / 1e6:,.1f} MB"

    listed = [
        reading,
        Stage("merging", lambda: bucket_status(MERGED_BUCKETS), num_buckets),
    ]
    if has_subwords:
        listed.append(
            Stage(
                "splitting words into subwords",
                lambda: bucket_status(SUBWORD_BUCKETS),
                num_buckets,
            )
        )
    return [*listed, Stage("writing", write_status, None)]


class _Reading:
    """What the finished parts of the input hold, each file read once."""

    def __init__(self, parts_dir: Path, num_parts: int):
        self._parts_dir, self._num_parts = parts_dir, num_parts
        self._started = time.monotonic()
        self._parts: dict[Path, dict[str, int]] = {}

    def status(self) -> tuple[int, str]:
        for path in finished_parts(self._parts_dir):
            if path not in self._parts:
                self._parts[path] = json.loads(path.read_text(encoding="utf-8"))
        read = sum(part["read"] for part in self._parts.values())
        rejected = sum(part["rejected"] for part in self._parts.values())
        rate = read / max(time.monotonic() - self._started, 1e-9)
        return (
            len(self._parts),
            f"{len(self._parts)}/{self._num_parts} parts, {read:,} documents, "
            f"{rejected:,} rejected, {rate:,.0f} documents/s",
        )
