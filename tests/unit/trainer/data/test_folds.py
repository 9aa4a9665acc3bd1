"""Folds: which shards a run validates on, in each repeat."""

import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import ShardInfo, SplitInfo
from trainer.data.dataset import Dataset
from trainer.data.folds import take_fold


class FakeManifest(types.SimpleNamespace):
    def model_copy(self, update):
        return FakeManifest(**(vars(self) | update))


def dataset_of(sizes):
    """A dataset with shards of these sizes; a third of them are those of the validation split."""
    shards = {"train": [], "validation": [], "test": []}
    for i, size in enumerate(sizes):
        split = "validation" if i % 3 == 2 else "train"
        info = ShardInfo(file=f"x-{split}-{i}", examples=size, bytes=size, sha256="0" * 64)
        shards[split].append(info)
    splits = {
        name: SplitInfo(
            examples=sum(shard.examples for shard in infos),
            shards=tuple(infos),
            token_length_quantiles={},
        )
        for name, infos in shards.items()
    }
    return Dataset(Path("d"), FakeManifest(splits=splits))


def files_of(dataset, split):
    return [shard.file for shard in dataset.manifest.splits[split].shards]


def partition(dataset, folds, repeat):
    """By fold, the files that it validates on."""
    return [
        files_of(take_fold(dataset, fold=fold, folds=folds, repeat=repeat), "validation")
        for fold in range(folds)
    ]


@given(
    sizes=st.lists(st.integers(0, 500), min_size=6, max_size=30),
    folds=st.integers(2, 5),
    repeat=st.integers(0, 3),
)
def test_each_shard_is_in_one_fold_of_every_repeat(sizes, folds, repeat):
    dataset = dataset_of([*sizes, 7, 8, 9, 10, 11])
    pool = {
        shard.file
        for split in ("train", "validation")
        for shard in dataset.manifest.splits[split].shards
        if shard.examples
    }
    validated = partition(dataset, folds, repeat)
    assert sorted(file for files in validated for file in files) == sorted(pool)
    assert all(validated)
    for fold, files in enumerate(validated):
        of_fold = take_fold(dataset, fold=fold, folds=folds, repeat=repeat)
        assert set(files_of(of_fold, "train")) == pool - set(files)
        for split in ("train", "validation"):
            shards = of_fold.manifest.splits[split].shards
            assert of_fold.num_examples(split) == sum(shard.examples for shard in shards)
    # A fold has no more than the smallest one and the largest shard.
    totals = [
        take_fold(dataset, fold=i, folds=folds, repeat=repeat).num_examples("validation")
        for i in range(folds)
    ]
    assert max(totals) - min(totals) <= max([*sizes, 11])


def test_repeats_have_different_folds_and_repeat_0_those_of_the_sizes():
    # Distinct sizes: an order of shards that is shuffled before they are sorted by size would
    # change nothing.
    dataset = dataset_of([100, 101, 102, 103, 104, 105, 106, 107])
    assert partition(dataset, 2, 0) == [
        ["x-train-0", "x-train-3", "x-train-4", "x-train-7"],
        ["x-train-1", "x-train-6", "x-validation-2", "x-validation-5"],
    ]
    assert partition(dataset, 2, 0) == partition(dataset, 2, 0)
    halves = {frozenset(map(frozenset, partition(dataset, 2, repeat))) for repeat in range(6)}
    assert len(halves) >= 5


def test_more_folds_than_shards_with_documents_are_refused():
    with pytest.raises(
        UserError, match=r"train.folds: received 3, and .* have 2 shards .*output.shards=3 or more"
    ):
        take_fold(dataset_of([5, 0, 5]), fold=0, folds=3)
