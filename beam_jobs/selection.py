"""Merged documents -> the documents of the dataset: label names become ids, documents without labels may go."""

import dataclasses
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.contract.manifest import SPLITS
from beam_jobs.counting import count_documents
from beam_jobs.merging import Bucket, read_table

TOKEN_COUNTS_TAG = "token_counts"
TRAIN = SPLITS.index("train")


@dataclasses.dataclass(frozen=True)
class Tally:
    """What the dataset takes from one bucket. Arrays are int64 and add over buckets.

    Attributes:
      bucket: where the documents stand.
      documents: [splits] documents kept.
      without_labels: [splits] of them, those without labels.
      bytes: [splits] UTF-8 bytes of their text.
      dropped: documents left out because none of their labels is kept.
      duplicates: documents merged into others.
      positives: [splits, labels] documents with each label.
      token_lengths: [splits, longest document + 1] documents by number of tokens.
      merged_labels: sum over documents of their labels, before any label is left out.
      train_tokens: sum over the train split's documents of their different tokens.
    """

    bucket: Bucket
    documents: np.ndarray
    without_labels: np.ndarray
    bytes: np.ndarray
    dropped: int
    duplicates: int
    positives: np.ndarray
    token_lengths: np.ndarray
    merged_labels: int
    train_tokens: int


@dataclasses.dataclass
class TallyBucket(beam.DoFn):
    """(Bucket, label names) -> Tally and, tagged `token_counts`, a table of COUNTS of the train split's tokens."""

    keep_unlabeled: bool

    def process(self, bucket: Bucket, label_names: pa.Array) -> Iterator[Tally]:
        merged = read_table(bucket.path)
        table = select(merged, label_names, keep_unlabeled=self.keep_unlabeled)
        splits = table["split"].to_numpy()
        labels_each = pc.list_value_length(table["labels"]).to_numpy()
        tokens = pc.split_pattern(table["text"], " ")
        tokens_each = pc.list_value_length(tokens).to_numpy()

        def by_split(weights=None):
            return np.bincount(splits, weights, minlength=len(SPLITS)).astype(np.int64)

        def by_split_and(values, size):
            return np.bincount(values[0] * size + values[1], minlength=len(SPLITS) * size).reshape(len(SPLITS), size)

        token_counts = count_documents(tokens.filter(pa.array(splits == TRAIN)))
        label_splits = splits[pc.list_parent_indices(table["labels"]).to_numpy()].astype(np.int64)
        yield Tally(
            bucket=bucket,
            documents=by_split(),
            without_labels=by_split(labels_each == 0),
            bytes=by_split(pc.binary_length(table["text"]).to_numpy()),
            dropped=merged.num_rows - table.num_rows,
            duplicates=bucket.duplicates,
            positives=by_split_and((label_splits, pc.list_flatten(table["labels"]).to_numpy()), len(label_names)),
            token_lengths=by_split_and((splits.astype(np.int64), tokens_each), int(tokens_each.max(initial=0)) + 1),
            merged_labels=len(pc.list_flatten(merged["labels"])),
            train_tokens=pc.sum(token_counts["count"], min_count=0).as_py(),
        )
        yield beam.pvalue.TaggedOutput(TOKEN_COUNTS_TAG, token_counts)


def select(merged: pa.Table, label_names: pa.Array, *, keep_unlabeled: bool) -> pa.Table:
    """MERGED with label names -> with sorted label ids (large_list<int64>); labels that are not kept are dropped.

    Args:
      merged: documents; each one's labels are sorted by name.
      label_names: the kept labels, sorted: a label's id is its place.
      keep_unlabeled: keep documents that are left without labels.
    """
    ids = pc.index_in(pc.list_flatten(merged["labels"]).combine_chunks(), value_set=label_names)
    known = ids.is_valid().to_numpy(zero_copy_only=False)
    rows = pc.list_parent_indices(merged["labels"]).to_numpy()[known]
    offsets = np.searchsorted(rows, np.arange(merged.num_rows + 1))
    known_ids = ids.filter(pa.array(known)).cast(pa.int64())
    labels = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), known_ids)
    table = merged.set_column(merged.column_names.index("labels"), "labels", labels)
    return table if keep_unlabeled else table.filter(pc.greater(pc.list_value_length(table["labels"]), 0))
