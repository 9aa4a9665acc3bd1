"""Splits of whole jobs: by files, stratified, and by time in fractions."""

import json
import random

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import SPLITS
from beam_jobs.preprocessing import stratified_split, time_split
from beam_jobs.preprocessing.job import preprocess
from beam_jobs.runtime.spill import SpillByKey
from tests.zipf_labels import made_labels


def test_files_of_a_split_that_match_nothing_stop_before_the_job(tmp_path):
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.jsonl").write_text(
            json.dumps({"text": f"some words {name}", "labels": ["a"]})
        )
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {"source": "jsonl", "inputs": [str(tmp_path / "*.jsonl")]},
            "splits": {"method": "files", "validation": ["dev.jsonl"], "test": ["tset.jsonl"]},
            "vocabulary": {"min_document_count": 1},
            "output": {"dataset_dir": str(tmp_path / "dataset")},
        },
        what="",
    )
    with pytest.raises(UserError, match="splits.test: 'tset.jsonl' matches none of the 3 input"):
        preprocess(config, beam_arguments=[], overwrite=False, force=False)
    splits = config.splits.model_copy(update={"test": ("test.jsonl",)})
    preprocess(
        config.model_copy(update={"splits": splits}),
        beam_arguments=[],
        overwrite=False,
        force=False,
    )
    manifest = manifests.load(tmp_path / "dataset")
    assert {name: split.examples for name, split in manifest.splits.items()} == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }


@pytest.mark.parametrize("keep_unlabeled", [True, False])
@pytest.mark.parametrize("partition_documents", [10**6, 300])
def test_the_job_stratifies_over_buckets_and_partitions(
    tmp_path, monkeypatch, keep_unlabeled, partition_documents
):
    monkeypatch.setattr(stratified_split, "PARTITION_DOCUMENTS", partition_documents)
    rows = made_labels(1000, 12, seed=2) + [[]] * 100
    lines = [
        json.dumps({"text": f"words of number{i}", "labels": [f"l{label}" for label in row]})
        for i, row in enumerate(rows)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {"source": "jsonl", "inputs": [str(tmp_path / "in.jsonl")]},
            "labels": {"keep_unlabeled": keep_unlabeled, "top_k": 10},
            "splits": {"method": "stratified"},
            "output": {"dataset_dir": str(tmp_path / "dataset")},
        },
        what="",
    )
    preprocess(config, beam_arguments=[], overwrite=False, force=False)
    manifest = manifests.load(tmp_path / "dataset")
    labels = manifests.load_labels(manifest, tmp_path / "dataset")
    positives = np.array([[label["positives"][split] for split in SPLITS] for label in labels])
    sizes = np.array([manifest.splits[split].examples for split in SPLITS])
    assert sizes.sum() == manifest.counts.written
    tolerance = 1.5 if partition_documents == 10**6 else 6
    assert (
        np.abs(positives - positives.sum(axis=1, keepdims=True) * [0.8, 0.1, 0.1]).max() < tolerance
    )
    assert np.all(np.abs(sizes / sizes.sum() - [0.8, 0.1, 0.1]) < 0.02)


def split_by_time(folder, *, keep_unlabeled: bool = True):
    """400 documents: every fifth, the newest, without labels; each tenth again, an older one."""
    rng = random.Random(1)
    days = rng.sample(range(1, 12_000), 400)  # from 1970, and a few before
    rows = [
        {
            "id": i,
            "text": f"words of number{i}",
            "labels": ["x"] if i % 5 else [],
            "at": str(np.datetime64("1969-12-01") + day + (i % 5 == 0) * 20_000),
        }
        for i, day in enumerate(days)
    ]
    again = [row | {"at": "1950-01-01T00:00:00+02:00"} for row in rows[::10]]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, rows + again)))
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {
                "source": "jsonl",
                "inputs": [str(folder / "in.jsonl")],
                "time_field": "at",
                "id_field": "id",
                "metadata_fields": ["at"],
            },
            "labels": {"keep_unlabeled": keep_unlabeled},
            "splits": {"method": "time_fractions", "train": 0.7, "validation": 0.2, "test": 0.1},
            "output": {"dataset_dir": str(folder / "dataset"), "shards": 1},
        },
        what="",
    )
    preprocess(config, beam_arguments=[], overwrite=False, force=False)
    return rows, manifests.load(folder / "dataset")


@pytest.mark.parametrize("keep_unlabeled", [True, False])
def test_the_oldest_documents_train_and_the_newest_test(tmp_path, keep_unlabeled):
    rows, manifest = split_by_time(tmp_path, keep_unlabeled=keep_unlabeled)
    kept = sorted((row["at"], str(row["id"])) for row in rows if keep_unlabeled or row["labels"])
    ids = {}
    for split, info in manifest.splits.items():
        files = [str(tmp_path / "dataset" / shard.file) for shard in info.shards]
        parsed = manifest.record_spec.parse_batch(
            tf.constant(list(tf.data.TFRecordDataset(files).as_numpy_iterator())), ["id"]
        )
        ids[split] = {name.decode() for name in parsed["id"].numpy()}
    bounds = [0, round(0.7 * len(kept)), round(0.9 * len(kept)), len(kept)]
    assert ids == {
        split: {name for _, name in kept[bounds[i] : bounds[i + 1]]}
        for i, split in enumerate(manifests.SPLITS)
    }


def test_nothing_is_published_when_times_get_lost(tmp_path, monkeypatch):
    spill = SpillByKey._spill

    def lossy(self):
        is_hit = bool(self._tables) and {*time_split.TIMES.names} < {*self._tables[0].column_names}
        if is_hit:
            self._tables = [self._tables[0][1:], *self._tables[1:]]
        return spill(self)

    monkeypatch.setattr(SpillByKey, "_spill", lossy)
    with pytest.raises(
        RuntimeError,
        match="lost or repeated data: received 399 times, expected one for each of 400",
    ):
        split_by_time(tmp_path)
    assert not (tmp_path / "dataset").exists()
