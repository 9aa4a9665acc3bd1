"""The preprocessing pipeline: parts of the input -> every file of the dataset but its manifest."""

import json

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsIter, AsList, AsSingleton

from beam_jobs.analysis import REJECTS_TAG, Analyze, order_keys
from beam_jobs.contract.config import Config
from beam_jobs.contract.manifest import (
    DOCUMENT_COUNTS,
    LABELS,
    SPLITS,
    TOKEN_LENGTH_QUANTILES,
    VOCABULARY,
    Counts,
    ShardInfo,
    SplitInfo,
    dump_json,
)
from beam_jobs.contract.validation import Section
from beam_jobs.counting import Frequencies, MostFrequent, count_documents
from beam_jobs.merging import Bucket, MergeDuplicates, read_table
from beam_jobs.readers import Reader
from beam_jobs.reading import READ_TAG, ReadPart, reject_table, write_rejects
from beam_jobs.selection import TOKEN_COUNTS_TAG, Tally, TallyBucket
from beam_jobs.spill import SpillByKey
from beam_jobs.writer import WriteShard, plan_shards

RESULTS = "results.json"


class Results(Section):
    """What the pipeline tells the process that started it, in `results.json` of the work directory."""

    parts: tuple[int, ...]
    counts: Counts
    uncounted_names: int
    splits: dict[str, SplitInfo]
    num_labels: int
    vocabulary_size: int


