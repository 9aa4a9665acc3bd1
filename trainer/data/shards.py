"""Shards: which worker reads which, and which are corrupt."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import ShardInfo
from beam_jobs.contract.tfrecord import CorruptRecord, read_records
from trainer.data.dataset import Dataset

SHUFFLE_BYTES = 1 << 30  # 1 GiB of records wait in a worker's shuffle buffer, at most
_GZIP_EXPANSION = 3  # text is about so many times as large as its gzip
# Workers share out whole shards if none then has to take more steps than this fraction above the
# mean.
MAX_IMBALANCE = 0.05


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """How a split is divided among workers.

    Attributes:
      steps: steps that see every example once; the same on every worker, because each step waits
        for all workers.
      by_file: by worker: paths of the shards it reads. None: each worker reads all shards and takes
        its share of every step, so that a step's examples do not depend on the number of workers.
    """

    steps: int
    by_file: tuple[tuple[str, ...], ...] | None

    @property
    def order(self) -> str:
        """What decides which examples a step holds, besides seed and epoch."""
        return "by example" if self.by_file is None else f"by file over {len(self.by_file)} workers"


def num_steps(examples: int, global_batch_size: int) -> int:
    """Steps that see every example once; the last batch is padded."""
    return -(-examples // global_batch_size)


def plan_split(
    dataset: Dataset,
    split: str,
    *,
    num_workers: int,
    global_batch_size: int,
    shard_by: str = "auto",
) -> SplitPlan:
    """Divides a split among workers, by the manifest's counts.

    Args:
      dataset: the dataset.
      split: one of its splits.
      num_workers: workers, each with the same number of replicas.
      global_batch_size: examples a step, over all workers.
      shard_by: "file", "example", or "auto": by file if every worker gets shards and their counts
        are close to equal.
    """
    steps = num_steps(dataset.num_examples(split), global_batch_size)
    if num_workers == 1 or shard_by == "example":
        return SplitPlan(steps, None)
    sizes = [shard.examples for shard in dataset.manifest.splits[split].shards]
    shares = assign_shards(sizes, num_workers)
    largest = max(sum(sizes[i] for i in share) for share in shares)
    if shard_by == "auto" and (
        not all(shares) or largest > (1 + MAX_IMBALANCE) * sum(sizes) / num_workers
    ):
        return SplitPlan(steps, None)
    paths = dataset.shards(split)
    return SplitPlan(
        num_steps(largest, global_batch_size // num_workers),
        tuple(tuple(paths[i] for i in share) for share in shares),
    )


def shuffled_at_once(shards: Sequence[ShardInfo], documents: int) -> int:
    """Documents in a shuffle buffer: as many as are asked for, but no more than SHUFFLE_BYTES hold.

    Args:
      shards: of the split that is shuffled; their mean document counts.
      documents: how many are asked for.
    """
    examples = sum(shard.examples for shard in shards)
    size = sum(
        shard.bytes * (_GZIP_EXPANSION if shard.file.endswith(".gz") else 1) for shard in shards
    )
    return max(1, min(documents, SHUFFLE_BYTES * examples // size)) if size else documents


def assign_shards(
    sizes: Sequence[int], num_groups: int, *, order: Sequence[int] | None = None
) -> list[list[int]]:
    """Assigns each non-empty shard to one group, so that groups are close to equal (Graham 1969).

    One shard after the other is assigned to the group that has the fewest examples so far.

    Args:
      sizes: examples of each shard.
      num_groups: number of groups, such as workers or folds.
      order: indices of all shards in the order in which they are assigned; None: the largest first
        (Graham's LPT rule).

    Returns:
      By group: the indices of its shards, rising.
    """
    if order is None:
        order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    groups: list[list[int]] = [[] for _ in range(num_groups)]
    totals = [0] * num_groups
    for i in order:
        if sizes[i]:
            smallest = totals.index(min(totals))
            groups[smallest].append(i)
            totals[smallest] += sizes[i]
    return [sorted(group) for group in groups]


# --- corruption ------------------------------------------------------------------------


def first_corruption(path: str | Path) -> CorruptRecord | None:
    """The first record of a TFRecord file that is corrupt; None: the file is sound."""
    try:
        for _ in read_records(path):
            pass
    except CorruptRecord as error:
        return error
    return None


def describe_corruption(dataset: Dataset, split: str) -> list[str]:
    """The file, offset and fault of each corrupt shard of a split. Reads the whole split."""
    corruptions = {path: first_corruption(path) for path in dataset.fetch(dataset.shards(split))}
    return [
        f"{path}: the record at byte {corrupt.offset:,} {corrupt.fault}"
        for path, corrupt in corruptions.items()
        if corrupt
    ]


@contextlib.contextmanager
def explain_corrupt_shards(dataset: Dataset, split: str) -> Iterator[None]:
    """Turns TensorFlow's DataLossError, which names no file, into a UserError that does; and the
    error for a file that is gone.
    """
    try:
        yield
    except tf.errors.NotFoundError:
        missing = [path for path in map(str, dataset.shards(split)) if not tf.io.gfile.exists(path)]
        if not missing:
            raise
        raise UserError(
            f"{missing[0]} is gone: the dataset is damaged, or was replaced while it was read; "
            "expected what the preprocessing wrote: run it again with --force"
        ) from None
    except tf.errors.DataLossError as error:
        faults = describe_corruption(dataset, split) or [f"{dataset.directory}: {error.message}"]
        advice = "expected what the preprocessing wrote: run it again with --force"
        if split == "train":
            advice += ", or set train.on_corrupt=skip to skip what follows in a corrupt shard"
        raise UserError("\n  ".join(["the dataset is damaged", *faults, advice])) from None
