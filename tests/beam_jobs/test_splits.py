"""Splits: sizes as the fractions say, decided by each document's own key alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.config import SplitsConfig
from beam_jobs.contract.manifest import SPLITS
from beam_jobs.splits import assign

LARGEST = np.uint64(2**64 - 1)


@st.composite
def fractions(draw) -> SplitsConfig:
    parts = draw(st.tuples(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100)))
    return SplitsConfig(**{name: part / sum(parts) for name, part in zip(SPLITS, parts, strict=True)})


@given(splits=fractions(), seed=st.integers(0, 2**32))
def test_sizes_stay_within_six_standard_deviations_of_the_fractions(splits, seed):
    documents = 20_000
    keys = np.random.default_rng(seed).integers(0, LARGEST, documents, np.uint64, endpoint=True)
    sizes = np.bincount(assign(keys, splits), minlength=3)
    for name, size in zip(SPLITS, sizes, strict=True):
        fraction = getattr(splits, name)
        assert abs(size - fraction * documents) <= 6 * np.sqrt(documents * fraction * (1 - fraction)) + 1e-6


@given(splits=fractions(), keys=st.lists(st.integers(0, 2**64 - 1), max_size=20), order=st.randoms())
def test_a_documents_split_does_not_depend_on_the_documents_around_it(splits, keys, order):
    alone = {key: int(assign(np.array([key], np.uint64), splits)[0]) for key in keys}
    order.shuffle(keys)
    assert assign(np.array(keys, np.uint64), splits).tolist() == [alone[key] for key in keys]


def test_the_ends_of_the_range_of_keys_and_empty_splits():
    ends = np.array([0, LARGEST], np.uint64)
    assert assign(ends, SplitsConfig(train=0.8, validation=0.1, test=0.1)).tolist() == [0, 2]
    assert assign(ends, SplitsConfig(train=1.0, validation=0.0, test=0.0)).tolist() == [0, 0]
    assert assign(ends, SplitsConfig(train=0.5, validation=0.5, test=0.0)).tolist() == [0, 1]
    assert assign(ends, SplitsConfig(train=0.5, validation=0.0, test=0.5)).tolist() == [0, 2]
    assert assign(np.array([1 << 63, (1 << 63) - (1 << 11)], np.uint64), SplitsConfig(train=0.5, validation=0.5, test=0.0)).tolist() == [1, 0]


def test_a_larger_train_fraction_moves_documents_into_train_only():
    keys = np.random.default_rng(0).integers(0, LARGEST, 1000, np.uint64)
    before = assign(keys, SplitsConfig(train=0.5, validation=0.2, test=0.3)) == 0
    after = assign(keys, SplitsConfig(train=0.7, validation=0.2, test=0.1)) == 0
    assert before.sum() < after.sum() and not np.any(before & ~after)
