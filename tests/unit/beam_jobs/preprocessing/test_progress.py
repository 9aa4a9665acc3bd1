"""The progress of a local job: stages follow each other, even where a bucket stays empty."""

import time
from pathlib import Path

import pytest

from beam_jobs.contract import progress
from beam_jobs.contract.manifest import shard_name
from beam_jobs.preprocessing import progress as job_progress
from beam_jobs.preprocessing.buckets import bucket_path
from beam_jobs.preprocessing.merge_duplicates import MERGED_BUCKETS
from beam_jobs.preprocessing.read import ReadPart
from beam_jobs.preprocessing.subwords import SUBWORD_BUCKETS
from beam_jobs.runtime import local_progress
from beam_jobs.sources.documents import Document, Reject


class Rows:
    """A source of seven documents and a reject."""

    def read(self, file):
        yield from [Document("1", ("x",), (), 1.0, file, 1)] * 7
        yield Reject(file, 8, "wrong", "", "")


def touch(path: str) -> None:
    Path(path).touch()


@pytest.mark.parametrize("has_subwords", [False, True])
def test_merging_is_over_when_the_next_stage_has_begun_though_a_bucket_stays_empty(
    tmp_path, monkeypatch, capfd, has_subwords
):
    monkeypatch.setattr(local_progress, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(
        progress.ProgressLine.__init__, "__kwdefaults__", {"plain_line_seconds": 0.0}
    )
    parts, work, dataset = (tmp_path / name for name in ("parts", "work", "dataset"))
    for folder in (parts, work, dataset):
        folder.mkdir()
    shown = ""

    def wait_for(text: str) -> None:
        nonlocal shown
        deadline = time.monotonic() + 20
        while text not in shown and time.monotonic() < deadline:
            time.sleep(0.01)
            shown += capfd.readouterr().out
        assert text in shown

    watched = {
        "parts_dir": str(parts),
        "num_parts": 1,
        "work_dir": str(work),
        "num_buckets": 4,
        "has_subwords": has_subwords,
        "dataset_dir": str(dataset),
    }
    with local_progress.watch(job_progress.stages(**watched)):
        wait_for("reading: 0/1 parts, 0 documents")
        list(ReadPart(Rows(), str(parts)).process((0, ["file"])))
        wait_for("merging: 0/4 buckets")
        for index in range(3):
            touch(bucket_path(str(work), MERGED_BUCKETS, index))
        wait_for("merging: 3/4 buckets")
        assert "writing" not in shown and "subwords" not in shown
        if has_subwords:
            touch(bucket_path(str(work), SUBWORD_BUCKETS, 0))
            wait_for("splitting words into subwords: 1/4 buckets")
            assert "writing" not in shown
        shard = shard_name("n", "train", 0, 1)
        (dataset / f"{shard}.tmp").write_bytes(b"x" * 10**6)  # is being written
        (dataset / shard).write_bytes(b"x" * 10**5)
        wait_for("writing: 1 shards, 0.1 MB")
        assert has_subwords or "subwords" not in shown
