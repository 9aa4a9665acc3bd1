"""Splits: sizes as the fractions say, over all documents or, stratified, for every label."""

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import SPLITS
from beam_jobs.contract.sections.splits import (
    ColumnSplits,
    FileSplits,
    HashSplits,
    StratifiedSplits,
    TimeFractionSplits,
    TimeSplits,
)
from beam_jobs.preprocessing.splits import (
    NoSplit,
    assign,
    check_file_patterns,
    source_split,
    stratify,
    time_us,
)
from beam_jobs.sources.documents import Document
from tests.zipf_labels import made_labels

LARGEST = np.uint64(2**64 - 1)


def by_key(keys, splits) -> np.ndarray:
    keys = np.asarray(keys, np.uint64)
    return assign(keys, pa.nulls(len(keys), pa.int8()), splits).to_numpy()


@st.composite
def fractions(draw) -> HashSplits:
    parts = draw(st.tuples(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100)))
    return HashSplits(**{name: part / sum(parts) for name, part in zip(SPLITS, parts, strict=True)})


# --- by a hash -------------------------------------------------------------------------


@given(splits=fractions(), seed=st.integers(0, 2**32))
def test_sizes_stay_within_six_standard_deviations_of_the_fractions(splits, seed):
    documents = 20_000
    keys = np.random.default_rng(seed).integers(0, LARGEST, documents, np.uint64, endpoint=True)
    sizes = np.bincount(by_key(keys, splits), minlength=3)
    for name, size in zip(SPLITS, sizes, strict=True):
        fraction = getattr(splits, name)
        assert (
            abs(size - fraction * documents)
            <= 6 * np.sqrt(documents * fraction * (1 - fraction)) + 1e-6
        )


@given(
    splits=fractions(),
    keys=st.lists(st.integers(0, 2**64 - 1), max_size=20),
    order=st.randoms(),
)
def test_a_documents_split_does_not_depend_on_the_documents_around_it(splits, keys, order):
    alone = {key: int(by_key([key], splits)[0]) for key in keys}
    order.shuffle(keys)
    assert by_key(keys, splits).tolist() == [alone[key] for key in keys]


def test_the_ends_of_the_range_of_keys_and_empty_splits():
    ends = np.array([0, LARGEST], np.uint64)
    assert by_key(ends, HashSplits(train=0.8, validation=0.1, test=0.1)).tolist() == [0, 2]
    assert by_key(ends, HashSplits(train=1.0, validation=0.0, test=0.0)).tolist() == [0, 0]
    assert by_key(ends, HashSplits(train=0.5, validation=0.5, test=0.0)).tolist() == [0, 1]
    assert by_key(ends, HashSplits(train=0.5, validation=0.0, test=0.5)).tolist() == [0, 2]
    assert by_key(
        [1 << 63, (1 << 63) - (1 << 11)], HashSplits(train=0.5, validation=0.5, test=0.0)
    ).tolist() == [1, 0]


def test_a_larger_train_fraction_moves_documents_into_train_only():
    keys = np.random.default_rng(0).integers(0, LARGEST, 1000, np.uint64)
    before = by_key(keys, HashSplits(train=0.5, validation=0.2, test=0.3)) == 0
    after = by_key(keys, HashSplits(train=0.7, validation=0.2, test=0.1)) == 0
    assert before.sum() < after.sum() and not np.any(before & ~after)


# --- as the source says ----------------------------------------------------------------


def document(**values) -> Document:
    return Document(
        **{"id": "1", "texts": ("x",), "labels": (), "weight": 1.0, "source": "a.jsonl", "row": 1}
        | values
    )


