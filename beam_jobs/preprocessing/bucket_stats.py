"""Merged documents -> the documents of the dataset: label names become ids, documents without labels may go."""

import dataclasses
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.contract.manifest import SPLITS
from beam_jobs.preprocessing.buckets import Bucket, read_table, tokens_of
from beam_jobs.preprocessing.frequencies import (
    COUNTS,
    NUM_PARTITIONS,
    count_documents,
    count_ngrams,
)

TOKEN_COUNTS_TAG = "token_counts"
NGRAM_COUNTS_TAG = "ngram_counts"
POSITIVES_TAG = "positives"
TRAIN = SPLITS.index("train")


# Documents with a label in a split; rows are there for counts above 0 only, since a bucket may hold few of many labels.
POSITIVES = pa.schema([("label", pa.int64()), ("split", pa.int64()), ("count", pa.int64())])


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
      token_lengths: [splits, longest document + 1] documents by number of tokens.
      labels_each: [splits, most labels of a document + 1] documents by number of labels.
      together: [top labels, top labels] documents with both labels.
      merged_labels: sum over documents of their labels, before any label is left out.
      kept_labels: sum over the documents kept of their labels that are kept.
      has_weights: whether any document kept has a weight other than 1.
      train_tokens: sum over the train split's documents of their different tokens.
      train_ngrams: sum over the train split's documents of their different n-grams.
    """

    bucket: Bucket
    documents: np.ndarray
    without_labels: np.ndarray
    bytes: np.ndarray
    dropped: int
    duplicates: int
    token_lengths: np.ndarray
    labels_each: np.ndarray
    together: np.ndarray
    merged_labels: int
    kept_labels: int
    has_weights: bool
    train_tokens: int
    train_ngrams: int = 0


@dataclasses.dataclass
class TallyBucket(beam.DoFn):
    """Tallies a bucket.

    (Bucket, label names, ids of the top labels) -> Tally; tagged `token_counts` and `ngram_counts`, COUNTS of the train split; tagged
    `positives`, POSITIVES.
    """

    keep_unlabeled: bool
    ngrams: int = 1

    def process(
        self, bucket: Bucket, label_names: pa.Array, top_labels: np.ndarray
    ) -> Iterator[Tally]:
        merged = read_table(bucket.path)
        table = select(merged, label_names, keep_unlabeled=self.keep_unlabeled)
        splits = table["split"].to_numpy()
        labels_each = pc.list_value_length(table["labels"]).to_numpy()
        tokens = tokens_of(table["text"])
        tokens_each = pc.list_value_length(tokens).to_numpy()

        def by_split(weights=None):
            return np.bincount(splits, weights, minlength=len(SPLITS)).astype(np.int64)

        def by_split_and(values, size):
            return np.bincount(values[0] * size + values[1], minlength=len(SPLITS) * size).reshape(
                len(SPLITS), size
            )

        token_counts = count_documents(tokens.filter(pa.array(splits == TRAIN)))
        ngram_counts = COUNTS.empty_table()
        if self.ngrams > 1:
            ngram_counts = count_ngrams(
                table["text"].filter(pa.array(splits == TRAIN)), self.ngrams
            )
            yield beam.pvalue.TaggedOutput(NGRAM_COUNTS_TAG, ngram_counts)
        label_splits = splits[pc.list_parent_indices(table["labels"]).to_numpy()].astype(np.int64)
        yield Tally(
            bucket=bucket,
            documents=by_split(),
            without_labels=by_split(labels_each == 0),
            bytes=by_split(pc.binary_length(table["text"]).to_numpy()),
            dropped=merged.num_rows - table.num_rows,
            duplicates=bucket.duplicates,
            token_lengths=by_split_and(
                (splits.astype(np.int64), tokens_each), int(tokens_each.max(initial=0)) + 1
            ),
            labels_each=by_split_and(
                (splits.astype(np.int64), labels_each), int(labels_each.max(initial=0)) + 1
            ),
            together=count_together(table["labels"], top_labels),
            merged_labels=len(pc.list_flatten(merged["labels"])),
            kept_labels=len(label_splits),
            has_weights=bool((table["weight"].to_numpy() != 1).any()),
            train_tokens=pc.sum(token_counts["count"], min_count=0).as_py(),
            train_ngrams=pc.sum(ngram_counts["count"], min_count=0).as_py(),
        )
        yield beam.pvalue.TaggedOutput(TOKEN_COUNTS_TAG, token_counts)
        yield beam.pvalue.TaggedOutput(
            POSITIVES_TAG,
            count_positives(
                pc.list_flatten(table["labels"]).to_numpy(), label_splits, len(label_names)
            ),
        )


def count_positives(labels: np.ndarray, splits: np.ndarray, num_labels: int) -> pa.Table:
    """The label and the split of each (document, label) -> POSITIVES, with a partition of the labels as `key`."""
    codes, counts = np.unique(labels * len(SPLITS) + splits, return_counts=True)
    label, split = np.divmod(codes, len(SPLITS))
    table = pa.table([label, split, counts], schema=POSITIVES)
    return table.append_column("key", pa.array(label * NUM_PARTITIONS // max(num_labels, 1)))


def count_together(labels: pa.ChunkedArray, top_labels: np.ndarray) -> np.ndarray:
    """Lists of label ids, one a document -> int64 [top, top]: documents with both of two labels."""
    places = pc.index_in(
        pc.list_flatten(labels), value_set=pa.array(top_labels, pa.int64())
    ).combine_chunks()
    known = places.is_valid().to_numpy(zero_copy_only=False)
    rows = pc.list_parent_indices(labels).to_numpy()[known]
    _, rows = np.unique(rows, return_inverse=True)
    has_label = np.zeros((int(rows.max(initial=-1)) + 1, len(top_labels)))
    has_label[rows, places.drop_null().to_numpy()] = 1
    return (has_label.T @ has_label).astype(np.int64)


def sum_positives(partial: pa.Table) -> pa.Table:
    """POSITIVES with several rows a label and split -> with one."""
    return (
        partial.group_by(["label", "split"])
        .aggregate([("count", "sum")])
        .rename_columns(POSITIVES.names)
    )


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
    return (
        table
        if keep_unlabeled
        else table.filter(pc.greater(pc.list_value_length(table["labels"]), 0))
    )
