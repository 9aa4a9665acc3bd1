#!/usr/bin/env python3
"""The preprocessing job against the same work without Beam and against naive Beam: documents per
second, time by stage, memory.

Three programs make the same dataset:
  job    python -m beam_jobs.preprocess, on worker processes
  plain  a pool of processes with files between the stages, without Beam; every file must equal the
         job's, byte for byte
  naive  Beam with one Python object per element, on the in-memory runner; its records must be the
         job's. It is slow, so it runs on two samples: their difference gives its speed without its
         start, from which its time for all documents follows

Memory is the largest sum, over a program's whole process tree, of proportional set sizes (PSS),
sampled twice a second.

  python scripts/benchmark_preprocessing.py                     # synthetic documents of 150 words
  python scripts/benchmark_preprocessing.py --arxiv data/arxiv  # titles and abstracts, JSONL.gz
"""

import argparse
import contextlib
import filecmp
import gzip
import hashlib
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_jobs.contract.quiet import import_tensorflow_quietly, no_beam_warnings  # noqa: E402

with no_beam_warnings():
    import apache_beam as beam
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402
from apache_beam.io.tfrecordio import WriteToTFRecord  # noqa: E402
from apache_beam.pvalue import AsSingleton  # noqa: E402

from beam_jobs.contract import manifest as manifests  # noqa: E402
from beam_jobs.contract.config import Config, load_config  # noqa: E402
from beam_jobs.contract.records import RecordSpec  # noqa: E402
from beam_jobs.contract.word_lists import resolve  # noqa: E402
from beam_jobs.preprocessing import finish, tfds_metadata  # noqa: E402
from beam_jobs.preprocessing.analyze import Analyze, process_analyzer  # noqa: E402
from beam_jobs.preprocessing.bucket_stats import (  # noqa: E402
    POSITIVES,
    POSITIVES_TAG,
    TOKEN_COUNTS_TAG,
    CountBucket,
    sum_positives,
    top_labels_of,
)
from beam_jobs.preprocessing.buckets import read_table, split_keys  # noqa: E402
from beam_jobs.preprocessing.encode_labels import EncodeBucket, sorted_names  # noqa: E402
from beam_jobs.preprocessing.frequencies import COUNTS, Frequencies, count_documents  # noqa: E402
from beam_jobs.preprocessing.labels import LabelRules  # noqa: E402
from beam_jobs.preprocessing.merge_duplicates import MergeDuplicates, with_bucket  # noqa: E402
from beam_jobs.preprocessing.read import READ_TAG, ReadPart  # noqa: E402
from beam_jobs.preprocessing.rejects import reject_table, sort_rejects, write_rejects  # noqa: E402
from beam_jobs.preprocessing.splits import assign  # noqa: E402
from beam_jobs.preprocessing.writer import WriteShard, plan_shards  # noqa: E402
from beam_jobs.runtime.spill import SpillByKey  # noqa: E402
from beam_jobs.sources import registry  # noqa: E402
from scripts.measured_process import Measured, measure  # noqa: E402

FILES = 8
BUCKET_BITS = 5
NOT_COMPARED = {manifests.CONFIG}  # which the job alone writes

CONFIG = """\
name: synthetic
data:
  source: jsonl
  inputs: [documents-*.jsonl.gz]
  id_field: id
  text_fields: [title, abstract]
  labels_field: categories
labels: {min_count: 2}
output: {shards: 8}
"""


# --- input -----------------------------------------------------------------------------


def write_documents(folder: Path, count: int, arxiv: Path | None) -> None:
    """`count` documents in as many files as the benchmark reads, and a config."""
    folder.mkdir()
    (folder / "synthetic.yaml").write_text(CONFIG, encoding="utf-8")
    lines = _lines_of(arxiv, count) if arxiv else _synthetic_lines(count)
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(
                gzip.open(folder / f"documents-{i}.jsonl.gz", "wb", compresslevel=1)
            )
            for i in range(FILES)
        ]
        written = 0
        for line in lines:
            streams[written % FILES].write(line)
            written += 1
    if written < count:
        sys.exit(
            f"error: {arxiv} holds {written:,} documents, expected --documents {count:,} or more"
        )


def _lines_of(arxiv: Path, count: int) -> Iterator[bytes]:
    files = sorted(arxiv.glob("*.jsonl.gz"))
    return itertools.islice(itertools.chain.from_iterable(map(gzip.open, files)), count)


