"""The split by time in fractions: cuts against a plain search, splits against sorted times."""

import json
import random

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.dataset_config import TimeFractionSplits
from beam_jobs.preprocessing import time_split
from beam_jobs.preprocessing.job import preprocess
from beam_jobs.preprocessing.time_split import find_cuts
from beam_jobs.runtime.spill import SpillByKey


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    train=st.integers(1, 10),
    validation=st.integers(0, 9),
)
def test_cuts_lie_between_times_and_are_nearest_to_the_fractions(counts, train, validation):
    validation = min(validation, 10 - train)
    splits = TimeFractionSplits(
        method="time_fractions",
        train=train / 10,
        validation=validation / 10,
        test=(10 - train - validation) / 10,
    )
    times = np.arange(len(counts), dtype=np.int64) * 7 - 20
    first, second = find_cuts(times, np.array(counts), splits)
    assert first <= second
    by_document = np.repeat(times, counts)
    for cut, fraction in ((first, splits.train), (second, splits.train + splits.validation)):
        nearest = min(
            abs((by_document < end).sum() - fraction * len(by_document)) for end in [*times, 10**9]
        )
        assert abs((by_document < cut).sum() - fraction * len(by_document)) == pytest.approx(
            nearest
        )


def make(folder, *, keep_unlabeled: bool = True):
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
    rows, manifest = make(tmp_path, keep_unlabeled=keep_unlabeled)
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
        make(tmp_path)
    assert not (tmp_path / "dataset").exists()
