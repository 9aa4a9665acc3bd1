"""Documents -> shards: TFRecord files, close to equal in size, in the order of a hash of the document."""

import bisect
import contextlib
import dataclasses
import gzip
from collections.abc import Iterator, Sequence
from typing import Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.dataset_config import OutputConfig
from beam_jobs.contract.manifest import SPLITS, ShardInfo, shard_name
from beam_jobs.contract.records import RecordSpec
from beam_jobs.contract.tfrecord import frame
from beam_jobs.preprocessing.buckets import Bucket, order_keys, read_table
from beam_jobs.preprocessing.tally import Tally, select
from beam_jobs.runtime.hashed_file import HashingWriter


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """One shard to write: the documents of `split` whose order key lies in the index-th of `count` equal ranges.

    Where any document of the dataset has a weight, every record holds its own, as TensorFlow Datasets wants.
    """

    split: str
    index: int
    count: int
    buckets: tuple[Bucket, ...]
    has_weights: bool


def plan_shards(
    tallies: Sequence[Tally], output: OutputConfig, num_buckets: int
) -> Iterator[ShardPlan]:
    """The shards of every split, from what all buckets hold."""
    tallies = sorted(tallies, key=lambda tally: tally.bucket.index)
    has_weights = any(tally.has_weights for tally in tallies)
    indices = [tally.bucket.index for tally in tallies]
    for i, split in enumerate(SPLITS):
        split_bytes = sum(int(tally.bytes[i]) for tally in tallies)
        count = output.shards or max(1, -(-split_bytes // output.shard_bytes))
        for index in range(count):
            # Buckets and shards both cut the range of order keys in equal parts; a shard reads the buckets it overlaps.
            start = bisect.bisect_left(indices, index * num_buckets // count)
            end = bisect.bisect_left(indices, -(-(index + 1) * num_buckets // count))
            yield ShardPlan(
                split,
                index,
                count,
                tuple(tally.bucket for tally in tallies[start:end]),
                has_weights,
            )


@dataclasses.dataclass
class WriteShard(beam.DoFn):
    """(ShardPlan, label names) -> (split, index, ShardInfo)."""

    name: str
    directory: str
    record_spec: RecordSpec
    keep_unlabeled: bool
    compression: Literal["none", "gzip"]

    def process(
        self, plan: ShardPlan, label_names: pa.Array
    ) -> Iterator[tuple[str, int, ShardInfo]]:
        file = shard_name(self.name, plan.split, plan.index, plan.count, self.compression)
        examples = 0
        path = FileSystems.join(self.directory, file)
        with FileSystems.create(f"{path}.tmp", mime_type="application/octet-stream") as stream:
            described = HashingWriter(stream)
            with self._compressed(described) as target:
                for bucket in plan.buckets:
                    for record in self._records(plan, bucket, label_names):
                        target.write(frame(record))
                        examples += 1
        if FileSystems.exists(
            path
        ):  # from an earlier attempt at this bundle; its bytes are the same
            FileSystems.delete([path])
        FileSystems.rename([f"{path}.tmp"], [path])
        yield (
            plan.split,
            plan.index,
            ShardInfo(
                file=file,
                bytes=described.size,
                sha256=described.digest.hexdigest(),
                examples=examples,
            ),
        )

    def _compressed(self, stream: "HashingWriter") -> contextlib.AbstractContextManager:
        if self.compression == "none":
            return contextlib.nullcontext(stream)
        return gzip.GzipFile(
            filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0
        )  # no name and no time: the same bytes

    def _records(self, plan: ShardPlan, bucket: Bucket, label_names: pa.Array) -> Iterator[bytes]:
        merged = read_table(bucket.path)
        in_split = merged["split"].to_numpy() == SPLITS.index(plan.split)
        merged = merged.filter(
            pa.array(in_split & (shard_of(order_keys(merged["digest"]), plan.count) == plan.index))
        )
        columns = select(merged, label_names, keep_unlabeled=self.keep_unlabeled).to_pydict()
        names = (*self.record_spec.text_names, *self.record_spec.metadata_names)
        for name, text, metadata, labels, weight in zip(
            *(columns[key] for key in ("id", "text", "metadata", "labels", "weight")), strict=True
        ):
            values = {"id": name, "labels": labels}
            for feature, value in zip(names, (*text.split("\n"), *metadata), strict=True):
                values[feature] = value.encode()
            yield self.record_spec.encode(
                values | {"weight": weight} if plan.has_weights else values
            )


def shard_of(keys: np.ndarray, count: int) -> np.ndarray:
    """uint64 order keys [documents] -> the index of the shard, of `count`, that each is in; grows with the key."""
    return ((keys >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)
