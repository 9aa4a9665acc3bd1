"""The preprocessing pipeline: parts of the input -> every file of the dataset but its manifest."""

import json
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsIter, AsList, AsSingleton

from beam_jobs.contract.config import Config
from beam_jobs.contract.dataset_config import StratifiedSplits, TimeFractionSplits
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
from beam_jobs.preprocessing.analyze import REJECTS_TAG, Analyze, order_keys
from beam_jobs.preprocessing.dataset_statistics import TOP_LABELS, describe, quantiles
from beam_jobs.preprocessing.frequencies import Frequencies, MostFrequent, count_documents
from beam_jobs.preprocessing.labels import LabelRules
from beam_jobs.preprocessing.merge_duplicates import Bucket, MergeDuplicates, read_table
from beam_jobs.preprocessing.near_duplicates import CountLeaks, DropNearDuplicates
from beam_jobs.preprocessing.read import READ_TAG, BatchDocuments, ReadPart, reject_table, sort_rejects, write_rejects
from beam_jobs.preprocessing.stratified_split import Stratify
from beam_jobs.preprocessing.subwords import WordsToPieces
from beam_jobs.preprocessing.tally import NGRAM_COUNTS_TAG, POSITIVES, POSITIVES_TAG, TOKEN_COUNTS_TAG, Tally, TallyBucket, sum_positives
from beam_jobs.preprocessing.time_split import SplitByTime
from beam_jobs.preprocessing.writer import WriteShard, plan_shards
from beam_jobs.runtime.counters import count
from beam_jobs.runtime.row_accounting import imbalance
from beam_jobs.runtime.spill import SpillByKey, read_segments
from beam_jobs.runtime.step_times import Timed
from beam_jobs.sources.custom import TransformSource
from beam_jobs.sources.registry import Reader

RESULTS = "results.json"


class Results(Section):
    """What the pipeline tells the process that started it, in `results.json` of the work directory."""

    parts: tuple[int, ...]
    counts: Counts
    uncounted_names: int
    splits: dict[str, SplitInfo]
    num_labels: int
    label_counts: LabelCounts
    vocabulary_size: int
    has_weights: bool
    wordpiece: tuple[str, ...] | None


