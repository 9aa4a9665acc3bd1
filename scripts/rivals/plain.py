"""The preprocessing job's work without Beam: a pool of processes, with files between the stages."""

import itertools
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.contract.config import Config
from beam_jobs.contract.word_lists import resolve
from beam_jobs.preprocessing import finish, tfds_metadata
from beam_jobs.preprocessing.analyze import Analyze
from beam_jobs.preprocessing.bucket_stats import (
    POSITIVES,
    POSITIVES_TAG,
    TOKEN_COUNTS_TAG,
    CountBucket,
    sum_positives,
    top_labels_of,
)
from beam_jobs.preprocessing.buckets import read_table
from beam_jobs.preprocessing.encode_labels import EncodeBucket, sorted_names
from beam_jobs.preprocessing.frequencies import COUNTS, Frequencies, count_documents
from beam_jobs.preprocessing.labels import LabelRules
from beam_jobs.preprocessing.merge_duplicates import MergeDuplicates, with_bucket
from beam_jobs.preprocessing.read import READ_TAG, ReadPart
from beam_jobs.preprocessing.rejects import reject_table, sort_rejects, write_rejects
from beam_jobs.preprocessing.writer import WriteShard, plan_shards
from beam_jobs.runtime.spill import SpillByKey
from beam_jobs.sources import registry

BUCKET_BITS = 5


class Plain:
    """The stages of the job, each over a pool of processes.

    The columnar work of each is the job's own, so that the difference is Beam's.
    """

    def __init__(self, config: Config, work_dir: str, dataset_dir: str):
        self.config, self.work_dir, self.dataset_dir = config, work_dir, dataset_dir
        self.reader = registry.make_reader(config.data)
        self.spec = config.data.record_spec

    def read(self, part):
        """(number, files) -> (number, rows), and segments of documents and of rejects by key."""
        analyze = Analyze(resolve(self.config.text), len(self.spec.text_names), self.config.splits)
        analyze.setup()
        spill, spill_rejects = SpillByKey(self.work_dir), SpillByKey(self.work_dir)
        spill.start_bundle()
        spill_rejects.start_bundle()
        segments, rejected, read = [], [], None
        for output in ReadPart(self.reader, None).process(part):
            if isinstance(output, beam.pvalue.TaggedOutput) and output.tag == READ_TAG:
                read = output.value
            elif isinstance(output, beam.pvalue.TaggedOutput):
                rejected += spill_rejects.process(reject_table(output.value))
            else:
                for table in analyze.process(output):
                    if isinstance(table, beam.pvalue.TaggedOutput):
                        rejected += spill_rejects.process(reject_table(table.value))
                    else:
                        segments += spill.process(with_bucket(table, BUCKET_BITS))
        segments += [windowed.value for windowed in spill.finish_bundle()]
        rejected += [windowed.value for windowed in spill_rejects.finish_bundle()]
        return read, segments, rejected

    def merge(self, element):
        (bucket,) = MergeDuplicates(
            self.work_dir, self.config.splits, LabelRules(self.config.labels)
        ).process(element)
        return bucket, count_documents(read_table(bucket.path)["labels"])

    def count(self, arguments):
        bucket, names, top_labels = arguments
        encode = EncodeBucket(self.work_dir, self.config.labels.keep_unlabeled)
        (encoded,) = encode.process(bucket, names)
        outputs = list(CountBucket().process(encoded, top_labels))  # the statistics, then the rest
        tagged = {
            output.tag: output.value
            for output in outputs
            if isinstance(output, beam.pvalue.TaggedOutput)
        }
        return outputs[0], tagged[TOKEN_COUNTS_TAG], tagged[POSITIVES_TAG].drop_columns("key")

    def write(self, plan):
        compression = self.config.output.compression
        return list(
            WriteShard(self.config.name, self.dataset_dir, self.spec, compression).process(plan)
        )

    def run(self, workers: int) -> None:
        labels, vocabulary = self.config.labels, self.config.vocabulary
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            parts = list(enumerate(registry.parts(self.reader.files())))
            read, segments, rejected = zip(*pool.imap_unordered(self.read, parts), strict=True)
            by_bucket: dict[int, list] = {}
            for bucket, segment in itertools.chain.from_iterable(segments):
                by_bucket.setdefault(bucket, []).append(segment)
            rejects = [
                sort_rejects(key, [segment], self.work_dir)
                for key, segment in itertools.chain.from_iterable(rejected)
            ]
            reject_counts = [write_rejects(rejects, self.dataset_dir)]
            buckets, label_counts = zip(
                *pool.imap_unordered(self.merge, by_bucket.items()), strict=True
            )
            kept = most_frequent(label_counts, labels.min_count, labels.top_k)
            names, top_labels = sorted_names(kept), top_labels_of(kept)
            stats, token_counts, positives = zip(
                *pool.imap_unordered(
                    self.count, [(bucket, names, top_labels) for bucket in buckets]
                ),
                strict=True,
            )
            plans = plan_shards(stats, self.config.output, 1 << BUCKET_BITS)
            shards = list(
                itertools.chain.from_iterable(pool.imap_unordered(self.write, list(plans)))
            )
        outputs = finish.Outputs(
            read=read,
            reject_counts=reject_counts,
            stats=stats,
            positives=[sum_positives(pa.concat_tables([POSITIVES.empty_table(), *positives]))],
            kept_labels=kept,
            vocabulary=most_frequent(
                token_counts, vocabulary.min_documents_of_token, vocabulary.size
            ),
            shards=shards,
        )
        finish.finish(
            outputs,
            self.dataset_dir,
            self.work_dir,
            labels=LabelRules(labels),
            metadata_fields=self.config.data.record_spec.metadata_fields,
        )
        results = finish.Results.model_validate_json(
            Path(self.work_dir, finish.RESULTS).read_text(encoding="utf-8")
        )
        tfds_metadata.write_metadata(
            self.dataset_dir,
            self.config.name,
            self.spec,
            results.splits,
            has_weights=results.has_weights,
        )


def most_frequent(counts: Sequence[pa.Table], min_count: int, top_k: int | None) -> Frequencies:
    """Partial COUNTS -> the most frequent names, as the job's MostFrequent gives them."""
    partial = pa.concat_tables(counts)
    sums = (
        partial.group_by("name")
        .aggregate([("count", "sum"), ("occurrences", "sum")])
        .rename_columns(COUNTS.names)
    )
    frequent = sums.filter(pc.greater_equal(sums["count"], min_count))
    order = pc.sort_indices(frequent, sort_keys=[("count", "descending"), ("name", "ascending")])
    return Frequencies(
        frequent.take(order[:top_k]),
        pc.sum(partial["count"]).as_py(),
        sums.num_rows,
        frequent.num_rows,
    )


def run(config: Config, workers: int) -> None:
    """Makes `plain/dataset` of the working directory."""
    import tensorflow  # noqa: F401  # once, for all processes of the pool

    Path("plain/work").mkdir(parents=True)
    Path("plain/dataset").mkdir()
    Plain(config, "plain/work", "plain/dataset").run(workers)
