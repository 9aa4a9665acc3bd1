"""Counting what a bucket of the dataset holds: documents, labels and tokens by split."""

import dataclasses
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import AsSingleton

from beam_jobs.contract.manifest import SPLITS
from beam_jobs.contract.sections.vocabulary import VocabularyConfig
from beam_jobs.preprocessing.buckets import Bucket, joined, read_table, tokens_of
from beam_jobs.preprocessing.dataset_statistics import TOP_LABELS
from beam_jobs.preprocessing.encode_labels import sorted_names
from beam_jobs.preprocessing.frequencies import (
    COUNTS,
    NUM_PARTITIONS,
    Frequencies,
    MostFrequent,
    count_documents,
    count_ngrams,
)
from beam_jobs.preprocessing.histograms import Histogram
from beam_jobs.preprocessing.splits import TRAIN
from beam_jobs.runtime import document_counters
from beam_jobs.runtime.spill import SpillByKey, read_segments
from beam_jobs.runtime.step_times import TimedDoFn

TOKEN_COUNTS_TAG = "token_counts"
NGRAM_COUNTS_TAG = "ngram_counts"
POSITIVES_TAG = "positives"


@dataclasses.dataclass(frozen=True)
class UnspacedScript:
    """Scripts whose text has no spaces between words, unless someone has put them there.

    Attributes:
      names: of their languages.
      pattern: RE2 pattern that matches within their tokens.
      max_mean_length: characters of a mean token where words are parted.
      settings: what parts them.
    """

    names: str
    pattern: str
    max_mean_length: float
    settings: str


# Most words have 1 to 3 characters in the former and 3 to 8 in the latter.
UNSPACED = (
    UnspacedScript(
        "Chinese or Japanese",
        r"^[\p{Han}\p{Hiragana}\p{Katakana}]",
        4,
        "text.tokenizer: character, with vocabulary.ngrams: 2",
    ),
    UnspacedScript(
        "Thai, Lao, Khmer or Burmese",
        r"^[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]",
        12,
        "text.tokenizer: character, with vocabulary.ngrams: 3, or words that are parted by spaces "
        "or U+200B",
    ),
)

MIN_SHARE_OF_UNSPACED = 0.05  # of the documents: fewer may be those that name something

# Documents with a label in a split. Only counts above 0 have rows: a bucket may hold few of many
# labels.
POSITIVES = pa.schema([("label", pa.int64()), ("split", pa.int64()), ("count", pa.int64())])


@dataclasses.dataclass(frozen=True)
class BucketStats:
    """What one bucket holds. Arrays are int64 and add over buckets, as histograms do.

    Attributes:
      bucket: the bucket.
      documents: [splits] documents.
      without_labels: [splits] of them, those without labels.
      bytes: [splits] UTF-8 bytes of their texts, and one between two text fields.
      token_lengths: documents by number of tokens.
      labels_per_document: documents by number of labels.
      co_occurrence: [top labels, top labels] documents with both labels.
      label_occurrences: sum over documents of their labels.
      has_weights: whether any document has a weight other than 1.
      has_metadata: bool [metadata fields]: whether any document has a value that is not empty.
      train_tokens: sum over the train split's documents of their distinct tokens.
      train_ngrams: sum over the train split's documents of their distinct n-grams.
      unspaced: [len(UNSPACED), 3] the train split's tokens that are of scripts without spaces
        between words, their characters, and the documents that have some.
    """

    bucket: Bucket
    documents: np.ndarray
    without_labels: np.ndarray
    bytes: np.ndarray
    token_lengths: Histogram
    labels_per_document: Histogram
    co_occurrence: np.ndarray
    label_occurrences: int
    has_weights: bool
    has_metadata: np.ndarray
    train_tokens: int
    train_ngrams: int = 0
    unspaced: np.ndarray | int = 0