def _synthetic_lines(count: int) -> Iterator[bytes]:
    random = np.random.default_rng(0)
    for i in range(count):
        words = [f"w{token}" for token in random.zipf(1.2, 150) % 50_000]
        labels = sorted({f"label{label}" for label in random.zipf(1.5, 2) % 100})
        row = {
            "id": str(i),
            "title": " ".join(words[:10]).title(),
            "abstract": " ".join(words[10:]) + ".",
            "categories": labels,
        }
        yield json.dumps(row).encode() + b"\n"


# --- the same work without Beam --------------------------------------------------------


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


def run_plain(workers: int) -> None:
    import tensorflow  # noqa: F401  # once, for all processes of the pool

    config = load_config("synthetic.yaml")
    Path("plain/work").mkdir(parents=True)
    Path("plain/dataset").mkdir()
    Plain(config, "plain/work", "plain/dataset").run(workers)


# --- naive Beam ------------------------------------------------------------------------


class AnalyzeOne(beam.DoFn):
    def __init__(self, config: Config):
        self._text = resolve(config.text).model_dump_json()

    def setup(self):
        self._analyzer = process_analyzer(self._text)

    def process(self, document):
        yield self._analyzer([document.texts[0].encode()])[0], document


def merge_equal(element, config: Config):
    """(text, its documents) -> (split, id, text, label names)."""
    text, documents = element[0], list(element[1])
    digest = hashlib.blake2b(text, digest_size=16).digest()
    key = split_keys(pa.chunked_array([[digest]], pa.binary()))
    (split,) = assign(key, pa.nulls(1, pa.int8()), config.splits).to_pylist()
    return (
        split,
        min(document.id for document in documents),
        text,
        sorted({label for document in documents for label in document.labels}),
    )


def encode_one(document, label_ids: dict[str, int]) -> bytes:
    _, name, text, labels = document
    return RecordSpec().encode(
        {
            "id": name.encode(),
            "text": text,
            "labels": [label_ids[label] for label in labels if label in label_ids],
        }
    )


def run_naive() -> None:
    config = load_config("synthetic.yaml")
    reader = registry.make_reader(config.data)
    with beam.Pipeline(runner="FnApiRunner") as job:
        documents = (
            job
            | beam.Create(reader.files())
            | beam.FlatMap(reader.read)
            | "Analyze" >> beam.ParDo(AnalyzeOne(config))
            | beam.GroupByKey()
            | "Merge" >> beam.Map(merge_equal, config)
        )
        label_ids = (
            documents
            | "Labels" >> beam.FlatMap(lambda document: document[3])
            | "CountLabels" >> beam.combiners.Count.PerElement()
            | "Frequent" >> beam.Filter(lambda counted: counted[1] >= config.labels.min_count)
            | "Names" >> beam.Keys()
            | beam.combiners.ToList()
            | "Ids" >> beam.Map(lambda names: {name: i for i, name in enumerate(sorted(names))})
        )
        _ = (
            documents
            | "Train" >> beam.Filter(lambda document: document[0] == 0)
            | "Tokens" >> beam.FlatMap(lambda document: set(document[2].split()))
            | "CountTokens" >> beam.combiners.Count.PerElement()
            | "Known"
            >> beam.Filter(lambda counted: counted[1] >= config.vocabulary.min_documents_of_token)
            | beam.combiners.Top.Of(
                config.vocabulary.size,
                key=lambda counted: (counted[1], [*(-byte for byte in counted[0]), 1]),
            )
            | "Lines" >> beam.FlatMap(lambda counted: [token.decode() for token, _ in counted])
            | beam.io.WriteToText("naive/vocabulary", num_shards=1, shard_name_template="")
        )
        for i, split in enumerate(manifests.SPLITS):
            _ = (
                documents
                | f"Only {split}" >> beam.Filter(lambda document, i=i: document[0] == i)
                | f"Encode {split}" >> beam.Map(encode_one, AsSingleton(label_ids))
                | f"Write {split}" >> WriteToTFRecord(f"naive/{split}", num_shards=FILES)
            )


# --- measuring -------------------------------------------------------------------------


def run_job(folder: Path, workers: int) -> Measured:
    beam_arguments = [
        "--",
        "--direct_running_mode=multi_processing",
        f"--direct_num_workers={workers}",
    ]
    return measure(
        ["-m", "beam_jobs.preprocess", "--config", "synthetic.yaml", *beam_arguments], folder
    )


def run_other(folder: Path, what: str, workers: int) -> Measured:
    return measure(
        [str(Path(__file__).resolve()), "--workers", str(workers), "--run", what], folder
    )


def files_of(dataset: Path) -> Path:
    """The folder of a dataset's files."""
    return dataset / manifests.read(dataset).generation


