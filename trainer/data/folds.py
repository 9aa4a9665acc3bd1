"""Cross-validation: each run validates on one fold of a dataset and trains on the others."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import ShardInfo, SplitInfo
from trainer.data.dataset import Dataset
from trainer.data.records import read_records
from trainer.data.shards import assign_shards


class FoldDataset(Dataset):
    """A dataset whose train and validation splits are divided anew.

    Test split, labels and vocabulary stay.

    A fold is some of the shards of the train and validation splits, with close to as many documents
    as each other fold. Documents are in shards by a hash of their content, so the fold of a
    document is decided by that too. Vocabulary and document frequencies remain those of the train
    split as it was preprocessed.
    """

    @functools.cached_property
    def labels(self) -> list[dict[str, Any]]:
        """As of `Dataset`, with the counts of the new splits.

        The labels of the fold's records are read to count them.
        """
        rows = []
        for row, validation in zip(
            Dataset.labels.func(self), self._count_labels("validation").tolist(), strict=True
        ):
            train = row["positives"]["train"] + row["positives"]["validation"] - validation
            counts = row["positives"] | {"train": train, "validation": validation}
            rows.append(row | {"positives": counts})
        return rows

    def _count_labels(self, split: str) -> np.ndarray:
        """int64 [labels]: documents of the split with each label."""
        counts = np.zeros(self.num_labels, np.int64)
        for parsed in read_records(self, split, ["labels"]):
            counts += np.bincount(parsed["labels"].values.numpy(), minlength=self.num_labels)
        return counts


def take_fold(dataset: Dataset, *, fold: int, folds: int, repeat: int = 0) -> FoldDataset:
    """The dataset that validates on a fold and trains on the others.

    Args:
      dataset: as it was preprocessed.
      fold: from 0.
      folds: their number.
      repeat: which partition into folds. 0: shards are assigned to folds the largest first;
        otherwise in an order that is shuffled by this number, so that each repeat has other folds.

    Raises:
      UserError: there are fewer shards with documents than folds.
    """
    splits = dataset.manifest.splits
    pool = [
        shard
        for split in ("train", "validation")
        for shard in splits[split].shards
        if shard.examples
    ]
    if len(pool) < folds:
        raise UserError(
            f"train.folds: received {folds}, and the train and validation splits have {len(pool)} "
            "shards with documents; "
            f"expected at most as many folds: preprocess again with output.shards={folds} or more"
        )
    order = _shuffled(pool, repeat) if repeat else None
    held_out = set(assign_shards([shard.examples for shard in pool], folds, order=order)[fold])
    train = [shard for i, shard in enumerate(pool) if i not in held_out]
    validation = [shard for i, shard in enumerate(pool) if i in held_out]
    new_splits = {
        "train": _with_shards(splits["train"], train),
        "validation": _with_shards(splits["validation"], validation),
    }
    manifest = dataset.manifest.model_copy(update={"splits": splits | new_splits})
    return FoldDataset(dataset.directory, manifest, dataset.place)


def _shuffled(pool: Sequence[ShardInfo], repeat: int) -> list[int]:
    """The indices of the shards, in an order that a hash of their names and the repeat decides."""

    def key(index: int) -> bytes:
        return hashlib.blake2b(f"{repeat} {pool[index].file}".encode()).digest()

    return sorted(range(len(pool)), key=key)


def _with_shards(split: SplitInfo, shards: Sequence[ShardInfo]) -> SplitInfo:
    return split.model_copy(
        update={"examples": sum(shard.examples for shard in shards), "shards": tuple(shards)}
    )
