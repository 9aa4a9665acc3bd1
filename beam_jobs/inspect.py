"""Looks into a dataset directory: what it holds, and whether every byte is as it was written."""

import argparse
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.command_line import run_main
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import FileInfo, Manifest
from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.tfrecord import read_records

READ_BYTES = 1 << 20  # 1 MiB at a time
TEXT_CHARACTERS = 160  # of each record shown

DESCRIPTION = """\
Shows what a dataset holds: counts, splits, labels, statistics and some records; and verifies the SHA-256 of every file and
the checksums of every record. Exit status 2, with the file named, if anything is damaged."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="multihot-inspect",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "dataset_dir", metavar="DIR", help="the dataset directory, such as out/docstrings/dataset"
    )
    parser.add_argument(
        "--records",
        type=int,
        default=2,
        metavar="N",
        help="records shown of each split (default 2)",
    )
    parser.add_argument(
        "--labels",
        type=int,
        default=20,
        metavar="N",
        help="labels shown, the most frequent in training first (default 20)",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="leave out the checksums, for which every file is read",
    )
    arguments = parser.parse_args(argv)
    directory = Path(arguments.dataset_dir)
    manifest = manifests.load(directory)
    print("\n".join(describe(manifest, directory, labels=arguments.labels)))
    for line in itertools.chain.from_iterable(
        show_records(manifest, directory, split, arguments.records) for split in manifest.splits
    ):
        print(line)
    if not arguments.no_verify:
        print(verify(manifest, directory))


def describe(manifest: Manifest, directory: Path, *, labels: int) -> list[str]:
    """Counts, splits, labels and statistics, a line each."""
    counts = manifest.counts
    lines = [
        f"{manifest.name}: format {manifest.format_version}, config {manifest.config_hash[:12]}, input {manifest.input_hash[:12]}",
        f"documents: {counts.read:,} read, {counts.written:,} written ({counts.written_without_labels:,} without labels), "
        f"{counts.duplicates:,} duplicates, {counts.near_duplicates:,} near-duplicates dropped, {sum(counts.rejected.values()):,} rejected, "
        f"{counts.dropped_without_labels:,} dropped without labels",
    ]
    lines += [f"  rejected {count:,} x {reason}" for reason, count in counts.rejected.items()]
    label_counts = manifest.label_counts.model_dump()
    lines += [
        "labels found: "
        + ", ".join(f"{count:,} {key.replace('_', ' ')}" for key, count in label_counts.items())
    ]
    statistics = manifests.load_statistics(manifest, directory) or {
        "splits": {},
        "co_occurrence": [],
    }
    for name, split in manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        lines.append(
            f"{name}: {split.examples:,} documents in {len(split.shards):,} shards, {size / 1e6:,.1f} MB"
        )
        lines.append(
            f"  tokens a document, by quantile: {_quantiles(split.token_length_quantiles)}"
        )
        if more := statistics["splits"].get(name):
            ratio = more["imbalance_ratio"]
            lines.append(
                f"  labels a document, by quantile: {_quantiles(more['labels_per_document'])}"
            )
            lines.append(
                f"  label cardinality {more['label_cardinality']:.4g}, density {more['label_density']:.3g}, imbalance ratio mean "
                f"{ratio.get('mean', 0):,.4g} and max {ratio.get('max', 0):,.4g}, {more['labels_without_positives']:,} labels without positives"
            )
    lines.append(
        f"vocabulary: {manifest.vocabulary_size:,} tokens, such as {' '.join(manifests.load_vocabulary(manifest, directory)[:10])}"
    )
    rows = manifests.load_labels(manifest, directory)
    rows.sort(key=lambda row: -row["positives"]["train"])
    lines.append(
        f"labels: {manifest.num_labels:,}, with documents in " + " / ".join(manifest.splits)
    )
    lines += [
        f"  {row['name']}: " + " / ".join(f"{count:,}" for count in row["positives"].values())
        for row in rows[:labels]
    ]
    if len(rows) > labels:
        lines.append(f"  and {len(rows) - labels:,} more")
    for split, where in statistics.get("near_duplicates", {}).items():
        lines.append(
            f"near-duplicates of {split} documents: "
            + ", ".join(f"{count:,} {place}" for place, count in where.items())
        )
    pairs = statistics["co_occurrence"][: labels // 2]
    if pairs:
        lines.append("labels most often together:")
        lines += [f"  {' + '.join(pair['labels'])}: {pair['documents']:,}" for pair in pairs]
    return lines


def show_records(manifest: Manifest, directory: Path, split: str, count: int) -> Iterator[str]:
    """The first records of a split, a few lines each."""
    files = [directory / shard.file for shard in manifest.splits[split].shards]
    records = list(
        itertools.islice(itertools.chain.from_iterable(map(read_records, files)), max(count, 0))
    )
    if not records:
        return
    from beam_jobs.contract.quiet import import_tensorflow_quietly

    import_tensorflow_quietly()
    from tensorflow.core.example import example_pb2

    names = [row["name"] for row in manifests.load_labels(manifest, directory)]
    record_spec = manifest.record_spec
    for record in records:
        features = example_pb2.Example.FromString(record).features.feature
        yield f"{split} {features['id'].bytes_list.value[0].decode('utf-8', 'replace')}"
        yield f"  labels: {', '.join(names[label] for label in features['labels'].int64_list.value) or 'none'}"
        for name in (*record_spec.metadata_names, *record_spec.text_names):
            value = features[name].bytes_list.value[0].decode()
            yield f"  {name}: {value if len(value) <= TEXT_CHARACTERS else value[:TEXT_CHARACTERS] + '...'}"


def verify(manifest: Manifest, directory: Path) -> str:
    """Checks the SHA-256 of every file of the manifest and the CRCs of every record; returns what was checked, in words.

    Raises:
      UserError: something is damaged; names the file and, in a shard, the record.
    """
    files = manifest.files()
    total, done, examples = sum(info.bytes for info in files), 0, 0
    shards = {
        shard.file: shard.examples for split in manifest.splits.values() for shard in split.shards
    }
    with ProgressLine("verifying") as line:
        for info in files:
            if info.file in shards:
                found = sum(1 for _ in read_records(directory / info.file))
                if found != shards[info.file]:
                    raise _damaged(
                        directory / info.file,
                        f"holds {found:,} records, expected {shards[info.file]:,}",
                    )
                examples += found
            _check_sha256(info, directory)
            done += info.bytes
            line.update(done, max(total, 1), f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB")
    return f"verified: {len(files):,} files, {total / 1e6:,.1f} MB, {examples:,} records"


def _check_sha256(info: FileInfo, directory: Path) -> None:
    digest = hashlib.sha256()
    with open(directory / info.file, "rb") as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
    if digest.hexdigest() != info.sha256:
        raise _damaged(
            directory / info.file, f"has SHA-256 {digest.hexdigest()}, expected {info.sha256}"
        )


def _damaged(path: Path, how: str) -> UserError:
    return UserError(
        f"{path} {how}: the dataset is damaged; run the preprocessing again with --overwrite"
    )


def _quantiles(values: dict[str, int]) -> str:
    return ", ".join(f"{float(q):.0%} {value:,}" for q, value in values.items()) or "none"


def run() -> None:
    run_main(main)


if __name__ == "__main__":
    run()