@dataclasses.dataclass
class CountBuckets(beam.PTransform):
    """Buckets of ENCODED with splits -> what they hold: PCollections by name.

    They are `stats`, BucketStats of each bucket; `positives`, tables of POSITIVES with a row per
    label and split; `vocabulary` and, if n-grams are counted, `ngrams`, one Frequencies each.

    Attributes:
      directory: for spill files.
      vocabulary: which tokens and n-grams of the train split are kept.
      kept_labels: PCollection of one Frequencies.
      is_given: whether the tokens are given by an encoder; then all that occur are counted.
      partitions: of the tokens and of the n-grams, see `MostFrequent`.
    """

    directory: str
    vocabulary: VocabularyConfig
    kept_labels: beam.PCollection
    is_given: bool = False
    partitions: int = NUM_PARTITIONS

    def expand(self, buckets):
        config = self.vocabulary
        min_count, top_k = config.min_documents_of_token, config.size
        if self.is_given:
            min_count, top_k = 1, None
        top_labels = self.kept_labels | "TopLabels" >> beam.Map(top_labels_of)
        counted = buckets | "CountBucket" >> beam.ParDo(
            TimedDoFn("count", CountBucket(config.ngrams)), AsSingleton(top_labels)
        ).with_outputs(TOKEN_COUNTS_TAG, NGRAM_COUNTS_TAG, POSITIVES_TAG, main="stats")
        positives = (
            counted[POSITIVES_TAG]
            | "SpillPositives" >> beam.ParDo(SpillByKey(self.directory))
            | "GroupPositives" >> beam.GroupByKey()
            | "SumPositives"
            >> beam.Map(lambda element: sum_positives(read_segments(element[1], POSITIVES)))
        )
        vocabulary = counted[TOKEN_COUNTS_TAG] | "Vocabulary" >> MostFrequent(
            self.directory, min_count, top_k, self.partitions
        )
        outputs = {"stats": counted.stats, "positives": positives, "vocabulary": vocabulary}
        if config.ngrams > 1:
            outputs["ngrams"] = counted[NGRAM_COUNTS_TAG] | "Ngrams" >> MostFrequent(
                self.directory,
                config.min_documents_of_ngram,
                config.max_ngrams,
                self.partitions,
            )
        return outputs


def top_labels_of(kept_labels: Frequencies) -> np.ndarray:
    """int64 [top]: the ids of the labels whose co-occurrence is counted, most frequent first."""
    top = kept_labels.counts["name"].combine_chunks()[:TOP_LABELS]
    return pc.index_in(top, value_set=sorted_names(kept_labels)).to_numpy().astype(np.int64)


@dataclasses.dataclass
class CountBucket(beam.DoFn):
    """(Bucket of ENCODED, ids of the top labels) -> BucketStats.

    Tagged `token_counts` and `ngram_counts`: COUNTS of the train split; tagged `positives`:
    POSITIVES with a partition of the labels as `key`.

    Attributes:
      ngrams: tokens of the longest n-grams that are counted; 1: none are.
    """

    ngrams: int = 1

    def process(self, bucket: Bucket, top_labels: np.ndarray) -> Iterator[BucketStats]:
        document_counters.increment(
            duplicates=bucket.duplicates,
            duplicates_with_other_labels=bucket.duplicates_with_other_labels,
            near_duplicates=bucket.near_duplicates,
            dropped_without_labels=bucket.dropped_without_labels,
        )
        table = read_table(bucket.path)
        splits = table["split"].to_numpy().astype(np.int64)
        is_train = pa.array(splits == TRAIN)
        tokens = tokens_of(table["texts"])
        num_labels = pc.list_value_length(table["labels"]).to_numpy()
        labels = pc.list_flatten(table["labels"]).to_numpy()
        label_splits = splits[pc.list_parent_indices(table["labels"]).to_numpy()]
        token_counts = count_documents(tokens.filter(is_train))
        ngram_counts = COUNTS.empty_table()
        if self.ngrams > 1:
            ngram_counts = count_ngrams(table["texts"].filter(is_train), self.ngrams)
            yield beam.pvalue.TaggedOutput(NGRAM_COUNTS_TAG, ngram_counts)
        yield BucketStats(
            bucket=bucket,
            documents=_sum_by_split(splits),
            without_labels=_sum_by_split(splits, num_labels == 0),
            bytes=_sum_by_split(splits, pc.binary_length(joined(table["texts"])).to_numpy()),
            token_lengths=Histogram.of(splits, pc.list_value_length(tokens).to_numpy()),
            labels_per_document=Histogram.of(splits, num_labels),
            co_occurrence=count_co_occurrence(table["labels"], top_labels),
            label_occurrences=len(labels),
            has_weights=bool((table["weight"].to_numpy() != 1).any()),
            has_metadata=_has_metadata(table["metadata"]),
            train_tokens=pc.sum(token_counts["count"], min_count=0).as_py(),
            train_ngrams=pc.sum(ngram_counts["count"], min_count=0).as_py(),
            unspaced=count_unspaced(token_counts, tokens.filter(is_train)),
        )
        yield beam.pvalue.TaggedOutput(TOKEN_COUNTS_TAG, token_counts)
        yield beam.pvalue.TaggedOutput(POSITIVES_TAG, count_positives(labels, label_splits))


