"""Batches: every document once, in an order of its own each epoch."""

import pytest
import tensorflow as tf

from tests.small_shards import VOCABULARY, epoch, flat, worker_of, write
from trainer.data.input_pipeline import make_vectorizer
from trainer.data.shards import SplitPlan, num_steps


@pytest.fixture(scope="module")
def vectorizer():
    return make_vectorizer(VOCABULARY)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shards"), [20, 0, 17, 8, 1])


@pytest.fixture
def as_worker(monkeypatch):
    return worker_of(monkeypatch)


def test_an_epoch_has_every_document_once_and_each_epoch_and_seed_its_own_order(
    shards, vectorizer, as_worker
):
    strategy, plan = as_worker(0, 1), SplitPlan(num_steps(46, 8), None)
    orders = [
        flat(epoch(shards, vectorizer, strategy, plan, epoch=e, seed=s))
        for e, s in ((0, 3), (0, 3), (1, 3), (0, 4))
    ]
    assert all(sorted(order) == list(range(46)) for order in orders)
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3


def test_the_vectorizer_maps_tokens_to_ids_and_a_text_without_tokens_to_none():
    ids = make_vectorizer(["ärger", "w1"])(tf.constant(["w1 ärger", "", "other", "w1 w1 1w"]))
    assert ids.to_list() == [[3, 2], [], [1], [3, 3, 1]] and ids.dtype == tf.int64
    assert make_vectorizer(["w1"])(tf.constant([], tf.string)).to_list() == []


def test_what_follows_a_corrupt_record_in_its_shard_is_skipped_and_padded(
    tmp_path, vectorizer, as_worker
):
    shards = write(tmp_path, [10, 10])
    path = shards.paths[0]
    content = bytearray(tf.io.gfile.GFile(path, "rb").read())
    content[4 * (len(content) // 10) + 14] ^= 1
    with open(path, "wb") as stream:
        stream.write(content)
    plan = SplitPlan(num_steps(20, 8), None)
    seen = flat(epoch(shards, vectorizer, as_worker(0, 1), plan, skip_corrupt=True))
    assert sorted(seen) == [*range(4), *range(10, 20)]
    with pytest.raises(tf.errors.DataLossError):
        epoch(shards, vectorizer, as_worker(0, 1), plan)