def build(
    pipeline: beam.Pipeline,
    *,
    config: Config,
    reader: Reader | TransformSource,
    parts: list,
    bucket_bits: int,
    dataset_dir: str,
    work_dir: str,
    progress_dir: str | None,
) -> None:
    """Adds every stage to the pipeline.

    Args:
      pipeline: an empty pipeline.
      config: the experiment.
      reader: the source.
      parts: lists of input files, the units of parallel reading; of a transform there are none.
      bucket_bits: documents are merged in 2**bucket_bits buckets; changes memory and parallelism, never the output.
      dataset_dir: where the dataset's files are written.
      work_dir: where spilled data and `results.json` go.
      progress_dir: where finished parts are told of; None: nowhere.
    """
    keep_unlabeled, record_spec = config.labels.keep_unlabeled, config.data.record_spec
    if isinstance(reader, TransformSource):
        rows, read_rows = pipeline | "Source" >> reader.transform, BatchDocuments(reader)
    else:
        rows = pipeline | "Parts" >> beam.Create(list(enumerate(parts))) | "SpreadParts" >> beam.Reshuffle()  # (number, files)
        read_rows = ReadPart(reader, progress_dir)
    read = rows | "Read" >> beam.ParDo(Timed("read", read_rows)).with_outputs(REJECTS_TAG, READ_TAG, main="documents")  # list[Document]
    analyzed = read.documents | "Analyze" >> beam.ParDo(
        Timed("analyze", Analyze(config.text.up_to_words, len(record_spec.text_names), config.splits))
    ).with_outputs(REJECTS_TAG, main="documents")  # tables
    # Spilled before they are flattened: what a Flatten takes, the local runner holds in memory.
    spilled_rejects = [
        rejects | f"RejectTable{stage}" >> beam.Map(reject_table) | f"SpillRejects{stage}" >> beam.ParDo(SpillByKey(work_dir))
        for stage, rejects in (("Reading", read[REJECTS_TAG]), ("Analysis", analyzed[REJECTS_TAG]))
    ]
    reject_counts = (
        spilled_rejects
        | "AllRejects" >> beam.Flatten()
        | "GroupRejects" >> beam.GroupByKey()
        | "SortRejects" >> beam.MapTuple(lambda partition, segments: (None, sort_rejects(partition, segments, work_dir)))
        | "GroupSortedRejects" >> beam.GroupByKey()
        | "WriteRejects" >> beam.Map(lambda element: write_rejects(element[1], dataset_dir))
    )  # {reason: count}, or nothing
    buckets = (
        analyzed.documents
        | "Bucket" >> beam.Map(with_bucket, bits=bucket_bits)
        | "SpillDocuments" >> beam.ParDo(Timed("spill", SpillByKey(work_dir)))
        | "GroupBucket" >> beam.GroupByKey()
        | "MergeDuplicates" >> beam.ParDo(Timed("merge", MergeDuplicates(work_dir, config.splits, LabelRules(config.labels))))
    )  # Bucket
    near = (work_dir, config.duplicates.similarity, config.duplicates.shingle_tokens)
    balances, pieces = [], None
    if config.duplicates.near == "drop":
        buckets, balance = buckets | "NearDuplicates" >> DropNearDuplicates(*near)
        balances.append(balance)
    kept_labels = (
        buckets | "CountLabels" >> beam.Map(_label_counts) | "KeepLabels" >> MostFrequent(work_dir, config.labels.min_count, config.labels.top_k)
    )  # one Frequencies
    label_names = kept_labels | "SortLabels" >> beam.Map(sorted_names)  # one array of names; a label's id is its place
    if isinstance(config.splits, StratifiedSplits):
        buckets = buckets | "Stratify" >> Stratify(work_dir, config.splits, keep_unlabeled, label_names, kept_labels)
    if isinstance(config.splits, TimeFractionSplits):
        buckets = buckets | "SplitByTime" >> SplitByTime(work_dir, config.splits, keep_unlabeled, label_names)
    if config.duplicates.near == "report":
        leaks, balance = buckets | "Leaks" >> CountLeaks(*near)
        balances.append(balance)
    if config.text.wordpiece is not None:
        to_pieces = WordsToPieces(work_dir, config.text, config.vocabulary, keep_unlabeled, label_names)
        buckets, pieces, balance = buckets | "WordsToPieces" >> to_pieces
        balances.append(balance)
    top_labels = kept_labels | "TopLabels" >> beam.Map(top_labels_of)  # one array of label ids, most frequent first
    tally = beam.ParDo(Timed("count", TallyBucket(keep_unlabeled, config.vocabulary.ngrams)), AsSingleton(label_names), AsSingleton(top_labels))
    tallied = buckets | "Tally" >> tally.with_outputs(TOKEN_COUNTS_TAG, NGRAM_COUNTS_TAG, POSITIVES_TAG, main="tallies")
    positives = (
        tallied[POSITIVES_TAG]
        | "SpillPositives" >> beam.ParDo(SpillByKey(work_dir))
        | "GroupPositives" >> beam.GroupByKey()
        | "SumPositives" >> beam.Map(lambda element: sum_positives(read_segments(element[1], POSITIVES)))
    )  # POSITIVES, a table for each partition of the labels
    vocabulary = tallied[TOKEN_COUNTS_TAG] | "Vocabulary" >> MostFrequent(
        work_dir, config.vocabulary.min_document_count, config.vocabulary.max_tokens
    )  # one Frequencies
    ngrams = None
    if config.vocabulary.ngrams > 1:
        most = MostFrequent(work_dir, config.vocabulary.min_document_count, config.vocabulary.max_ngrams)
        ngrams = AsSingleton(tallied[NGRAM_COUNTS_TAG] | "Ngrams" >> most)
    start = pipeline | "Start" >> beam.Create([None])
    shards = (
        start
        | "PlanShards" >> beam.FlatMap(lambda _, tallies: plan_shards(tallies, config.output, 1 << bucket_bits), AsList(tallied.tallies))
        | "SpreadShards" >> beam.Reshuffle()
        | "WriteShards"
        >> beam.ParDo(
            Timed("write", WriteShard(config.name, dataset_dir, record_spec, keep_unlabeled, config.output.compression)), AsSingleton(label_names)
        )
    )  # (split, index, ShardInfo)
    _ = read[READ_TAG] | "CountRead" >> beam.MapTuple(lambda _, rows: count(read=rows))
    for stage, rejects in (("Reading", read[REJECTS_TAG]), ("Analysis", analyzed[REJECTS_TAG])):
        _ = rejects | f"CountRejected{stage}" >> beam.Map(lambda batch: count(rejected=len(batch)))
    _ = tallied.tallies | "CountLeftOut" >> beam.Map(_count_left_out)
    _ = shards | "CountWritten" >> beam.MapTuple(lambda _split, _index, shard: count(written=shard.examples))
    _ = start | "Finish" >> beam.Map(
        finish,
        dataset_dir,
        work_dir,
        read=AsList(read[READ_TAG]),
        rejected=AsIter(reject_counts),
        tallies=AsList(tallied.tallies),
        positives=AsList(positives),
        leaks=AsList(leaks) if config.duplicates.near == "report" else None,
        balance=AsIter(balances | "Balances" >> beam.Flatten()) if balances else (),
        shards=AsList(shards),
        kept_labels=AsSingleton(kept_labels),
        vocabulary=AsSingleton(vocabulary),
        ngrams=ngrams,
        pieces=AsSingleton(pieces) if pieces else None,
    )


