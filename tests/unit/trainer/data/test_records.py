"""Records of a split, read outside the input pipeline."""

import types

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.records import RecordSpec
from trainer.data.records import read_records


@pytest.fixture
def dataset(tmp_path):
    """Two shards of three documents."""
    spec, paths = RecordSpec(), []
    for first in (0, 3):
        path = tmp_path / f"x-test.tfrecord-{first}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for i in range(first, first + 3):
                values = {"id": b"%d" % i, "text": b"a b", "labels": [i] * (i % 2), "weight": 1.0}
                writer.write(spec.encode(values))
        paths.append(str(path))
    return types.SimpleNamespace(
        shards=lambda split: paths, fetch=list, directory=tmp_path, record_spec=spec
    )


def test_records_come_in_order_with_the_features_that_are_asked_for(dataset):
    (batch,) = read_records(dataset, "test", ["id", "labels"])
    assert batch.keys() == {"id", "labels"}
    assert batch["id"].tolist() == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert isinstance(batch["id"], np.ndarray)
    assert batch["labels"].to_list() == [[], [1], [], [3], [], [5]]


def test_a_corrupt_shard_is_a_user_error_that_names_it(dataset):
    path = dataset.directory / "x-test.tfrecord-3"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="x-test.tfrecord-3: the record at byte"):
        list(read_records(dataset, "test", ["id"]))