def count_unspaced(token_counts: pa.Table, tokens: pa.ChunkedArray) -> np.ndarray:
    """COUNTS, and the lists that were counted, one per document -> int64 [len(UNSPACED), 3]: tokens
    in each kind of script, their characters, and documents with any.
    """
    lengths = pc.utf8_length(token_counts["name"])
    beyond_ascii = token_counts.append_column("length", lengths).filter(
        pc.greater(pc.binary_length(token_counts["name"]), lengths)
    )
    counted = np.zeros((len(UNSPACED), 3), np.int64)
    for i, script in enumerate(UNSPACED):
        is_of_it = pc.match_substring_regex(beyond_ascii["name"], script.pattern)
        of_it = beyond_ascii.filter(is_of_it)
        if not of_it.num_rows:
            continue
        occurrences, lengths = of_it["occurrences"].to_numpy(), of_it["length"].to_numpy()
        is_token_of_it = pc.is_in(pc.list_flatten(tokens), of_it["name"].combine_chunks())
        documents = pc.list_parent_indices(tokens).filter(is_token_of_it).unique()
        counted[i] = occurrences.sum(), (occurrences * lengths).sum(), len(documents)
    return counted


def count_positives(labels: np.ndarray, splits: np.ndarray) -> pa.Table:
    """The label and the split of each (document, label) -> POSITIVES with `key`."""
    codes, counts = np.unique(labels * len(SPLITS) + splits, return_counts=True)
    label, split = np.divmod(codes, len(SPLITS))
    table = pa.table([label, split, counts], schema=POSITIVES)
    return table.append_column("key", pa.array(label % NUM_PARTITIONS))


def sum_positives(partial: pa.Table) -> pa.Table:
    """POSITIVES with several rows per label and split -> with one."""
    return (
        partial.group_by(["label", "split"])
        .aggregate([("count", "sum")])
        .rename_columns(POSITIVES.names)
    )


def count_co_occurrence(labels: pa.ChunkedArray, top_labels: np.ndarray) -> np.ndarray:
    """Lists of label ids, one per document -> int64 [top, top]: documents with both labels."""
    indices = pc.index_in(
        pc.list_flatten(labels), value_set=pa.array(top_labels, pa.int64())
    ).combine_chunks()
    is_top = indices.is_valid().to_numpy(zero_copy_only=False)
    rows = pc.list_parent_indices(labels).to_numpy()[is_top]
    _, rows = np.unique(rows, return_inverse=True)
    has_label = np.zeros((int(rows.max(initial=-1)) + 1, len(top_labels)))
    has_label[rows, indices.drop_null().to_numpy()] = 1
    return (has_label.T @ has_label).astype(np.int64)


def _has_metadata(metadata: pa.ChunkedArray) -> np.ndarray:
    """Lists of values, one per document and all of one length -> bool [length]: whether any value
    there is not empty; [0] without documents.
    """
    if not len(metadata):
        return np.zeros(0, bool)
    values = pc.binary_length(pc.list_flatten(metadata)).to_numpy() > 0
    return values.reshape(len(metadata), -1).any(axis=0)


def _sum_by_split(splits: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """int64 [splits]: the sum of the values of each split's documents, or their number."""
    return np.bincount(splits, values, minlength=len(SPLITS)).astype(np.int64)
