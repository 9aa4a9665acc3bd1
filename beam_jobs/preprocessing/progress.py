"""The stages of a preprocessing job whose progress can be seen in local files."""

import json
import time
from pathlib import Path

from beam_jobs.preprocessing.buckets import written_buckets
from beam_jobs.preprocessing.merge_duplicates import MERGED_BUCKETS
from beam_jobs.preprocessing.read import finished_parts
from beam_jobs.preprocessing.subwords import SUBWORD_BUCKETS
from beam_jobs.preprocessing.writer import written_shards
from beam_jobs.runtime.local_progress import Stage


def stages(
    *,
    parts_dir: Path,
    num_parts: int,
    work_dir: Path,
    num_buckets: int,
    has_subwords: bool,
    dataset_dir: Path,
) -> list[Stage]:
    """The stages in their order.

    Args:
      parts_dir: where finished parts of the input leave files.
      num_parts: parts of the input.
      work_dir: where buckets are written.
      num_buckets: buckets; some may stay empty and without a file.
      has_subwords: whether words are split into subwords.
      dataset_dir: where shards are written.
    """
    reading = _Reading(parts_dir, num_parts)

    def bucket_status(stage: str) -> tuple[int, str]:
        count = len(written_buckets(work_dir, stage))
        return count, f"{count}/{num_buckets} buckets"

    def write_status() -> tuple[int, str]:
        shards = written_shards(dataset_dir)
        total = sum(path.stat().st_size for path in shards)
        return len(shards), f"{len(shards)} shards, {total / 1e6:,.1f} MB"

    listed = [
        Stage("reading", reading.status, num_parts),
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
