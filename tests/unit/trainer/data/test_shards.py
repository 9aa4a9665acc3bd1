"""Who reads which shard, and where a shard is corrupt."""

import types

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import ShardInfo
from trainer.data.shards import (
    SHUFFLE_BYTES,
    assign_shards,
    describe_corruption,
    explain_corrupt_shards,
    first_corruption,
    num_steps,
    plan_split,
    shuffled_at_once,
)


class Counts:
    """A dataset as far as `plan_split` looks at it."""

    def __init__(self, sizes):
        shards = [types.SimpleNamespace(examples=size) for size in sizes]
        self.manifest = types.SimpleNamespace(
            splits={"train": types.SimpleNamespace(shards=shards)}
        )

    def num_examples(self, split):
        return sum(shard.examples for shard in self.manifest.splits[split].shards)

    def fetch(self, shards):
        return shards

    def shards(self, split):
        return [f"shard{i}" for i in range(len(self.manifest.splits[split].shards))]


@pytest.mark.parametrize(
    ("mean_bytes", "file", "expected"),
    [
        (1_000, "shard", 10_000),
        (0, "shard", 10_000),
        (SHUFFLE_BYTES // 100, "shard", 100),
        (SHUFFLE_BYTES // 300, "shard.gz", 100),
        (2 * SHUFFLE_BYTES, "shard", 1),
    ],
)
def test_a_shuffle_buffer_of_long_documents_is_bounded_by_their_bytes(mean_bytes, file, expected):
    shards = [
        ShardInfo(file=file, bytes=mean_bytes * count, sha256="", examples=count)
        for count in (20_000, 0, 30_000)
    ]
    assert shuffled_at_once(shards, 10_000) == expected
    assert shuffled_at_once([], 10_000) == 10_000


@given(sizes=st.lists(st.integers(0, 1000), max_size=40), workers=st.integers(1, 8))
def test_every_shard_with_examples_goes_to_one_worker_and_none_gets_far_too_much(sizes, workers):
    shares = assign_shards(sizes, workers)
    assert sorted(i for share in shares for i in share) == [
        i for i, size in enumerate(sizes) if size
    ]
    totals = [sum(sizes[i] for i in share) for share in shares]
    least_possible = max([sum(sizes) / workers, *sizes])
    assert max(totals) <= (4 / 3) * least_possible + max(
        sizes, default=0
    )  # Graham 1969: at most 4/3 of the best


@given(
    sizes=st.lists(st.integers(0, 300), max_size=20),
    workers=st.integers(1, 4),
    per_worker=st.integers(1, 9),
    how=st.sampled_from(["auto", "file"]),
)
def test_steps_of_a_plan_are_enough_for_every_worker_and_one_fewer_is_not(
    sizes, workers, per_worker, how
):
    dataset = Counts(sizes)
    plan = plan_split(
        dataset, "train", num_workers=workers, global_batch_size=workers * per_worker, shard_by=how
    )
    if plan.by_file is None:
        assert plan.steps == num_steps(sum(sizes), workers * per_worker)
    else:
        count = dict(zip(dataset.shards("train"), sizes, strict=True))
        most = max(sum(count[path] for path in share) for share in plan.by_file)
        assert (
            plan.steps * per_worker >= most > (plan.steps - 1) * per_worker
            or most == plan.steps == 0
        )


@pytest.mark.parametrize(
    ("sizes", "workers", "how", "order"),
    [
        ([100, 100, 100, 100], 2, "auto", "by file over 2 workers"),
        ([100, 101, 103, 99, 100, 98, 100, 100], 4, "auto", "by file over 4 workers"),
        ([100, 100, 100], 2, "auto", "by example"),  # one worker would have twice as much
        ([100, 100, 100], 2, "file", "by file over 2 workers"),
        ([100], 2, "auto", "by example"),
        ([100, 0], 2, "auto", "by example"),
        ([], 2, "auto", "by example"),
        ([100] * 4, 2, "example", "by example"),
        ([100] * 4, 1, "file", "by example"),
    ],
)
def test_shards_are_shared_out_by_file_where_that_costs_few_steps(sizes, workers, how, order):
    assert (
        plan_split(
            Counts(sizes), "train", num_workers=workers, global_batch_size=4 * workers, shard_by=how
        ).order
        == order
    )


# --- corruption ------------------------------------------------------------------------


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "x-train.tfrecord-00000-of-00001"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i in range(5):
            writer.write(b"record %d" % i)
    return path


RECORD_BYTES = 16 + len(b"record 0")


def test_sound_shard_has_no_corruption(shard, tmp_path):
    assert first_corruption(shard) is None
    (tmp_path / "empty").write_bytes(b"")
    assert first_corruption(tmp_path / "empty") is None


@given(position=st.integers(0, 5 * RECORD_BYTES - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found_in_its_record_as_tensorflow_finds_it(
    tmp_path_factory, position, bit
):
    path = tmp_path_factory.getbasetemp() / "flipped.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i in range(5):
            writer.write(b"record %d" % i)
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
    record = position // RECORD_BYTES
    assert first_corruption(path).offset == record * RECORD_BYTES
    read = tf.data.TFRecordDataset(str(path)).ignore_errors()
    assert len(list(read)) == record  # what follows the first corrupt record is lost


@pytest.mark.parametrize("cut", [1, 5, 12, 16, 20])
def test_cut_shard_is_corrupt_at_its_last_record(shard, cut):
    shard.write_bytes(shard.read_bytes()[:-cut])
    assert first_corruption(shard).offset == 4 * RECORD_BYTES


def test_tensorflows_error_becomes_one_that_names_file_and_offset(shard):
    content = bytearray(shard.read_bytes())
    content[2 * RECORD_BYTES + 13] ^= 1
    shard.write_bytes(content)
    dataset = types.SimpleNamespace(
        shards=lambda split: [str(shard)], fetch=list, directory=shard.parent
    )
    with pytest.raises(UserError) as raised, explain_corrupt_shards(dataset, "train"):
        list(tf.data.TFRecordDataset(str(shard)))
    assert f"{shard}: the record at byte {2 * RECORD_BYTES} has bytes of a wrong checksum" in str(
        raised.value
    )
    assert "train.on_corrupt=skip" in str(raised.value)
    assert len(describe_corruption(dataset, "test")) == 1


def test_a_shard_that_is_deleted_while_it_is_read_is_named(shard):
    dataset = types.SimpleNamespace(shards=lambda split: [str(shard)], directory=shard.parent)
    shard.unlink()
    message = f"{shard} is gone: the dataset is damaged, .* with --force"
    with pytest.raises(UserError, match=message), explain_corrupt_shards(dataset, "train"):
        list(tf.data.TFRecordDataset(str(shard)))
