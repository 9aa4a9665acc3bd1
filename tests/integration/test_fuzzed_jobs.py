"""Whole jobs on files with anything in them: every row read is accounted for."""

import csv
import io
import json

import pytest

from beam_jobs import preprocess
from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict
from beam_jobs.sources import registry
from tests.fuzzed_files import Maker, as_arrow, as_csv, as_json, as_parquet, as_posts, table_of

ROWS = 150


def contents(maker: Maker) -> dict[str, bytes | str]:
    """By the kind of source, a file that can be read to its end."""
    return {
        "jsonl": "\n".join(as_json(maker.row()) for _ in range(ROWS)) + "\n\nbroken\n",
        "csv": as_table(maker) + as_csv([maker.row() for _ in range(ROWS // 5)]),
        "parquet": as_parquet(table_of(maker, ROWS, kinds=("text", "labels"))),
        "arrow": as_arrow(table_of(maker, ROWS, kinds=("text", "labels"))),
        "stack_exchange": as_posts([maker.row() for _ in range(ROWS)]),
    }


def as_table(maker: Maker) -> str:
    """Rows of CSV that are quoted as they should be, and some that are not."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["text", "labels"])
    for i in range(ROWS):
        writer.writerow([maker.word(), maker.choice("abc")])
        stream.write("\n" if i % 10 == 0 else "")
    return stream.getvalue()


@pytest.mark.parametrize("source", contents(Maker(0)))
def test_every_row_of_a_job_is_written_merged_dropped_or_rejected(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    content = contents(Maker(7))[source]
    content = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    (tmp_path / "in").write_bytes(content)
    config = {
        "name": "fuzz",
        "data": {"source": source, "inputs": ["in"], "max_reject_fraction": 1},
        "vocabulary": {"min_document_count": 1},
        "labels": {"min_count": 2, "keep_unlabeled": False},
        "duplicates": {"near": "drop"},
        "splits": {"train": 1, "validation": 0, "test": 0},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    preprocess.main(["--config", "config.yaml", "--", "--direct_running_mode=in_memory"])
    counts = manifests.load(tmp_path / "out/fuzz/dataset").counts
    reader = registry.make_reader(config_from_dict(config, what="config.yaml").data)
    assert counts.read == sum(1 for file in reader.files() for _ in reader.read(file)) > ROWS / 4
    assert counts.read == (
        counts.written
        + counts.duplicates
        + counts.near_duplicates
        + counts.dropped_without_labels
        + sum(counts.rejected.values())
    )
    assert counts.written and counts.duplicates and counts.rejected
