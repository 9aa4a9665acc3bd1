"""Documents -> shards: TFRecord files of nearly equal size, in the order of documents' hashes."""

import bisect
import contextlib
import dataclasses
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import AsList

from beam_jobs.contract import places
from beam_jobs.contract.manifest import (
    SHARD_PATTERN,
    SPLITS,
    ShardInfo,
    file_info,
    shard_name,
)
from beam_jobs.contract.records import RecordSpec
from beam_jobs.contract.sections.output import OutputConfig
from beam_jobs.contract.tfrecord import frame
from beam_jobs.preprocessing.bucket_stats import BucketStats
from beam_jobs.preprocessing.buckets import Bucket, order_keys, read_table
from beam_jobs.runtime import document_counters
from beam_jobs.runtime.hashed_file import HashingWriter
from beam_jobs.runtime.step_times import TimedDoFn

_UNFINISHED = ".tmp"  # after the name of a shard that is being written


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """A shard to write: the documents of `split` whose order keys lie in the `index`-th of `count`
    equal ranges.

    Where any document of the dataset has a weight, every record holds one, as TensorFlow Datasets
    needs it.
    """

    split: str
    index: int
    count: int
    buckets: tuple[Bucket, ...]
    has_weights: bool


def plan_shards(
    stats: Sequence[BucketStats], output: OutputConfig, num_buckets: int
) -> Iterator[ShardPlan]:
    """The shards of every split, from what the buckets hold."""
    stats = sorted(stats, key=lambda one: one.bucket.index)
    has_weights = any(one.has_weights for one in stats)
    indices = [one.bucket.index for one in stats]
    for i, split in enumerate(SPLITS):
        split_bytes = sum(int(one.bytes[i]) for one in stats)
        count = output.shards or max(1, -(-split_bytes // output.shard_bytes))
        for index in range(count):
            # Both buckets and shards divide the range of order keys in equal parts; a shard reads
            # the buckets that it overlaps.
            start = bisect.bisect_left(indices, index * num_buckets // count)
            end = bisect.bisect_left(indices, -(-(index + 1) * num_buckets // count))
            buckets = tuple(one.bucket for one in stats[start:end])
            yield ShardPlan(split, index, count, buckets, has_weights)


@dataclasses.dataclass
class WriteShards(beam.PTransform):
    """BucketStats -> (split, index, ShardInfo) of every shard.

    Attributes:
      write_shard: writes one.
      output: how many shards there are.
      num_buckets: of all documents, also the empty ones.
    """

    write_shard: "WriteShard"
    output: OutputConfig
    num_buckets: int

    def expand(self, stats):
        return (
            stats.pipeline
            | "Start" >> beam.Create([None])
            | "PlanShards"
            >> beam.FlatMap(
                lambda _, stats: plan_shards(stats, self.output, self.num_buckets), AsList(stats)
            )
            | "SpreadShards" >> beam.Reshuffle()
            | "WriteShard" >> beam.ParDo(TimedDoFn("write", self.write_shard))
            | "SpreadWritten" >> beam.Reshuffle()
            | "CheckShard" >> beam.ParDo(TimedDoFn("check", CheckShard(self.write_shard.directory)))
        )


@dataclasses.dataclass
class WriteShard(beam.DoFn):
    """ShardPlan -> (split, index, ShardInfo)."""

    name: str
    directory: str
    record_spec: RecordSpec
    compression: Literal["none", "gzip"]

    def process(self, plan: ShardPlan) -> Iterator[tuple[str, int, ShardInfo]]:
        file = shard_name(self.name, plan.split, plan.index, plan.count, self.compression)
        examples = 0
        with places.create(places.join(self.directory, file)) as stream:
            writer = HashingWriter(stream)
            with self._compressed(writer) as target:
                for bucket in plan.buckets:
                    for record in self._records(plan, bucket):
                        target.write(frame(record))
                        examples += 1
        sha256 = writer.digest.hexdigest()
        info = ShardInfo(file=file, bytes=writer.size, sha256=sha256, examples=examples)
        document_counters.increment(written=examples)
        yield plan.split, plan.index, info

    def _compressed(self, stream: HashingWriter) -> contextlib.AbstractContextManager:
        if self.compression == "none":
            return contextlib.nullcontext(stream)
        # Without a name and a time the bytes are the same in every run.
        return gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0)

    def _records(self, plan: ShardPlan, bucket: Bucket) -> Iterator[bytes]:
        table = read_table(bucket.path)
        in_split = table["split"].to_numpy() == SPLITS.index(plan.split)
        in_shard = shard_of(order_keys(table["digest"]), plan.count) == plan.index
        table = table.filter(pa.array(in_split & in_shard))
        columns = {"id": table["id"], "labels": table["labels"]}
        for column, features in (
            ("texts", self.record_spec.text_names),
            ("metadata", self.record_spec.metadata_names),
        ):
            for i, feature in enumerate(features):
                columns[feature] = pc.list_element(table[column], i).cast(pa.large_binary())
        if plan.has_weights:
            columns["weight"] = table["weight"]
        for values in zip(*(column.to_pylist() for column in columns.values()), strict=True):
            yield self.record_spec.encode(dict(zip(columns, values, strict=True)))


@dataclasses.dataclass
class CheckShard(beam.DoFn):
    """(split, index, ShardInfo) -> the same, once the file is read again and is as it says.

    Other attempts at the shard may have written it too.
    """

    directory: str

    def process(self, element: tuple[str, int, ShardInfo]) -> Iterator[tuple[str, int, ShardInfo]]:
        info = element[2]
        found = file_info(self.directory, info.file)
        if (found.bytes, found.sha256) != (info.bytes, info.sha256):
            raise RuntimeError(
                f"{places.join(self.directory, info.file)} has {found.bytes:,} bytes and SHA-256 "
                f"{found.sha256}, expected {info.bytes:,} and {info.sha256}, as they were written"
            )
        yield element


def written_shards(directory: Path) -> list[Path]:
    """The shards that are finished in a local directory."""
    return [path for path in directory.glob(SHARD_PATTERN) if path.suffix != _UNFINISHED]


def shard_of(keys: np.ndarray, count: int) -> np.ndarray:
    """uint64 [documents] order keys -> the index of each one's shard, of `count`.

    It grows with the key.
    """
    return ((keys >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)
