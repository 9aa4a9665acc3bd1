"""Synthetic texts of a model's vocabulary, to warm a model up with and to measure its speed."""

from collections.abc import Sequence

import numpy as np

NUM_TEXTS = 256
WORDS_PER_TEXT = 100


def synthetic_texts(vocabulary: Sequence[str]) -> list[str]:
    """256 texts of 100 words, the same in every run; the frequency of words follows Zipf's law.

    Args:
      vocabulary: tokens, most frequent first.
    """
    ranks = np.arange(1, len(vocabulary) + 1)
    probabilities = (1 / ranks) / (1 / ranks).sum()
    ids = np.random.default_rng(0).choice(
        len(vocabulary), (NUM_TEXTS, WORDS_PER_TEXT), p=probabilities
    )
    return [" ".join(vocabulary[i] for i in row) for row in ids]


def columns_of(texts: Sequence[str], text_fields: Sequence[str]) -> dict[str, list[str]]:
    """The texts by field: the words of each are divided among the fields, in order."""
    num_fields = len(text_fields)
    columns: dict[str, list[str]] = {field: [] for field in text_fields}
    for text in texts:
        words = text.split()
        for i, field in enumerate(text_fields):
            start, end = len(words) * i // num_fields, len(words) * (i + 1) // num_fields
            columns[field].append(" ".join(words[start:end]))
    return columns