def _count_left_out(tally: Tally) -> None:
    count(duplicates=tally.duplicates, near_duplicates=tally.bucket.near_duplicates, dropped_without_labels=tally.dropped)


def with_bucket(documents: pa.Table, bits: int) -> pa.Table:
    buckets = (order_keys(documents["digest"]) >> np.uint64(32)).astype(np.int64) >> (32 - bits)
    return documents.append_column("key", pa.array(buckets))


def _label_counts(bucket: Bucket) -> pa.Table:
    return count_documents(read_table(bucket.path)["labels"])


def sorted_names(frequencies: Frequencies) -> pa.Array:
    return pc.take(names := frequencies.counts["name"].combine_chunks(), pc.sort_indices(names))


def _name_splits(leaks: np.ndarray) -> dict[str, dict[str, int]]:
    """By split: how many of its documents have a near-duplicate in the same split or in one before."""
    return {split: {f"in {SPLITS[j]}": int(leaks[i, j]) for j in range(i + 1)} for i, split in enumerate(SPLITS)}


def top_labels_of(frequencies: Frequencies) -> np.ndarray:
    top = frequencies.counts["name"].combine_chunks()[:TOP_LABELS]
    return pc.index_in(top, value_set=sorted_names(frequencies)).to_numpy().astype(np.int64)


def finish(
    _,
    dataset_dir: str,
    work_dir: str,
    *,
    read,
    rejected,
    tallies: list[Tally],
    positives: list[pa.Table],
    leaks: list[np.ndarray] | None,
    balance: Iterable[tuple[str, int]],
    shards,
    kept_labels: Frequencies,
    vocabulary: Frequencies,
    ngrams: Frequencies | None,
    pieces: tuple[str, ...] | None,
) -> None:
    """Writes labels, vocabulary and results."""
    label_names = sorted_names(kept_labels)
    counted = pa.concat_tables([POSITIVES.empty_table(), *positives])
    by_label = np.zeros((len(label_names), len(SPLITS)), np.int64)
    by_label[counted["label"].to_numpy(), counted["split"].to_numpy()] = counted["count"].to_numpy()
    _write_labels(f"{dataset_dir}/{LABELS}", label_names, by_label)
    token_lengths, labels_each = (_add([getattr(tally, key) for tally in tallies]) for key in ("token_lengths", "labels_each"))
    top_labels = top_labels_of(kept_labels)
    statistics = describe(
        label_names=label_names,
        positives=by_label,
        labels_each=labels_each,
        token_lengths=token_lengths,
        top_labels=top_labels,
        together=sum((tally.together for tally in tallies), np.zeros((len(top_labels), len(top_labels)), np.int64)),
    )
    if leaks is not None:
        statistics["near_duplicates"] = _name_splits(sum(leaks, np.zeros((len(SPLITS), len(SPLITS)), np.int64)))
    _write(f"{dataset_dir}/{STATISTICS}", dump_json(statistics).encode())
    _write(f"{dataset_dir}/{VOCABULARY}", "".join(f"{token}\n" for token in vocabulary.counts["name"].to_pylist()).encode())
    for file, column in ((DOCUMENT_COUNTS, "count"), (TERM_COUNTS, "occurrences")):
        with FileSystems.create(f"{dataset_dir}/{file}") as stream:
            np.save(stream, vocabulary.counts[column].to_numpy(), allow_pickle=False)
    if ngrams is not None:
        _write_ngrams(dataset_dir, ngrams.counts, vocabulary.counts)
    splits = {
        split: _split_info(token_lengths[i], [info for name, _, info in sorted(shards, key=_place) if name == split])
        for i, split in enumerate(SPLITS)
    }
    results = Results(
        parts=tuple(sorted(number for number, _ in read if number is not None)),
        counts=Counts(
            read=sum(rows for _, rows in read),
            rejected=next(iter(rejected), {}),
            duplicates=sum(tally.duplicates for tally in tallies),
            near_duplicates=sum(tally.bucket.near_duplicates for tally in tallies),
            dropped_without_labels=sum(tally.dropped for tally in tallies),
            written=sum(split.examples for split in splits.values()),
            written_without_labels=int(sum(tally.without_labels.sum() for tally in tallies)),
        ),
        uncounted_names=abs(sum(tally.merged_labels for tally in tallies) - kept_labels.total)
        + abs(sum(tally.kept_labels for tally in tallies) - int(by_label.sum()))
        + abs(sum(tally.train_tokens for tally in tallies) - vocabulary.total)
        + (abs(sum(tally.train_ngrams for tally in tallies) - ngrams.total) if ngrams is not None else 0)
        + imbalance(balance),
        splits=splits,
        num_labels=len(label_names),
        label_counts=_label_counts_of(tallies, kept_labels),
        vocabulary_size=vocabulary.counts.num_rows,
        has_weights=any(tally.has_weights for tally in tallies),
        wordpiece=pieces,
    )
    _write(f"{work_dir}/{RESULTS}", json.dumps(results.model_dump(mode="json")).encode())