@pytest.mark.parametrize(
    ("values", "splits", "expected"),
    [
        ({"split": "train"}, ColumnSplits(method="column"), 0),
        ({"split": "dev"}, ColumnSplits(method="column"), 1),
        ({"split": "te"}, ColumnSplits(method="column", test=("te",)), 2),
        (
            {"source": "corpus/dev-1.jsonl"},
            FileSplits(method="files", validation=("*dev*",), test=("*test*",)),
            1,
        ),
        (
            {"source": "corpus/dev-test.jsonl"},
            FileSplits(method="files", validation=("*dev*",), test=("*test*",)),
            2,
        ),
        (
            {"source": "corpus/Dev.jsonl"},
            FileSplits(method="files", validation=("*dev*",), test=()),
            0,
        ),
        (
            {"source": "/data/dev.jsonl"},
            FileSplits(method="files", validation=("dev.jsonl",), test=()),
            1,
        ),
        (
            {"source": "a/dev.jsonl"},
            FileSplits(method="files", validation=("b/dev.jsonl",), test=("a/[dt]*",)),
            2,
        ),
        (
            {"source": "test[1].jsonl"},
            FileSplits(method="files", validation=(), test=("test[1].jsonl",)),
            2,
        ),
        (
            {"time": "2023-12-31T23:59:59Z"},
            TimeSplits(method="time", validation_from="2024-01-01", test_from="2024-02-01"),
            0,
        ),
        (
            {"time": "2024-01-01"},
            TimeSplits(method="time", validation_from="2024-01-01", test_from="2024-02-01"),
            1,
        ),
        (
            {"time": "2024-02-01T00:30:00+01:00"},
            TimeSplits(method="time", validation_from="2024-01-01", test_from="2024-02-01"),
            1,
        ),
        (
            {"time": "2024-02-01 00:00:00"},
            TimeSplits(method="time", validation_from="2024-01-01", test_from="2024-02-01"),
            2,
        ),
        ({"split": "test"}, HashSplits(), None),
        ({"split": "test"}, StratifiedSplits(method="stratified"), None),
        ({"time": "2024-01-01"}, TimeFractionSplits(method="time_fractions"), None),
    ],
)
def test_the_split_that_the_source_gives(values, splits, expected):
    assert source_split(document(**values), splits) == expected


def test_patterns_of_files_that_match_nothing_are_the_users_error():
    splits = FileSplits(method="files", validation=("dev.jsonl",), test=("*tset*",))
    files = ["a/train.jsonl", "a/dev.jsonl", *(f"a/test{i}.jsonl" for i in range(10))]
    with pytest.raises(
        UserError, match=r"splits.test: '\*tset\*' matches none of the 12 input.*"
    ) as e:
        check_file_patterns(splits, files)
    assert "a/train.jsonl, a/dev.jsonl, a/test0.jsonl" in str(e.value)
    assert "a/test7.jsonl and 2 more; expected a file's name" in str(e.value)
    check_file_patterns(splits.model_copy(update={"test": ("test*",)}), files)
    check_file_patterns(HashSplits(), [])


@pytest.mark.parametrize(
    ("values", "splits", "expected"),
    [
        ({"time": "1969-12-31T23:59:59.999999Z"}, TimeFractionSplits(method="time_fractions"), -1),
        (
            {"time": "1970-01-02T01:00:00+01:00"},
            TimeFractionSplits(method="time_fractions"),
            86_400_000_000,
        ),
        ({"time": "yesterday"}, HashSplits(), None),
    ],
)
def test_the_time_in_microseconds(values, splits, expected):
    assert time_us(document(**values), splits) == expected


def test_the_sources_split_is_assigned_where_it_decides():
    given = pa.chunked_array([pa.array([2, 0, 1], pa.int8())])
    keys = np.zeros(3, np.uint64)
    assert assign(keys, given, ColumnSplits(method="column")).to_pylist() == [2, 0, 1]
    nulls = pa.chunked_array([pa.nulls(3, pa.int8())])
    for splits in (
        StratifiedSplits(method="stratified"),
        TimeFractionSplits(method="time_fractions"),
    ):
        assert assign(keys, nulls, splits).null_count == 3


@pytest.mark.parametrize(
    ("values", "splits", "message"),
    [
        (
            {"split": "holdout"},
            ColumnSplits(method="column"),
            "received the split 'holdout', expected one of .*'train', 'validation'",
        ),
        ({}, ColumnSplits(method="column"), "received the split None"),
        (
            {"time": "yesterday"},
            TimeSplits(method="time", validation_from="2024-01-01", test_from="2024-02-01"),
            "'yesterday', expected ISO 8601",
        ),
        (
            {},
            TimeSplits(method="time", validation_from="2024-01-01", test_from="2024-02-01"),
            "received the time None",
        ),
        (
            {"time": "soon"},
            TimeFractionSplits(method="time_fractions"),
            "received the time 'soon', expected ISO 8601",
        ),
        (
            {"time": "1700000000"},
            TimeFractionSplits(method="time_fractions"),
            "or a number and data.time_format; as seconds since 1970 it would be 2023-11-14",
        ),
        (
            {"time": "1700000000000.0"},
            TimeFractionSplits(method="time_fractions"),
            "; as milliseconds since 1970 it would be 2023-11-14",
        ),
        (
            {"time": "1.7e15"},
            TimeFractionSplits(method="time_fractions"),
            "; as microseconds since 1970 it would be 2023-11-14",
        ),
    ],
)
def test_a_document_without_a_split_is_an_error(values, splits, message):
    with pytest.raises(NoSplit, match=message):
        source_split(document(**values), splits)
        time_us(document(**values), splits)


# --- stratified ------------------------------------------------------------------------


