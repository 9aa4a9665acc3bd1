"""The end of the pipeline: label, vocabulary and statistics files, and what is accounted for."""

import dataclasses
import json
from collections.abc import Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import AsList, AsSingleton

from beam_jobs.contract import places
from beam_jobs.contract.manifest import (
    DOCUMENT_COUNTS,
    LABELS,
    NGRAM_DOCUMENT_COUNTS,
    NGRAMS,
    SPLITS,
    STATISTICS,
    TERM_COUNTS,
    VOCABULARY,
    Counts,
    LabelChanges,
    LabelCounts,
    ShardInfo,
    SplitInfo,
    dump_json,
)
from beam_jobs.contract.validation import Section
from beam_jobs.preprocessing.bucket_stats import POSITIVES, UNSPACED, BucketStats, top_labels_of
from beam_jobs.preprocessing.dataset_statistics import describe
from beam_jobs.preprocessing.encode_labels import sorted_names
from beam_jobs.preprocessing.frequencies import COUNTS, Frequencies
from beam_jobs.preprocessing.histograms import Histogram
from beam_jobs.preprocessing.labels import LabelRules, UnusedNames
from beam_jobs.runtime.row_accounting import missing

RESULTS = "results.json"


class Results(Section):
    """What the pipeline tells the process that started it, in `results.json` of the work directory.

    Attributes:
      parts: the numbers of the parts that were read.
      missing: by kind, what one stage has counted and another has not; empty if nothing is lost.
      subwords: those that texts are split into; None: texts are of words.
      unused_label_names: by key of `labels`, the names that no document has.
      empty_metadata_fields: those that are empty in every document.
      unspaced: [len(UNSPACED), 3] the train split's tokens that are of scripts without spaces
        between words, their characters, and the documents that have some.
    """

    parts: tuple[int, ...]
    counts: Counts
    missing: dict[str, int]
    splits: dict[str, SplitInfo]
    num_labels: int
    label_counts: LabelCounts
    vocabulary_size: int
    has_weights: bool
    subwords: tuple[str, ...] | None
    unused_label_names: dict[str, UnusedNames] = {}
    empty_metadata_fields: tuple[str, ...] = ()
    unspaced: tuple[tuple[int, int, int], ...]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What the stages of the pipeline have counted and written.

    Attributes:
      read: (part's number, or None if there are no parts; rows) of all input.
      reject_counts: no element, or one: rejects by reason.
      stats: what each bucket holds.
      positives: tables of POSITIVES, a row per label and split.
      kept_labels: documents by label.
      vocabulary: train documents by token.
      shards: (split, index, ShardInfo) of every shard.
      ngrams: train documents by n-gram; None: they are not counted.
      subwords: those that texts are split into; None: texts are of words.
      leaks: near-duplicates by split, see `CountLeaks`; None: they are not looked for.
      row_accounting: rows sent and received, see `beam_jobs.runtime.row_accounting`.
    """

    read: Sequence[tuple[int | None, int]]
    reject_counts: Sequence[dict[str, int]]
    stats: Sequence[BucketStats]
    positives: Sequence[pa.Table]
    kept_labels: Frequencies
    vocabulary: Frequencies
    shards: Sequence[tuple[str, int, ShardInfo]]
    ngrams: Frequencies | None = None
    subwords: tuple[str, ...] | None = None
    leaks: Sequence[np.ndarray] | None = None
    row_accounting: Sequence[tuple[str, int]] = ()


_SINGLETONS = {"kept_labels", "vocabulary", "ngrams", "subwords"}


@dataclasses.dataclass
class Finish(beam.PTransform):
    """PCollections by the names of `Outputs`, of their elements -> the last files.

    Attributes:
      labels: the rules by which label names were cleaned.
      metadata_fields: those of the documents.
      dataset_dir: where the dataset's files are written.
      work_dir: where `results.json` is written.
      pieces: all of an encoder's tokenizer, which are the vocabulary; None: the train split's
        tokens are.
    """

    labels: LabelRules
    metadata_fields: tuple[str, ...]
    dataset_dir: str
    work_dir: str
    pieces: tuple[str, ...] | None = None

    def expand(self, outputs):
        sides = {
            name: AsSingleton(collection) if name in _SINGLETONS else AsList(collection)
            for name, collection in outputs.items()
        }
        start = outputs["read"].pipeline | "Start" >> beam.Create([None])
        return start | "WriteFiles" >> beam.Map(self._finish, **sides)

    def _finish(self, _, **outputs) -> None:
        if self.pieces is not None:
            outputs["vocabulary"] = with_all_pieces(outputs["vocabulary"], self.pieces)
        finish(
            Outputs(**outputs),
            self.dataset_dir,
            self.work_dir,
            labels=self.labels,
            metadata_fields=self.metadata_fields,
        )


def with_all_pieces(vocabulary: Frequencies, pieces: Sequence[str]) -> Frequencies:
    """The frequencies of an encoder's pieces, those that do not occur included.

    What occurs and is no piece is left out: it is unknown to the encoder. Those that occur come
    first, the most frequent before others, and the rest follow by their ids.
    """
    names = pa.array(pieces, COUNTS.field("name").type)
    counts = vocabulary.counts.filter(pc.is_in(vocabulary.counts["name"], value_set=names))
    rest = names.filter(pc.invert(pc.is_in(names, value_set=counts["name"].combine_chunks())))
    zeros = np.zeros(len(rest), np.int64)
    counts = pa.concat_tables([counts, pa.table([rest, zeros, zeros], schema=COUNTS)])
    return dataclasses.replace(vocabulary, counts=counts)


def finish(
    outputs: Outputs,
    dataset_dir: str,
    work_dir: str,
    *,
    labels: LabelRules,
    metadata_fields: Sequence[str] = (),
) -> None:
    """Writes labels, vocabulary and statistics, and last the results."""
    positives = _positives_by_label(outputs)
    unused_names = labels.unused(one.bucket.label_names_used for one in outputs.stats)
    has_metadata = np.zeros(len(metadata_fields), bool)
    for one in outputs.stats:
        if one.documents.any():
            has_metadata |= one.has_metadata
    empty_fields = tuple(
        field for field, has in zip(metadata_fields, has_metadata, strict=True) if not has
    )
    _write_labels(dataset_dir, sorted_names(outputs.kept_labels), positives)
    _write_vocabulary(dataset_dir, outputs.vocabulary.counts)
    if outputs.ngrams is not None:
        _write_ngrams(dataset_dir, outputs.ngrams.counts, outputs.vocabulary.counts)
    statistics = _statistics(outputs, positives)
    if unused_names:
        statistics["unused_label_names"] = {
            key: names.model_dump(mode="json") for key, names in unused_names.items()
        }
    if empty_fields:
        statistics["empty_metadata_fields"] = list(empty_fields)
    places.write(f"{dataset_dir}/{STATISTICS}", dump_json(statistics).encode())
    splits = _splits(outputs)
    results = Results(
        parts=tuple(sorted(number for number, _ in outputs.read if number is not None)),
        counts=_document_counts(outputs, splits),
        missing=_missing(outputs, positives),
        splits=splits,
        num_labels=len(positives),
        label_counts=_label_counts(outputs),
        vocabulary_size=outputs.vocabulary.counts.num_rows,
        has_weights=any(stats.has_weights for stats in outputs.stats),
        subwords=outputs.subwords,
        unused_label_names=unused_names,
        empty_metadata_fields=empty_fields,
        unspaced=tuple(map(tuple, _unspaced(outputs).tolist())),
    )
    places.write(f"{work_dir}/{RESULTS}", json.dumps(results.model_dump(mode="json")).encode())


# --- counts ----------------------------------------------------------------------------


def _positives_by_label(outputs: Outputs) -> np.ndarray:
    """int64 [labels, splits]: documents with each label in each split."""
    counted = pa.concat_tables([POSITIVES.empty_table(), *outputs.positives])
    positives = np.zeros((outputs.kept_labels.counts.num_rows, len(SPLITS)), np.int64)
    positives[counted["label"].to_numpy(), counted["split"].to_numpy()] = counted[
        "count"
    ].to_numpy()
    return positives


def _missing(outputs: Outputs, positives: np.ndarray) -> dict[str, int]:
    """By kind, what one stage has counted and the next has not received; negative for a surplus.

    Not empty means that the runner has lost or repeated data.
    """
    stats = outputs.stats
    counted_and_received = {
        "label occurrences before rare labels are dropped": (
            sum(one.bucket.label_occurrences for one in stats),
            outputs.kept_labels.total,
        ),
        "label occurrences of the dataset": (
            sum(one.label_occurrences for one in stats),
            int(positives.sum()),
        ),
        "tokens of the train split": (
            sum(one.train_tokens for one in stats),
            outputs.vocabulary.total,
        ),
        "n-grams of the train split": (
            sum(one.train_ngrams for one in stats),
            outputs.ngrams.total if outputs.ngrams else 0,
        ),
    }
    differences = {
        kind: counted - received
        for kind, (counted, received) in counted_and_received.items()
        if counted != received
    }
    return differences | missing(outputs.row_accounting)


def _document_counts(outputs: Outputs, splits: dict[str, SplitInfo]) -> Counts:
    stats, buckets = outputs.stats, [one.bucket for one in outputs.stats]
    return Counts(
        read=sum(rows for _, rows in outputs.read),
        rejected=next(iter(outputs.reject_counts), {}),
        duplicates=sum(bucket.duplicates for bucket in buckets),
        duplicates_with_other_labels=sum(bucket.duplicates_with_other_labels for bucket in buckets),
        near_duplicates=sum(bucket.near_duplicates for bucket in buckets),
        dropped_without_labels=sum(bucket.dropped_without_labels for bucket in buckets),
        written=sum(split.examples for split in splits.values()),
        written_without_labels=int(sum(one.without_labels.sum() for one in stats)),
    )


def _unspaced(outputs: Outputs) -> np.ndarray:
    none = np.zeros((len(UNSPACED), 3), np.int64)
    return sum((one.unspaced for one in outputs.stats), none)


def _label_counts(outputs: Outputs) -> LabelCounts:
    kept = outputs.kept_labels
    changes = sum((one.bucket.label_changes for one in outputs.stats), LabelChanges())
    return LabelCounts(
        **changes.model_dump(),
        distinct=kept.distinct,
        below_min_count=kept.distinct - kept.frequent,
        beyond_top_k=kept.frequent - int(np.count_nonzero(kept.counts["count"])),
        occurrences=kept.total,
        occurrences_kept=pc.sum(kept.counts["count"], min_count=0).as_py(),
    )


def _splits(outputs: Outputs) -> dict[str, SplitInfo]:
    token_lengths = Histogram.sum(one.token_lengths for one in outputs.stats)
    in_order = sorted(outputs.shards, key=lambda shard: shard[:2])
    splits = {}
    for i, split in enumerate(SPLITS):
        shards = tuple(info for name, _, info in in_order if name == split)
        splits[split] = SplitInfo(
            examples=sum(shard.examples for shard in shards),
            shards=shards,
            token_length_quantiles=token_lengths.quantiles(i),
        )
    return splits


def _statistics(outputs: Outputs, positives: np.ndarray) -> dict:
    """The content of `statistics.json`."""
    top_labels = top_labels_of(outputs.kept_labels)
    no_co_occurrence = np.zeros((len(top_labels), len(top_labels)), np.int64)
    statistics = describe(
        label_names=sorted_names(outputs.kept_labels),
        positives=positives,
        labels_per_document=Histogram.sum(one.labels_per_document for one in outputs.stats),
        token_lengths=Histogram.sum(one.token_lengths for one in outputs.stats),
        top_labels=top_labels,
        co_occurrence=sum((one.co_occurrence for one in outputs.stats), no_co_occurrence),
    )
    if outputs.leaks is not None:
        leaks = sum(outputs.leaks, np.zeros((len(SPLITS), len(SPLITS)), np.int64))
        statistics["near_duplicates"] = {
            split: {f"in {SPLITS[j]}": int(leaks[i, j]) for j in range(i + 1)}
            for i, split in enumerate(SPLITS)
        }
    return statistics


# --- files -----------------------------------------------------------------------------


def _write_labels(dataset_dir: str, names: pa.Array, positives: np.ndarray) -> None:
    with places.create(f"{dataset_dir}/{LABELS}") as stream:
        separator = "[\n"
        # One at a time: there may be a million.
        for name, counts in zip(names, positives, strict=True):
            by_split = dict(zip(SPLITS, counts.tolist(), strict=True))
            row = {"name": name.as_py(), "positives": by_split}
            stream.write(f"{separator}{json.dumps(row, ensure_ascii=False)}".encode())
            separator = ",\n"
        stream.write(b"\n]\n" if len(names) else b"[]\n")


def _write_vocabulary(dataset_dir: str, vocabulary: pa.Table) -> None:
    _write_lines(f"{dataset_dir}/{VOCABULARY}", vocabulary["name"])
    _write_array(f"{dataset_dir}/{DOCUMENT_COUNTS}", vocabulary["count"])
    _write_array(f"{dataset_dir}/{TERM_COUNTS}", vocabulary["occurrences"])


def _write_ngrams(dataset_dir: str, ngrams: pa.Table, vocabulary: pa.Table) -> None:
    """Writes the n-grams whose tokens are all in the vocabulary.

    A model looks them up by the ids of their tokens.
    """
    tokens = pc.split_pattern(ngrams["name"], " ")
    is_known = pc.is_in(pc.list_flatten(tokens), value_set=vocabulary["name"].combine_chunks())
    unknown_tokens = np.bincount(
        pc.list_parent_indices(tokens).to_numpy(),
        pc.invert(is_known).to_numpy(),
        minlength=ngrams.num_rows,
    )
    ngrams = ngrams.filter(pa.array(unknown_tokens == 0))
    _write_lines(f"{dataset_dir}/{NGRAMS}", ngrams["name"])
    _write_array(f"{dataset_dir}/{NGRAM_DOCUMENT_COUNTS}", ngrams["count"])


def _write_lines(path: str, names: pa.ChunkedArray) -> None:
    places.write(path, "".join(f"{name}\n" for name in names.to_pylist()).encode())


def _write_array(path: str, numbers: pa.ChunkedArray) -> None:
    with places.create(path) as stream:
        np.save(stream, numbers.to_numpy(), allow_pickle=False)
