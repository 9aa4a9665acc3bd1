"""Histograms, against plain Python."""

import collections

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.manifest import SPLITS
from beam_jobs.preprocessing.histograms import QUANTILES, Histogram

documents = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=60)


def histogram_of(rows: list[tuple[int, int]]) -> Histogram:
    return Histogram.of(*np.array(rows, np.int64).reshape(-1, 2).T)


@given(rows=documents)
def test_quantiles_are_numbers_with_at_least_that_part_of_all_at_or_below(rows):
    histogram = histogram_of(rows)
    for split in range(len(SPLITS)):
        ordered = sorted(number for own, number in rows if own == split)
        expected = [ordered[max(0, -int(-q * len(ordered) // 1) - 1)] for q in QUANTILES if ordered]
        assert list(histogram.quantiles(split).values()) == expected
        assert histogram.total(split) == len(ordered)
        assert histogram.mean(split) == sum(ordered) / max(len(ordered), 1)


@given(parts=st.lists(documents, max_size=4))
def test_a_sum_is_the_histogram_of_all_documents(parts):
    found = Histogram.sum(map(histogram_of, parts))
    expected = histogram_of([row for rows in parts for row in rows])
    assert found.numbers.tolist() == expected.numbers.tolist()
    assert found.documents.tolist() == expected.documents.tolist()


def test_a_histogram_is_as_large_as_the_numbers_that_occur_are_many():
    rows = [(0, 10_000_000), (1, 7), (1, 7)]
    histogram = Histogram.sum([histogram_of(rows)] * 3)
    assert histogram.numbers.tolist() == [7, 10_000_000]
    assert histogram.documents.tolist() == [[0, 3], [6, 0], [0, 0]]
    assert collections.Counter(histogram.quantiles(1).values()) == {7: len(QUANTILES)}