def build(
    pipeline: beam.Pipeline,
    *,
    config: Config,
    reader: Reader,
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
      parts: lists of input files, the units of parallel reading.
      bucket_bits: documents are merged in 2**bucket_bits buckets; changes memory and parallelism, never the output.
      dataset_dir: where the dataset's files are written.
      work_dir: where spilled data and `results.json` go.
      progress_dir: where finished parts are told of; None: nowhere.
    """
    keep_unlabeled = config.labels.keep_unlabeled
    read = (
        pipeline
        | "Parts" >> beam.Create(list(enumerate(parts)))  # (number, files)
        | "SpreadParts" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(ReadPart(reader, progress_dir)).with_outputs(REJECTS_TAG, READ_TAG, main="documents")
    )  # list[Document]
    analyzed = read.documents | "Analyze" >> beam.ParDo(Analyze(config.text)).with_outputs(REJECTS_TAG, main="documents")  # tables
    reject_counts = (
        (read[REJECTS_TAG], analyzed[REJECTS_TAG])
        | "AllRejects" >> beam.Flatten()
        | "RejectTable" >> beam.Map(reject_table)
        | "SpillRejects" >> beam.ParDo(SpillByKey(work_dir))
        | "GroupRejects" >> beam.GroupByKey()
        | "WriteRejects" >> beam.Map(lambda element: write_rejects(element[1], dataset_dir))
    )  # {reason: count}, or nothing
    buckets = (
        analyzed.documents
        | "Bucket" >> beam.Map(_with_bucket, bits=bucket_bits)
        | "SpillDocuments" >> beam.ParDo(SpillByKey(work_dir))
        | "GroupBucket" >> beam.GroupByKey()
        | "MergeDuplicates" >> beam.ParDo(MergeDuplicates(work_dir, config.splits))
    )  # Bucket
    kept_labels = (
        buckets | "CountLabels" >> beam.Map(_label_counts) | "KeepLabels" >> MostFrequent(work_dir, config.labels.min_count, config.labels.top_k)
    )  # one Frequencies
    label_names = kept_labels | "SortLabels" >> beam.Map(_sorted_names)  # one array of names; a label's id is its place
    tallied = buckets | "Tally" >> beam.ParDo(TallyBucket(keep_unlabeled), AsSingleton(label_names)).with_outputs(TOKEN_COUNTS_TAG, main="tallies")
    vocabulary = tallied[TOKEN_COUNTS_TAG] | "Vocabulary" >> MostFrequent(
        work_dir, config.vocabulary.min_document_count, config.vocabulary.max_tokens
    )  # one Frequencies
    start = pipeline | "Start" >> beam.Create([None])
    shards = (
        start
        | "PlanShards" >> beam.FlatMap(lambda _, tallies: plan_shards(tallies, config.output, 1 << bucket_bits), AsList(tallied.tallies))
        | "SpreadShards" >> beam.Reshuffle()
        | "WriteShards" >> beam.ParDo(WriteShard(config.name, dataset_dir, keep_unlabeled), AsSingleton(label_names))
    )  # (split, index, ShardInfo)
    _ = start | "Finish" >> beam.Map(
        _finish,
        dataset_dir,
        work_dir,
        read=AsList(read[READ_TAG]),
        rejected=AsIter(reject_counts),
        tallies=AsList(tallied.tallies),
        shards=AsList(shards),
        kept_labels=AsSingleton(kept_labels),
        vocabulary=AsSingleton(vocabulary),
    )


def _with_bucket(documents: pa.Table, bits: int) -> pa.Table:
    buckets = (order_keys(documents["digest"]) >> np.uint64(32)).astype(np.int64) >> (32 - bits)
    return documents.append_column("key", pa.array(buckets))


def _label_counts(bucket: Bucket) -> pa.Table:
    return count_documents(read_table(bucket.path)["labels"])


def _sorted_names(frequencies: Frequencies) -> pa.Array:
    return pa.array(sorted(frequencies.counts["name"].to_pylist()), pa.large_string())


def _finish(
    _, dataset_dir: str, work_dir: str, *, read, rejected, tallies: list[Tally], shards, kept_labels: Frequencies, vocabulary: Frequencies
) -> None:
    """Writes labels, vocabulary and results."""
    label_names = _sorted_names(kept_labels)
    positives = sum((tally.positives for tally in tallies), np.zeros((len(SPLITS), len(label_names)), np.int64))
    labels = [
        {"name": name, "positives": dict(zip(SPLITS, counts, strict=True))}
        for name, counts in zip(label_names.to_pylist(), positives.T.tolist(), strict=True)
    ]
    _write(f"{dataset_dir}/{LABELS}", dump_json(labels).encode())
    _write(f"{dataset_dir}/{VOCABULARY}", "".join(f"{token}\n" for token in vocabulary.counts["name"].to_pylist()).encode())
    with FileSystems.create(f"{dataset_dir}/{DOCUMENT_COUNTS}") as stream:
        np.save(stream, vocabulary.counts["count"].to_numpy(), allow_pickle=False)
    splits = {
        split: _split_info(i, tallies, [info for name, _, info in sorted(shards, key=_place) if name == split]) for i, split in enumerate(SPLITS)
    }
    results = Results(
        parts=tuple(sorted(number for number, _ in read)),
        counts=Counts(
            read=sum(rows for _, rows in read),
            rejected=next(iter(rejected), {}),
            duplicates=sum(tally.duplicates for tally in tallies),
            dropped_without_labels=sum(tally.dropped for tally in tallies),
            written=sum(split.examples for split in splits.values()),
            written_without_labels=int(sum(tally.without_labels.sum() for tally in tallies)),
        ),
        uncounted_names=abs(sum(tally.merged_labels for tally in tallies) - kept_labels.total)
        + abs(sum(tally.train_tokens for tally in tallies) - vocabulary.total),
        splits=splits,
        num_labels=len(labels),
        vocabulary_size=vocabulary.counts.num_rows,
    )
    _write(f"{work_dir}/{RESULTS}", json.dumps(results.model_dump(mode="json")).encode())


def _place(shard: tuple[str, int, ShardInfo]) -> tuple[str, int]:
    return shard[0], shard[1]


def _split_info(split: int, tallies: list[Tally], shards: list[ShardInfo]) -> SplitInfo:
    longest = max((tally.token_lengths.shape[1] for tally in tallies), default=1)
    lengths = np.zeros(longest, np.int64)  # documents by number of tokens
    for tally in tallies:
        lengths[: tally.token_lengths.shape[1]] += tally.token_lengths[split]
    below = np.cumsum(lengths)
    quantiles = {f"{q:g}": int(np.searchsorted(below, max(1, np.ceil(q * below[-1])))) for q in TOKEN_LENGTH_QUANTILES} if below[-1] else {}
    return SplitInfo(examples=sum(shard.examples for shard in shards), shards=tuple(shards), token_length_quantiles=quantiles)


def _write(path: str, content: bytes) -> None:
    with FileSystems.create(path) as stream:
        stream.write(content)
