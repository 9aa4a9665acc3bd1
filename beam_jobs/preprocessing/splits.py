"""Which split a document is in: decided by its content, by what its source says, or by its labels."""

import fnmatch
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import numpy as np

from beam_jobs.contract.dataset_config import (
    ColumnSplits,
    FileSplits,
    HashSplits,
    SplitsConfig,
    StratifiedSplits,
    TimeFractionSplits,
    TimeSplits,
    parse_time,
)
from beam_jobs.contract.manifest import SPLITS
from beam_jobs.sources.documents import Document

TRAIN, VALIDATION, TEST = range(len(SPLITS))
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone(timedelta(0)))
NOT_GIVEN = -1  # the split of a document whose source says none


class NoSplit(ValueError):
    """A document whose split cannot be told: what was received and what was expected."""


def given_split(document: Document, splits: SplitsConfig) -> int:
    """The split that a document's source says, an index into SPLITS; NOT_GIVEN for a method that does not ask.

    Where fractions are split by time it is the document's time, in microseconds since 1970.

    Raises:
      NoSplit: it says none.
    """
    if isinstance(splits, ColumnSplits):
        name = document.split
        for index, split in enumerate(SPLITS):
            if name in getattr(splits, split):
                return index
        raise NoSplit(
            f"received the split {name!r}, expected one of {[*splits.train, *splits.validation, *splits.test]}"
        )
    if isinstance(splits, FileSplits):
        for index in (TEST, VALIDATION):
            if any(
                fnmatch.fnmatchcase(document.source, pattern)
                for pattern in getattr(splits, SPLITS[index])
            ):
                return index
        return TRAIN
    if isinstance(splits, TimeFractionSplits):
        return (_time(document) - _EPOCH) // timedelta(microseconds=1)
    if isinstance(splits, TimeSplits):
        time = _time(document)
        return int(time >= parse_time(splits.validation_from)) + int(
            time >= parse_time(splits.test_from)
        )
    return NOT_GIVEN


def _time(document: Document) -> datetime:
    try:
        return parse_time(document.time)
    except (AttributeError, TypeError, ValueError):
        raise NoSplit(
            f"received the time {document.time!r}, expected ISO 8601, such as 2024-01-31 or 2024-01-31T12:00:00Z"
        ) from None


def assign(split_keys: np.ndarray, given: np.ndarray, splits: SplitsConfig) -> np.ndarray:
    """The split of each document, as far as it depends on that document alone.

    Args:
      split_keys: uint64 [documents], uniformly distributed.
      given: int64 [documents], from `given_split`.
      splits: the config.

    Returns:
      int8 [documents]: an index into SPLITS; NOT_GIVEN where the labels or times of other documents decide.
    """
    # The upper 53 bits are exact as a float64 in [0, 1).
    uniform = (split_keys >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    if isinstance(splits, HashSplits):
        bounds = np.cumsum([getattr(splits, name) for name in SPLITS])[:-1]
        return np.searchsorted(bounds, uniform, side="right").astype(np.int8)
    if isinstance(splits, TimeFractionSplits):
        return np.full(len(given), NOT_GIVEN, np.int8)
    return np.asarray(given, np.int8)


def stratify(
    labels: Sequence[Sequence[int]],
    split_keys: np.ndarray,
    frequencies: np.ndarray,
    splits: StratifiedSplits,
) -> np.ndarray:
    """Splits documents so that every label is in every split in proportion: rare labels first, one pass, linear in documents.

    After the iterative stratification of Sechidis et al. (2011), https://doi.org/10.1007/978-3-642-23808-6_10: a document goes
    where its rarest label is missing most, ties where the next one is, and at last where documents are. Theirs looks for the
    rarest label again after each label; here the order is fixed by the labels' frequencies, which lets documents be partitioned.

    Args:
      labels: [documents] label ids, each once a document, in any order.
      split_keys: uint64 [documents], different: the order among documents with the same rarest label.
      frequencies: int64 [labels], documents with each label in the whole dataset; decides what is rare.
      splits: the fractions.

    Returns:
      int8 [documents]: an index into SPLITS; depends on no order of the documents.
    """
    fractions = [getattr(splits, name) for name in SPLITS]
    indices = [i for i, fraction in enumerate(fractions) if fraction]
    ranks = np.empty(len(frequencies), np.int64)
    ranks[np.argsort(frequencies, kind="stable")] = np.arange(len(frequencies))
    # From here on a label is named by its rank.
    ranked = [sorted(ranks[np.asarray(row, np.int64)].tolist()) for row in labels]
    counts: dict[int, int] = {}
    for row in ranked:
        for label in row:
            counts[label] = counts.get(label, 0) + 1
    missing = {
        label: [count * fraction for fraction in fractions] for label, count in counts.items()
    }
    missing_documents = [len(ranked) * fraction for fraction in fractions]
    rarest = np.array([row[0] if row else len(frequencies) for row in ranked], np.int64)
    assigned = np.zeros(len(ranked), np.int8)
    for document in np.lexsort((split_keys, rarest)).tolist():
        needs = [missing[label] for label in ranked[document]]
        needs.append(missing_documents)
        split = max(indices, key=lambda i, needs=needs: [need[i] for need in needs])
        for need in needs:
            need[split] -= 1
        assigned[document] = split
    return assigned
