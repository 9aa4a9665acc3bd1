"""Near-duplicates: MinHash against the exact Jaccard similarity."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.preprocessing.near_duplicates import NUM_HASHES, minhash


def texts_of(texts: list[str]) -> pa.ChunkedArray:
    """A column of documents with two text fields, of which a shingle may be in both."""
    fields = [text.split(" ", 1) if " " in text else [text, ""] for text in texts]
    return pa.chunked_array([pa.array(fields, pa.large_list(pa.large_string()))])


def shingles(text: str, size: int) -> set[tuple[str, ...]]:
    tokens = text.split(" ")
    return {tuple(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1))}


@given(
    texts=st.lists(
        st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40).map(" ".join),
        min_size=2,
        max_size=6,
    ),
    size=st.integers(1, 4),
)
def test_equal_values_estimate_the_similarity_of_the_sets_of_shingles(texts, size):
    values = minhash(texts_of(texts), size)
    for i in range(len(texts)):
        for j in range(i):
            a, b = shingles(texts[i], size), shingles(texts[j], size)
            similarity = len(a & b) / len(a | b)
            estimate = (values[i] == values[j]).mean()
            assert abs(estimate - similarity) <= 6 * np.sqrt(
                similarity * (1 - similarity) / NUM_HASHES
            )


def test_values_do_not_depend_on_the_texts_around_and_there_may_be_none():
    together = minhash(texts_of(["a b c d", "b c d e f", "z"]), 3)
    assert np.array_equal(together[1:2], minhash(texts_of(["b c d e f"]), 3))
    assert minhash(texts_of([]), 3).shape == (0, NUM_HASHES)
