"""Local progress: stages follow each other, also where a bucket stays empty."""

import json
import time

import pytest

from beam_jobs.contract import progress
from beam_jobs.runtime import local_progress


@pytest.mark.parametrize("has_pieces", [False, True])
def test_merging_is_over_when_the_next_stage_has_begun_though_a_bucket_stays_empty(
    tmp_path, monkeypatch, capfd, has_pieces
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
        "parts_dir": parts,
        "num_parts": 1,
        "work_dir": work,
        "num_buckets": 4,
        "has_pieces": has_pieces,
        "dataset_dir": dataset,
    }
    with local_progress.watch(**watched):
        wait_for("reading: 0/1 parts, 0 documents")
        (parts / "part-0.json").write_text(json.dumps({"read": 7, "rejected": 1}))
        wait_for("merging: 0/4 buckets")
        for index in range(3):
            (work / f"bucket-{index:05d}.arrow").write_bytes(b"")
        wait_for("merging: 3/4 buckets")
        assert "writing" not in shown and "pieces" not in shown
        if has_pieces:
            (work / "pieces-00000.arrow").write_bytes(b"")
            wait_for("splitting words into pieces: 1/4 buckets")
            assert "writing" not in shown
        (dataset / "n-train.tfrecord-00000-of-00001").write_bytes(b"x" * 10**5)
        wait_for("writing: 1 shards, 0.1 MB")
        assert has_pieces or "pieces" not in shown
