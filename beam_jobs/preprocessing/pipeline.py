"""The preprocessing pipeline: parts of the input -> every file of the dataset but its manifest."""

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import AsIter, AsList, AsSingleton

from beam_jobs.contract.config import Config
from beam_jobs.contract.dataset_config import StratifiedSplits, TimeFractionSplits
from beam_jobs.preprocessing.analyze import Analyze
from beam_jobs.preprocessing.buckets import Bucket, order_keys, read_table
from beam_jobs.preprocessing.finish import finish, sorted_names, top_labels_of
from beam_jobs.preprocessing.frequencies import MostFrequent, count_documents
from beam_jobs.preprocessing.labels import LabelRules
from beam_jobs.preprocessing.merge_duplicates import MergeDuplicates
from beam_jobs.preprocessing.near_duplicates import CountLeaks, DropNearDuplicates
from beam_jobs.preprocessing.read import READ_TAG, BatchDocuments, ReadPart
from beam_jobs.preprocessing.rejects import reject_table, sort_rejects, write_rejects
from beam_jobs.preprocessing.stratified_split import Stratify
from beam_jobs.preprocessing.subwords import WordsToPieces
from beam_jobs.preprocessing.tally import (
    NGRAM_COUNTS_TAG,
    POSITIVES,
    POSITIVES_TAG,
    TOKEN_COUNTS_TAG,
    Tally,
    TallyBucket,
    sum_positives,
)
from beam_jobs.preprocessing.time_split import SplitByTime
from beam_jobs.preprocessing.writer import WriteShard, plan_shards
from beam_jobs.runtime import document_counters
from beam_jobs.runtime.spill import SpillByKey, read_segments
from beam_jobs.runtime.step_times import Timed
from beam_jobs.sources.batches import REJECTS_TAG
from beam_jobs.sources.custom import TransformSource
from beam_jobs.sources.registry import Reader


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
        rows = (
            pipeline
            | "Parts" >> beam.Create(list(enumerate(parts)))
            | "SpreadParts" >> beam.Reshuffle()
        )  # (number, files)
        read_rows = ReadPart(reader, progress_dir)
    read = rows | "Read" >> beam.ParDo(Timed("read", read_rows)).with_outputs(
        REJECTS_TAG, READ_TAG, main="documents"
    )  # list[Document]
    analyzed = read.documents | "Analyze" >> beam.ParDo(
        Timed(
            "analyze",
            Analyze(config.text.without_subwords, len(record_spec.text_names), config.splits),
        )
    ).with_outputs(REJECTS_TAG, main="documents")  # tables
    # Spilled before they are flattened: what a Flatten takes, the local runner holds in memory.
    spilled_rejects = [
        rejects
        | f"RejectTable{stage}" >> beam.Map(reject_table)
        | f"SpillRejects{stage}" >> beam.ParDo(SpillByKey(work_dir))
        for stage, rejects in (("Reading", read[REJECTS_TAG]), ("Analysis", analyzed[REJECTS_TAG]))
    ]
    reject_counts = (
        spilled_rejects
        | "AllRejects" >> beam.Flatten()
        | "GroupRejects" >> beam.GroupByKey()
        | "SortRejects"
        >> beam.MapTuple(
            lambda partition, segments: (None, sort_rejects(partition, segments, work_dir))
        )
        | "GroupSortedRejects" >> beam.GroupByKey()
        | "WriteRejects" >> beam.Map(lambda element: write_rejects(element[1], dataset_dir))
    )  # {reason: count}, or nothing
    buckets = (
        analyzed.documents
        | "Bucket" >> beam.Map(with_bucket, bits=bucket_bits)
        | "SpillDocuments" >> beam.ParDo(Timed("spill", SpillByKey(work_dir)))
        | "GroupBucket" >> beam.GroupByKey()
        | "MergeDuplicates"
        >> beam.ParDo(
            Timed("merge", MergeDuplicates(work_dir, config.splits, LabelRules(config.labels)))
        )
    )  # Bucket
    near = (work_dir, config.duplicates.similarity, config.duplicates.shingle_tokens)
    balances, pieces = [], None
    if config.duplicates.near == "drop":
        buckets, balance = buckets | "NearDuplicates" >> DropNearDuplicates(*near)
        balances.append(balance)
    kept_labels = (
        buckets
        | "CountLabels" >> beam.Map(_label_counts)
        | "KeepLabels" >> MostFrequent(work_dir, config.labels.min_count, config.labels.top_k)
    )  # one Frequencies
    label_names = kept_labels | "SortLabels" >> beam.Map(
        sorted_names
    )  # one array of names; a label's id is its place
    if isinstance(config.splits, StratifiedSplits):
        buckets = buckets | "Stratify" >> Stratify(
            work_dir, config.splits, keep_unlabeled, label_names, kept_labels
        )
    if isinstance(config.splits, TimeFractionSplits):
        buckets = buckets | "SplitByTime" >> SplitByTime(
            work_dir, config.splits, keep_unlabeled, label_names
        )
    if config.duplicates.near == "report":
        leaks, balance = buckets | "Leaks" >> CountLeaks(*near)
        balances.append(balance)
    if config.text.subwords is not None:
        to_pieces = WordsToPieces(
            work_dir, config.text, config.vocabulary, keep_unlabeled, label_names
        )
        buckets, pieces, balance = buckets | "WordsToPieces" >> to_pieces
        balances.append(balance)
    top_labels = kept_labels | "TopLabels" >> beam.Map(
        top_labels_of
    )  # one array of label ids, most frequent first
    tally = beam.ParDo(
        Timed("count", TallyBucket(keep_unlabeled, config.vocabulary.ngrams)),
        AsSingleton(label_names),
        AsSingleton(top_labels),
    )
    tallied = buckets | "Tally" >> tally.with_outputs(
        TOKEN_COUNTS_TAG, NGRAM_COUNTS_TAG, POSITIVES_TAG, main="tallies"
    )
    positives = (
        tallied[POSITIVES_TAG]
        | "SpillPositives" >> beam.ParDo(SpillByKey(work_dir))
        | "GroupPositives" >> beam.GroupByKey()
        | "SumPositives"
        >> beam.Map(lambda element: sum_positives(read_segments(element[1], POSITIVES)))
    )  # POSITIVES, a table for each partition of the labels
    vocabulary = tallied[TOKEN_COUNTS_TAG] | "Vocabulary" >> MostFrequent(
        work_dir, config.vocabulary.min_document_count, config.vocabulary.size
    )  # one Frequencies
    ngrams = None
    if config.vocabulary.ngrams > 1:
        most = MostFrequent(
            work_dir, config.vocabulary.min_document_count, config.vocabulary.max_ngrams
        )
        ngrams = AsSingleton(tallied[NGRAM_COUNTS_TAG] | "Ngrams" >> most)
    start = pipeline | "Start" >> beam.Create([None])
    shards = (
        start
        | "PlanShards"
        >> beam.FlatMap(
            lambda _, tallies: plan_shards(tallies, config.output, 1 << bucket_bits),
            AsList(tallied.tallies),
        )
        | "SpreadShards" >> beam.Reshuffle()
        | "WriteShards"
        >> beam.ParDo(
            Timed(
                "write",
                WriteShard(
                    config.name, dataset_dir, record_spec, keep_unlabeled, config.output.compression
                ),
            ),
            AsSingleton(label_names),
        )
    )  # (split, index, ShardInfo)
    _ = read[READ_TAG] | "CountRead" >> beam.MapTuple(
        lambda _, rows: document_counters.increment(read=rows)
    )
    for stage, rejects in (("Reading", read[REJECTS_TAG]), ("Analysis", analyzed[REJECTS_TAG])):
        _ = rejects | f"CountRejected{stage}" >> beam.Map(
            lambda batch: document_counters.increment(rejected=len(batch))
        )
    _ = tallied.tallies | "CountLeftOut" >> beam.Map(_count_left_out)
    _ = shards | "CountWritten" >> beam.MapTuple(
        lambda _split, _index, shard: document_counters.increment(written=shard.examples)
    )
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
    document_counters.increment(
        duplicates=tally.duplicates,
        near_duplicates=tally.bucket.near_duplicates,
        dropped_without_labels=tally.dropped,
    )


def with_bucket(documents: pa.Table, bits: int) -> pa.Table:
    buckets = (order_keys(documents["digest"]) >> np.uint64(32)).astype(np.int64) >> (32 - bits)
    return documents.append_column("key", pa.array(buckets))


def _label_counts(bucket: Bucket) -> pa.Table:
    return count_documents(read_table(bucket.path)["labels"])
