"""The split of a document: decided by a hash of its texts, by its source, or by its labels."""

import fnmatch
import posixpath
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import numpy as np
import pyarrow as pa

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import SPLITS
from beam_jobs.contract.sections.splits import (
    ColumnSplits,
    FileSplits,
    HashSplits,
    SplitsConfig,
    StratifiedSplits,
    TimeFractionSplits,
    TimeSplits,
)
from beam_jobs.contract.times import iso_of_epoch, parse_time
from beam_jobs.sources.documents import Document

TRAIN, VALIDATION, TEST = range(len(SPLITS))
_SHOWN_FILES = 10  # of the input files, in an error
_USUAL_YEARS = ("1975", "2100")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone(timedelta(0)))


class NoSplit(ValueError):
    """A document that cannot be split: what was received and what was expected."""


def source_split(document: Document, splits: SplitsConfig) -> int | None:
    """The split that a document's source puts it in, an index into SPLITS.

    None where the source does not decide it: by hash, stratified or by fractions of the time.

    Raises:
      NoSplit: the source names no split, or another one.
    """
    if isinstance(splits, ColumnSplits):
        for index, split in enumerate(SPLITS):
            if document.split in getattr(splits, split):
                return index
        names = [*splits.train, *splits.validation, *splits.test]
        raise NoSplit(f"received the split {document.split!r}, expected one of {names}")
    if isinstance(splits, FileSplits):
        for index in (TEST, VALIDATION):
            patterns = getattr(splits, SPLITS[index])
            if any(_names_file(pattern, document.source) for pattern in patterns):
                return index
        return TRAIN
    if isinstance(splits, TimeSplits):
        time = _time(document)
        is_past_train = time >= parse_time(splits.validation_from)
        is_past_validation = time >= parse_time(splits.test_from)
        return int(is_past_train) + int(is_past_validation)
    return None


def check_file_patterns(splits: SplitsConfig, files: Sequence[str]) -> None:
    """Raises UserError if a pattern of `splits.method: files` matches none of the files' names."""
    if not isinstance(splits, FileSplits):
        return
    for split in ("validation", "test"):
        for pattern in getattr(splits, split):
            if not any(_names_file(pattern, file) for file in files):
                more = f" and {len(files) - _SHOWN_FILES:,} more" * (len(files) > _SHOWN_FILES)
                raise UserError(
                    f"splits.{split}: {pattern!r} matches none of the {len(files):,} input files: "
                    f"{', '.join(files[:_SHOWN_FILES])}{more}; expected a file's name, its path "
                    "or a glob pattern of one of them"
                )


def _names_file(pattern: str, source: str) -> bool:
    """Whether a file is the pattern or matches it; without a slash, its base name is enough."""
    names = [source] if "/" in pattern else [source, posixpath.basename(source)]
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for name in names)


def time_us(document: Document, splits: SplitsConfig) -> int | None:
    """A document's time in microseconds since 1970; None where the split does not need it.

    Raises:
      NoSplit: the split needs it, and it is missing or no time.
    """
    if not isinstance(splits, TimeFractionSplits):
        return None
    return (_time(document) - _EPOCH) // timedelta(microseconds=1)


def _time(document: Document) -> datetime:
    try:
        return parse_time(document.time)
    except (AttributeError, TypeError, ValueError):
        raise NoSplit(
            f"received the time {document.time!r}, expected ISO 8601, such as 2024-01-31 or "
            "2024-01-31T12:00:00Z, or a number and data.time_format"
            f"{_guess(document.time)}"
        ) from None


def _guess(text: str | None) -> str:
    """The unit of data.time_format in which a number is a time of about our days."""
    for unit in ("seconds", "milliseconds", "microseconds"):
        time = iso_of_epoch(text or "", unit)
        if time and _USUAL_YEARS[0] <= time <= _USUAL_YEARS[1]:
            return f"; as {unit} since 1970 it would be {time[:10]}"
    return ""


def assign(
    split_keys: np.ndarray, source_splits: pa.ChunkedArray, splits: SplitsConfig
) -> pa.Array | pa.ChunkedArray:
    """The split of each document, as far as it depends on that document alone.

    Args:
      split_keys: uint64 [documents], uniformly distributed.
      source_splits: int8 [documents], from `source_split`.
      splits: the config.

    Returns:
      int8 [documents]: an index into SPLITS; null where labels or times of other documents decide.
    """
    # The upper 53 bits are exact as a float64 in [0, 1).
    uniform = (split_keys >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    if isinstance(splits, HashSplits):
        bounds = np.cumsum([getattr(splits, name) for name in SPLITS])[:-1]
        return pa.array(np.searchsorted(bounds, uniform, side="right").astype(np.int8))
    return source_splits


def stratify(
    labels: Sequence[Sequence[int]],
    split_keys: np.ndarray,
    frequencies: np.ndarray,
    splits: StratifiedSplits,
) -> np.ndarray:
    """Splits documents so that every split has its share of every label, in one linear pass.

    After the iterative stratification of Sechidis et al. (2011),
    https://doi.org/10.1007/978-3-642-23808-6_10: documents with rare labels come first. A document
    is put in the split that lacks its rarest label most; ties are broken by its next rarest label,
    and finally by the number of documents that a split lacks. The paper looks for the rarest label
    anew after each label; here the order is fixed by the labels' frequencies, so that documents can
    be partitioned.

    Args:
      labels: [documents] distinct label ids of each document, in any order.
      split_keys: uint64 [documents], distinct: the order of documents with the same rarest label.
      frequencies: int64 [labels], documents with each label in the whole dataset; decides what is
        rare.
      splits: the fractions.

    Returns:
      int8 [documents]: an index into SPLITS; does not depend on the order of the documents.
    """
    fractions = [getattr(splits, name) for name in SPLITS]
    indices = [i for i, fraction in enumerate(fractions) if fraction]
    ranks = np.empty(len(frequencies), np.int64)
    ranks[np.argsort(frequencies, kind="stable")] = np.arange(len(frequencies))
    # From here on a label is referred to by its rank, rarest first.
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
