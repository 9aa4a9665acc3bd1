"""The preprocessing pipeline: parts of the input -> every file of the dataset but its manifest."""

import apache_beam as beam

from beam_jobs.contract.config import Config
from beam_jobs.preprocessing.analyze import AnalyzeDocuments
from beam_jobs.preprocessing.assign_splits import AssignSplits
from beam_jobs.preprocessing.bucket_stats import CountBuckets
from beam_jobs.preprocessing.encode_labels import EncodeLabels
from beam_jobs.preprocessing.finish import Finish
from beam_jobs.preprocessing.labels import LabelRules
from beam_jobs.preprocessing.merge_duplicates import MergeIntoBuckets
from beam_jobs.preprocessing.near_duplicates import CountLeaks, DropNearDuplicates
from beam_jobs.preprocessing.read import ReadDocuments
from beam_jobs.preprocessing.rejects import CollectRejects
from beam_jobs.preprocessing.subwords import SplitIntoSubwords
from beam_jobs.preprocessing.writer import WriteShard, WriteShards
from beam_jobs.sources.custom import TransformSource
from beam_jobs.sources.registry import Reader


def build(
    pipeline: beam.Pipeline,
    *,
    config: Config,
    reader: Reader | TransformSource,
    parts: list,
    bucket_bits: int,
    partitions: int,
    dataset_dir: str,
    work_dir: str,
    progress_dir: str | None,
) -> None:
    """Adds every stage to the pipeline.

    Args:
      pipeline: an empty pipeline.
      config: the experiment.
      reader: the source.
      parts: lists of input files, the units of parallel reading; a transform has none.
      bucket_bits: documents are merged in 2**bucket_bits buckets; changes memory and parallelism,
        never the output.
      partitions: in which tokens are counted; likewise.
      dataset_dir: where the dataset's files are written.
      work_dir: where spilled data, buckets and `results.json` are written.
      progress_dir: where finished parts leave a file; None: nowhere.
    """
    spec, near = config.data.record_spec, config.duplicates.near
    find_near = (work_dir, config.duplicates.similarity, config.duplicates.shingle_tokens)
    accounting = []  # PCollections of sent and received rows

    documents, read_rejects, read = pipeline | "Read" >> ReadDocuments(reader, parts, progress_dir)
    analyzed, analysis_rejects = documents | "Analyze" >> AnalyzeDocuments(
        config.text.without_subwords, len(spec.text_names), config.splits
    )
    rejects = (read_rejects, analysis_rejects) | "Rejects" >> CollectRejects(work_dir, dataset_dir)
    outputs = {"read": read, "reject_counts": rejects}
    buckets = analyzed | "Merge" >> MergeIntoBuckets(
        work_dir, bucket_bits, config.splits, config.labels
    )
    if near == "drop":
        buckets, rows = buckets | "NearDuplicates" >> DropNearDuplicates(*find_near)
        accounting.append(rows)
    buckets, kept_labels = buckets | "EncodeLabels" >> EncodeLabels(work_dir, config.labels)
    outputs["kept_labels"] = kept_labels
    buckets = buckets | "AssignSplits" >> AssignSplits(work_dir, config.splits, kept_labels)
    if near == "report":
        outputs["leaks"], rows = buckets | "NearDuplicates" >> CountLeaks(*find_near)
        accounting.append(rows)
    if config.text.subwords is not None:
        buckets, outputs["subwords"], rows = buckets | "Subwords" >> SplitIntoSubwords(
            work_dir, config.text, config.vocabulary
        )
        accounting.append(rows)
    encoder_tokenizer = config.text.encoder_tokenizer
    outputs |= buckets | "Count" >> CountBuckets(
        work_dir,
        config.vocabulary,
        kept_labels,
        is_given=encoder_tokenizer is not None,
        partitions=partitions,
    )
    write_shard = WriteShard(config.name, dataset_dir, spec, config.output.compression)
    outputs["shards"] = outputs["stats"] | "Write" >> WriteShards(
        write_shard, config.output, 1 << bucket_bits
    )
    if accounting:
        outputs["row_accounting"] = accounting | "Accounting" >> beam.Flatten()
    _ = outputs | "Finish" >> Finish(
        LabelRules(config.labels),
        spec.metadata_fields,
        dataset_dir,
        work_dir,
        None if encoder_tokenizer is None else encoder_tokenizer.pieces,
    )
