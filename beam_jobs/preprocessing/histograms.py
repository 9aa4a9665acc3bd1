"""Histograms of whole numbers by split: as large as the numbers that occur are many."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from beam_jobs.contract.manifest import SPLITS

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Documents of each split by a whole number of theirs, such as that of their tokens.

    A column for every number up to the largest would be 24 MB for one document of a million
    tokens, in each bucket that has one.

    Attributes:
      numbers: int64 [distinct], those that occur, rising.
      documents: int64 [splits, distinct], documents of each split with each number.
    """

    numbers: np.ndarray
    documents: np.ndarray

    @classmethod
    def of(cls, splits: np.ndarray, numbers: np.ndarray) -> "Histogram":
        """Of the split and the number of each document."""
        return cls._of(splits, numbers, np.ones(len(numbers), np.int64))

    @classmethod
    def sum(cls, histograms: Iterable["Histogram"]) -> "Histogram":
        """Of the documents of all; of none if there are none."""
        splits, numbers, documents = ([np.zeros(0, np.int64)] for _ in range(3))
        for one in histograms:
            split, column = np.nonzero(one.documents)
            splits.append(split)
            numbers.append(one.numbers[column])
            documents.append(one.documents[split, column])
        return cls._of(*map(np.concatenate, (splits, numbers, documents)))

    @classmethod
    def _of(cls, splits: np.ndarray, numbers: np.ndarray, documents: np.ndarray) -> "Histogram":
        distinct, column = np.unique(numbers, return_inverse=True)
        counted = np.zeros((len(SPLITS), len(distinct)), np.int64)
        np.add.at(counted, (splits, column), documents)
        return cls(distinct.astype(np.int64), counted)

    def total(self, split: int) -> int:
        """Documents of a split."""
        return int(self.documents[split].sum())

    def mean(self, split: int) -> float:
        """The mean number of a split's documents; 0 if there are none."""
        return float(self.documents[split] @ self.numbers / max(self.total(split), 1))

    def quantiles(self, split: int) -> dict[str, int]:
        """Quantiles of the numbers of a split's documents; empty if there are none."""
        below = np.cumsum(self.documents[split])
        if not len(below) or not below[-1]:
            return {}
        ranks = np.maximum(1, np.ceil(np.multiply(QUANTILES, below[-1])))
        numbers = self.numbers[np.searchsorted(below, ranks)].tolist()
        return dict(zip((f"{q:g}" for q in QUANTILES), numbers, strict=True))
