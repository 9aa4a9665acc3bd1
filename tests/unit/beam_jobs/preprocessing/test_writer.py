"""Shards: TFRecord framing, the shard of each document, and that a plan misses no bucket."""

import gzip
import hashlib

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.manifest import SPLITS
from beam_jobs.contract.records import RecordSpec
from beam_jobs.contract.sections.output import OutputConfig
from beam_jobs.contract.tfrecord import frame
from beam_jobs.preprocessing.bucket_stats import BucketStats
from beam_jobs.preprocessing.buckets import ENCODED, Bucket, write_table
from beam_jobs.preprocessing.histograms import Histogram
from beam_jobs.preprocessing.merge_duplicates import with_bucket
from beam_jobs.preprocessing.writer import ShardPlan, WriteShard, plan_shards, shard_of

keys_strategy = st.lists(
    st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**64 - 1, 2**32, 2**32 - 1]), max_size=50
)


def test_framing_equals_that_of_tensorflows_writer(tmp_path):
    contents = [b"", b"x", bytes(range(256)) * 50, b"\0" * 1000]
    with tf.io.TFRecordWriter(str(tmp_path / "tf")) as writer:
        for content in contents:
            writer.write(content)
    assert b"".join(map(frame, contents)) == (tmp_path / "tf").read_bytes()


def stats(index: int, split_bytes=(0, 0, 0)) -> BucketStats:
    counts = np.zeros(len(SPLITS), np.int64)
    empty = Histogram.sum([])
    return BucketStats(
        bucket=Bucket(index, "", 0, 0),
        documents=counts,
        without_labels=counts,
        bytes=np.array(split_bytes, np.int64),
        token_lengths=empty,
        labels_per_document=empty,
        co_occurrence=np.zeros((0, 0), np.int64),
        label_occurrences=0,
        has_weights=index % 2 == 0,
        has_metadata=np.zeros(0, bool),
        train_tokens=0,
    )


def buckets_of(keys: list[int], bits: int) -> list[int]:
    """The bucket that the pipeline puts documents with these order keys in."""
    digests = pa.chunked_array(
        [pa.array([key.to_bytes(8, "big") + bytes(8) for key in keys], pa.binary())]
    )
    return with_bucket(pa.table({"digest": digests}), bits)["key"].to_pylist()


@given(
    keys=keys_strategy,
    bits=st.integers(1, 12),
    count=st.integers(1, 300) | st.sampled_from([1000, 4096]),
)
def test_every_document_is_in_exactly_one_shard_and_the_shard_reads_its_bucket(keys, bits, count):
    all_stats = [stats(index) for index in sorted(set(buckets_of(keys, bits)))]
    plans = [
        plan
        for plan in plan_shards(
            all_stats[::-1], OutputConfig(dataset_dir="x", shards=count), 1 << bits
        )
        if plan.split == "train"
    ]
    assert [plan.index for plan in plans] == list(range(count))
    for key, bucket in zip(keys, buckets_of(keys, bits), strict=True):
        shard = int(shard_of(np.array([key], np.uint64), count)[0])
        assert 0 <= shard < count  # one index: no other shard takes the document
        assert bucket in [b.index for b in plans[shard].buckets]
    for plan in plans:
        assert [b.index for b in plan.buckets] == sorted(
            b.index for b in plan.buckets
        )  # so that records come in the order of keys


@given(keys=keys_strategy.map(sorted), count=st.integers(1, 99_999))
def test_shards_follow_the_order_of_keys(keys, count):
    shards = shard_of(np.array(keys, np.uint64), count).tolist()
    assert shards == sorted(shards)
    assert shard_of(np.array([0, 2**64 - 1], np.uint64), count).tolist() == [0, count - 1]


@given(count=st.integers(1, 60), seed=st.integers(0, 1000))
def test_shards_are_balanced(count, seed):
    documents = 60_000
    keys = np.random.default_rng(seed).integers(0, 2**64 - 1, documents, np.uint64, endpoint=True)
    sizes = np.bincount(shard_of(keys, count).astype(np.int64), minlength=count)
    expected = documents / count
    assert np.all(np.abs(sizes - expected) <= 6 * np.sqrt(expected) + 1)