def check_same_files(job: Path, plain: Path) -> int:
    """Ends the program unless both directories hold the same files; returns their number."""
    files = {path.name for path in job.iterdir()} - NOT_COMPARED
    _, differing, missing = filecmp.cmpfiles(job, plain, files, shallow=False)
    if differing or missing or {path.name for path in plain.iterdir()} != files:
        sys.exit(
            "error: the plain script's dataset differs from the job's: "
            f"{sorted([*differing, *missing])}"
        )
    return len(files)


def check_same_records(job: Path, naive: Path) -> int:
    """Ends the program unless both hold the same records and vocabulary; returns their number."""
    import_tensorflow_quietly()
    import tensorflow as tf

    total = 0
    for split in manifests.SPLITS:
        ours, theirs = (
            sorted(tf.data.TFRecordDataset(sorted(map(str, paths))).as_numpy_iterator())
            for paths in _shards(job, naive, split)
        )
        if ours != theirs:
            sys.exit(f"error: the naive job's {split} split differs from the job's")
        total += len(ours)
    if (job / manifests.VOCABULARY).read_bytes() != (naive / "vocabulary").read_bytes():
        sys.exit("error: the naive job's vocabulary differs from the job's")
    return total


def _shards(job: Path, naive: Path, split: str) -> tuple[list[Path], list[Path]]:
    return list(job.glob(f"*-{split}.tfrecord-*")), list(naive.glob(f"{split}-*"))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--documents",
        type=int,
        default=200_000,
        help="documents (default %(default)s); memory also at a half and a quarter",
    )
    parser.add_argument(
        "--naive-documents",
        type=int,
        default=8_000,
        help="documents of the naive job's larger sample (default %(default)s)",
    )
    parser.add_argument(
        "--arxiv",
        type=Path,
        help="a folder of *.jsonl.gz with id, title, abstract and categories; without it documents "
        "are synthetic",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="worker processes (default: one a core)"
    )
    parser.add_argument(
        "--run", choices=["plain", "naive"], help=argparse.SUPPRESS
    )  # what the benchmark starts itself with
    return parser.parse_args()


def show(what: str, documents: int, measured: Measured) -> None:
    rate = documents / measured.seconds
    print(
        f"{what:8} {documents:>10,} {measured.seconds:>8.1f} {rate:>12,.0f} "
        f"{measured.peak_mb:>8,.0f}",
        flush=True,
    )


def compare(arguments: argparse.Namespace) -> None:
    """Runs every program and prints the table and the ratios."""
    sizes = [arguments.documents // 4, arguments.documents // 2, arguments.documents]
    samples = [arguments.naive_documents // 4, arguments.naive_documents]
    with tempfile.TemporaryDirectory() as temporary:
        print(
            f"{'program':8} {'documents':>10} {'seconds':>8} {'documents/s':>12} {'peak MB':>8}",
            flush=True,
        )

        for size in sizes:
            folder = Path(temporary, str(size))
            write_documents(folder, size, arguments.arxiv)
            job = run_job(folder, arguments.workers)
            show("job", size, job)
        printed = job.printed.splitlines()
        stages = next(line for line in printed if line.startswith("time in each step"))
        plain = run_other(folder, "plain", arguments.workers)
        show("plain", size, plain)
        same_files = check_same_files(
            files_of(folder / "out/synthetic/dataset"), folder / "plain/dataset"
        )
        naive_seconds = []
        for sample in samples:
            folder = Path(temporary, f"sample-{sample}")
            write_documents(folder, sample, arguments.arxiv)
            naive = run_other(folder, "naive", arguments.workers)
            show("naive", sample, naive)
            naive_seconds.append(naive.seconds)
        run_job(folder, arguments.workers)
        same_records = check_same_records(
            files_of(folder / "out/synthetic/dataset"), folder / "naive"
        )

    per_document = (naive_seconds[1] - naive_seconds[0]) / (samples[1] - samples[0])
    if per_document <= 0:
        sys.exit(
            "error: the naive job took no longer for more documents: the machine is too busy, or "
            "--naive-documents too small"
        )
    naive_all = naive_seconds[1] + per_document * (arguments.documents - samples[1])
    print(f"job, {stages}")
    print(
        f"job / plain: {plain.seconds / job.seconds:.2f} x the documents/s; "
        f"{same_files} files with the same bytes"
    )
    print(
        f"job / naive: {naive_all / job.seconds:.1f} x the documents/s, naive at "
        f"{1 / per_document:,.0f} documents/s without its start; "
        f"{same_records:,} records the same on its sample"
    )


def main() -> None:
    arguments = parse_arguments()
    if arguments.run == "plain":
        run_plain(arguments.workers)
    elif arguments.run == "naive":
        run_naive()
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