def table_of(rows: list[list[int]], splits: np.ndarray, labels: int) -> np.ndarray:
    """[labels, splits]: documents with each label in each split."""
    flat = np.concatenate([*(np.array(row, np.int64) for row in rows), np.zeros(0, np.int64)])
    where = np.repeat(splits, [len(row) for row in rows]).astype(np.int64)
    return np.bincount(flat * len(SPLITS) + where, minlength=labels * len(SPLITS)).reshape(
        labels, len(SPLITS)
    )


def stratified(
    rows: list[list[int]], labels: int, splits: StratifiedSplits, seed: int = 0
) -> np.ndarray:
    keys = np.random.default_rng(seed).integers(0, LARGEST, len(rows), np.uint64)
    return stratify(
        rows, keys, np.bincount(np.concatenate(rows).astype(np.int64), minlength=labels), splits
    )


def test_every_label_is_in_every_split_in_proportion_and_100_000_documents_take_seconds():
    rows = made_labels(100_000, 1000, seed=0)
    started = time.process_time()
    splits = stratified(rows, 1000, StratifiedSplits(method="stratified"))
    assert time.process_time() - started < 30  # 2 s
    table = table_of(rows, splits, 1000)
    expected = table.sum(axis=1, keepdims=True) * np.array([0.8, 0.1, 0.1])
    assert np.abs(table - expected).max() < 1  # a split by hash is off by 90 here
    assert np.all(np.abs(np.bincount(splits) / len(splits) - [0.8, 0.1, 0.1]) < 0.002)


def test_rare_labels_that_hang_together_stay_within_a_document_or_two():
    rows = made_labels(5000, 800, seed=1)
    table = table_of(rows, stratified(rows, 800, StratifiedSplits(method="stratified")), 800)
    counts = table.sum(axis=1)
    missing = (table[counts >= 10] == 0).any(axis=1).mean()
    by_hash = table_of(
        rows,
        by_key(np.random.default_rng(0).integers(0, LARGEST, 5000, np.uint64), HashSplits()),
        800,
    )
    assert missing < 0.01 < 0.2 < (by_hash[counts >= 10] == 0).any(axis=1).mean()


def label_distribution_error(rows: list[list[int]], splits: np.ndarray, labels: int) -> float:
    """Sechidis et al. (2011), equation 2: each label's odds in a split against its odds in all."""
    table, sizes = table_of(rows, splits, labels), np.bincount(splits)
    odds = table.sum(axis=1) / (len(rows) - table.sum(axis=1))
    return float(np.abs(table / (sizes - table) - odds[:, None]).mean())


def test_the_label_distribution_error_is_below_that_of_scikit_multilearn():
    model_selection = pytest.importorskip("skmultilearn.model_selection")
    rows = made_labels(10_000, 1000, seed=0)
    dense = np.zeros((len(rows), 1000))
    for i, row in enumerate(rows):
        dense[i, row] = 1
    np.random.seed(0)  # it takes its randomness from there
    folds = model_selection.IterativeStratification(
        n_splits=3, order=1, sample_distribution_per_fold=[0.8, 0.1, 0.1]
    )
    theirs = np.empty(len(rows), np.int64)
    for split, (_, inside) in enumerate(folds.split(np.zeros((len(rows), 1)), dense)):
        theirs[inside] = split
    ours = stratified(rows, 1000, StratifiedSplits(method="stratified"))
    assert label_distribution_error(rows, ours, 1000) < 0.7 * label_distribution_error(
        rows, theirs, 1000
    )


@pytest.mark.parametrize("count", [10, 20, 50])
def test_a_label_with_ten_documents_is_in_every_split_in_proportion(count):
    rows = [[0]] * count + [[1]] * 1000 + [[]] * 100
    table = table_of(rows, stratified(rows, 2, StratifiedSplits(method="stratified")), 2)
    assert table[0].tolist() == [count * 8 // 10, count // 10, count // 10]
    assert table[1].tolist() == [800, 100, 100]


@given(seed=st.integers(0, 99), order=st.randoms())
def test_stratified_splits_depend_on_no_order_of_documents_or_labels(seed, order):
    rows = made_labels(60, 20, seed=seed)
    keys = np.random.default_rng(seed).integers(0, LARGEST, len(rows), np.uint64)
    frequencies = np.bincount(np.concatenate(rows), minlength=20)
    splits = StratifiedSplits(method="stratified", train=0.6, validation=0.4, test=0)
    expected = dict(
        zip(keys.tolist(), stratify(rows, keys, frequencies, splits).tolist(), strict=True)
    )
    places = list(range(len(rows)))
    order.shuffle(places)
    shuffled = stratify([rows[i][::-1] for i in places], keys[places], frequencies, splits)
    assert [expected[key] for key in keys[places].tolist()] == shuffled.tolist()
    assert 2 not in shuffled  # a split of fraction 0 stays empty
