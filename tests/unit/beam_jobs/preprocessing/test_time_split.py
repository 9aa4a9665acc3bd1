"""The split by time in fractions: cuts against a plain search."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.sections.splits import TimeFractionSplits
from beam_jobs.preprocessing.time_split import find_cuts


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    train=st.integers(1, 10),
    validation=st.integers(0, 9),
)
def test_cuts_lie_between_times_and_are_nearest_to_the_fractions(counts, train, validation):
    validation = min(validation, 10 - train)
    splits = TimeFractionSplits(
        method="time_fractions",
        train=train / 10,
        validation=validation / 10,
        test=(10 - train - validation) / 10,
    )
    times = np.arange(len(counts), dtype=np.int64) * 7 - 20
    first, second = find_cuts(times, np.array(counts), splits)
    assert first <= second
    by_document = np.repeat(times, counts)
    for cut, fraction in ((first, splits.train), (second, splits.train + splits.validation)):
        nearest = min(
            abs((by_document < end).sum() - fraction * len(by_document)) for end in [*times, 10**9]
        )
        assert abs((by_document < cut).sum() - fraction * len(by_document)) == pytest.approx(
            nearest
        )