@pytest.mark.parametrize(
    ("total", "count"), [(0, 1), (1, 1), (1024, 1), (1025, 2), (10_240, 10), (10_241, 11)]
)
def test_the_number_of_shards_follows_the_bytes_of_each_split(total, count):
    all_stats = [stats(0, (total - total // 3, 0, 5)), stats(1, (total // 3, 0, 5))]
    plans = list(plan_shards(all_stats, OutputConfig(dataset_dir="x", shard_bytes=1024), 4))
    assert [sum(plan.split == split for plan in plans) for split in SPLITS] == [count, 1, 1]


def test_a_shard_holds_its_documents_in_the_order_of_digests_whatever_the_buckets(tmp_path):
    rng = np.random.default_rng(0)
    digests = sorted(rng.bytes(16) for _ in range(300))
    rows = [
        {
            "digest": digest,
            "id": b"%d" % i,
            "texts": [f"t{i}"],
            "labels": [0, 1][: i % 3],
            "weight": 1.0 + i % 2,
            "metadata": [],
            "split": i % 2,
        }
        for i, digest in enumerate(digests)
    ]
    contents = {}
    for bits in (1, 5):
        folder = tmp_path / str(bits)
        folder.mkdir()
        buckets = []
        for index in range(1 << bits):
            path = str(folder / f"b{index}")
            inside = [
                row
                for row in rows
                if buckets_of([int.from_bytes(row["digest"][:8], "big")], bits) == [index]
            ]
            write_table(path, pa.Table.from_pylist(inside, schema=ENCODED))
            buckets.append(Bucket(index, path, len(inside), 0))
        plans = plan_shards(
            [stats(b.index) for b in buckets], OutputConfig(dataset_dir="x", shards=3), 1 << bits
        )
        do_fn = WriteShard("n", str(folder), RecordSpec(), "none")
        for plan in (plan for plan in plans if plan.split == "train"):
            plan = ShardPlan(
                plan.split,
                plan.index,
                plan.count,
                tuple(buckets[b.index] for b in plan.buckets),
                plan.has_weights,
            )
            for _ in range(2):  # a retried bundle writes the same file again
                ((split, index, info),) = do_fn.process(plan)
            content = (folder / info.file).read_bytes()
            assert (split, index, info.file) == (
                "train",
                plan.index,
                f"n-train.tfrecord-{plan.index:05d}-of-00003",
            )
            assert (info.bytes, info.sha256) == (len(content), hashlib.sha256(content).hexdigest())
            contents.setdefault(bits, []).append((info, content))
        assert not list(folder.glob("*.tmp"))
    assert contents[1] == contents[5]
    files = [str(tmp_path / "5" / info.file) for info, _ in contents[5]]
    parsed = RecordSpec().parse_batch(
        tf.constant(list(tf.data.TFRecordDataset(files).as_numpy_iterator()))
    )
    expected = [row for row in rows if row["split"] == 0]
    assert parsed["id"].numpy().tolist() == [row["id"] for row in expected]
    assert parsed["text"].numpy().tolist() == [row["texts"][0].encode() for row in expected]
    assert parsed["labels"].to_list() == [row["labels"] for row in expected]
    assert parsed["weight"].numpy().tolist() == [row["weight"] for row in expected]
    assert sum(info.examples for info, _ in contents[5]) == len(expected)


@pytest.mark.parametrize("has_weights", [False, True])
def test_compressed_shards_hold_the_same_records_and_the_same_bytes_in_every_run(
    tmp_path, has_weights
):
    row = {"texts": ["same " * 50], "labels": [], "weight": 1.0, "metadata": [], "split": 0}
    rows = [{"digest": bytes([i]) * 16, "id": b"%d" % i} | row for i in range(9)]
    write_table(str(tmp_path / "b"), pa.Table.from_pylist(rows, schema=ENCODED))
    plan = ShardPlan("train", 0, 1, (Bucket(0, str(tmp_path / "b"), 9, 0),), has_weights)
    ((_, _, plain),) = WriteShard("n", str(tmp_path), RecordSpec(), "none").process(plan)
    ((_, _, packed),) = WriteShard("n", str(tmp_path), RecordSpec(), "gzip").process(plan)
    content = (tmp_path / "n-train.tfrecord-00000-of-00001.gz").read_bytes()
    assert (packed.file, packed.examples) == (plain.file + ".gz", 9)
    assert (packed.bytes, packed.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert packed.bytes < plain.bytes / 3
    assert gzip.decompress(content) == (tmp_path / plain.file).read_bytes()
    assert content[:10] == b"\x1f\x8b\x08\x00\0\0\0\0\x00\xff"  # no name, no time
    files = [str(tmp_path / packed.file)]
    parsed = tf.io.parse_example(
        tf.constant(
            list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())
        ),
        {"weight": tf.io.VarLenFeature(tf.float32)},
    )
    assert len(parsed["weight"].values) == (9 if has_weights else 0)
