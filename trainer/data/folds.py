"""Folds of a dataset, for repeated runs: each run validates on a fold and trains on the others."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import ShardInfo, SplitInfo
from trainer.data.dataset import Dataset, compression_of
from trainer.data.shards import assign_shards, explain_corrupt_shards


class FoldDataset(Dataset):
    """A dataset whose train and validation splits are shared out anew; test split, labels and vocabulary stay.

    A fold is some of the shards of the train and validation splits, with close to as many documents as the others. Documents are in shards
    by a hash of their content, so the fold of a document is decided by that too. Vocabulary and document frequencies remain those of the
    train split as it was preprocessed.
    """

    @functools.cached_property
    def labels(self) -> list[dict[str, Any]]:
        """As of `Dataset`, with the positives of the new splits, for which the labels of the fold's records are read."""
        of_fold = self._count_labels(self.shards("validation"))
        rows = []
        for row, own in zip(Dataset.labels.func(self), of_fold.tolist(), strict=True):
            both = row["positives"]["train"] + row["positives"]["validation"]
            rows.append(
                row | {"positives": row["positives"] | {"train": both - own, "validation": own}}
            )
        return rows

    def _count_labels(self, shards: Sequence[str]) -> np.ndarray:
        counts = np.zeros(self.num_labels, np.int64)
        with explain_corrupt_shards(self, "validation"):
            for records in tf.data.TFRecordDataset(
                list(shards), compression_type=compression_of(shards)
            ).batch(4096):
                ids = self.record_spec.parse_batch(records, ["labels"])["labels"].values.numpy()
                counts += np.bincount(ids, minlength=self.num_labels)
        return counts


def take_fold(dataset: Dataset, *, fold: int, folds: int) -> FoldDataset:
    """The dataset that validates on a fold and trains on the others.

    Args:
      dataset: as it was preprocessed.
      fold: from 0.
      folds: their number.

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
            f"train.folds: received {folds}, and the train and validation splits have {len(pool)} shards with documents; "
            f"expected at most as many folds: preprocess again with output.shards={folds} or more"
        )
    held_out = set(assign_shards([shard.examples for shard in pool], folds)[fold])

    def split(shards: list[ShardInfo], like: str) -> SplitInfo:
        return splits[like].model_copy(
            update={"examples": sum(shard.examples for shard in shards), "shards": tuple(shards)}
        )

    new = {
        "train": split([shard for i, shard in enumerate(pool) if i not in held_out], "train"),
        "validation": split([shard for i, shard in enumerate(pool) if i in held_out], "validation"),
    }
    return FoldDataset(
        dataset.directory, dataset.manifest.model_copy(update={"splits": splits | new})
    )


def with_fold_directories(config: Config) -> Config:
    """The config with a run and a model directory of the fold's own, `fold-0` and so on, where `train.fold` is set."""
    name = f"fold-{config.train.fold}"
    if (
        config.train.fold is None or Path(config.train.run_dir).name == name
    ):  # the latter in the config that a run has saved
        return config
    train = config.train.model_copy(update={"run_dir": f"{config.train.run_dir}/{name}"})
    export = config.export.model_copy(update={"model_dir": f"{config.export.model_dir}/{name}"})
    return config.model_copy(update={"train": train, "export": export})