def _label_counts_of(tallies: list[Tally], kept: Frequencies) -> LabelCounts:
    changes = sum((tally.bucket.label_changes for tally in tallies), LabelChanges())
    return LabelCounts(
        **changes.model_dump(),
        distinct=kept.distinct,
        below_min_count=kept.distinct - kept.frequent,
        beyond_top_k=kept.frequent - kept.counts.num_rows,
        occurrences=kept.total,
        occurrences_kept=pc.sum(kept.counts["count"], min_count=0).as_py(),
    )


def _write_ngrams(dataset_dir: str, ngrams: pa.Table, vocabulary: pa.Table) -> None:
    """Those n-grams whose tokens all stand in the vocabulary: a model looks them up by the ids of their tokens."""
    tokens = pc.split_pattern(ngrams["name"], " ")
    is_unknown = pc.invert(pc.is_in(pc.list_flatten(tokens), value_set=vocabulary["name"].combine_chunks())).to_numpy()
    unknown = np.bincount(pc.list_parent_indices(tokens).to_numpy(), is_unknown, minlength=ngrams.num_rows)
    ngrams = ngrams.filter(pa.array(unknown == 0))
    _write(f"{dataset_dir}/{NGRAMS}", "".join(f"{ngram}\n" for ngram in ngrams["name"].to_pylist()).encode())
    with FileSystems.create(f"{dataset_dir}/{NGRAM_DOCUMENT_COUNTS}") as stream:
        np.save(stream, ngrams["count"].to_numpy(), allow_pickle=False)


def _write_labels(path: str, names: pa.Array, positives: np.ndarray) -> None:
    with FileSystems.create(path) as stream:
        start = "[\n"
        for name, counts in zip(names, positives, strict=True):  # one at a time: there may be a million
            row = {"name": name.as_py(), "positives": dict(zip(SPLITS, counts.tolist(), strict=True))}
            stream.write(f"{start}{json.dumps(row, ensure_ascii=False)}".encode())
            start = ",\n"
        stream.write(b"\n]\n" if len(names) else b"[]\n")


def _place(shard: tuple[str, int, ShardInfo]) -> tuple[str, int]:
    return shard[0], shard[1]


def _split_info(token_lengths: np.ndarray, shards: list[ShardInfo]) -> SplitInfo:
    return SplitInfo(examples=sum(shard.examples for shard in shards), shards=tuple(shards), token_length_quantiles=quantiles(token_lengths))


def _add(histograms: list[np.ndarray]) -> np.ndarray:
    """The sum of int64 [splits, any length]."""
    total = np.zeros((len(SPLITS), max((histogram.shape[1] for histogram in histograms), default=1)), np.int64)
    for histogram in histograms:
        total[:, : histogram.shape[1]] += histogram
    return total


def _write(path: str, content: bytes) -> None:
    with FileSystems.create(path) as stream:
        stream.write(content)
