"""Shows what a dataset directory holds, and verifies that every byte is as it was written."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import FileInfo, Manifest
from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.tfrecord import read_records

READ_BYTES = 1 << 20  # 1 MiB at a time
TEXT_CHARACTERS = 160  # of each record shown


def show(directory: str, *, labels: int, records: int, with_checksums: bool) -> Iterator[str]:
    """What a dataset holds, a line each.

    Args:
      directory: the dataset directory.
      labels: how many labels are shown, the most frequent in training first.
      records: how many records are shown of each split.
      with_checksums: whether every byte is verified.

    Raises:
      UserError: it is no dataset, or damaged.
    """
    manifest = manifests.load(directory)
    yield from describe(manifest, directory, labels=labels)
    for split in manifest.splits:
        yield from show_records(manifest, directory, split, records)
    if with_checksums:
        yield verify(manifest, directory)


def describe(manifest: Manifest, directory: str, *, labels: int) -> list[str]:
    """Counts, splits, labels and statistics, a line each; at most `labels` labels."""
    statistics = manifests.load_statistics(manifest, directory) or {
        "splits": {},
        "co_occurrence": [],
    }
    lines = _describe_counts(manifest)
    lines.append(f"files: {places.join(directory, manifest.generation)}".rstrip("/"))
    for split in manifest.splits:
        lines += _describe_split(manifest, split, statistics["splits"].get(split))
    tokens = manifests.load_vocabulary(manifest, directory)[:10]
    lines.append(f"vocabulary: {manifest.vocabulary_size:,} tokens, such as {' '.join(tokens)}")
    lines += _describe_labels(manifest, directory, labels)
    for split, counts in statistics.get("near_duplicates", {}).items():
        described = ", ".join(f"{count:,} {where}" for where, count in counts.items())
        lines.append(f"near-duplicates of {split} documents: {described}")
    for key, names in statistics.get("unused_label_names", {}).items():
        lines.append(
            f"{key}: {names['count']:,} on no document, such as {', '.join(names['first'])}"
        )
    if fields := statistics.get("empty_metadata_fields"):
        lines.append(f"metadata that is empty in every document: {', '.join(fields)}")
    if pairs := statistics["co_occurrence"][: labels // 2]:
        lines.append("labels most often together:")
        lines += [f"  {' + '.join(pair['labels'])}: {pair['documents']:,}" for pair in pairs]
    return lines


def _describe_counts(manifest: Manifest) -> list[str]:
    counts = manifest.counts
    label_counts = manifest.label_counts.model_dump()
    return [
        f"{manifest.name}: format {manifest.format_version}, config {manifest.config_hash[:12]}, "
        f"input {manifest.input_hash[:12]}",
        f"documents: {counts.read:,} read, {counts.written:,} written "
        f"({counts.written_without_labels:,} without labels), {counts.duplicates:,} duplicates, "
        f"{counts.near_duplicates:,} near-duplicates dropped, "
        f"{sum(counts.rejected.values()):,} rejected, "
        f"{counts.dropped_without_labels:,} dropped without labels",
        *(f"  rejected {count:,} x {reason}" for reason, count in counts.rejected.items()),
        "labels found: "
        + ", ".join(f"{count:,} {key.replace('_', ' ')}" for key, count in label_counts.items()),
    ]


def _describe_split(
    manifest: Manifest, name: str, statistics: Mapping[str, Any] | None
) -> list[str]:
    split = manifest.splits[name]
    megabytes = sum(shard.bytes for shard in split.shards) / 1e6
    lines = [
        f"{name}: {split.examples:,} documents in {len(split.shards):,} shards, "
        f"{megabytes:,.1f} MB",
        f"  tokens per document, by quantile: {_quantiles(split.token_length_quantiles)}",
    ]
    if statistics:
        ratio = statistics["imbalance_ratio"]
        lines += [
            f"  labels per document, by quantile: {_quantiles(statistics['labels_per_document'])}",
            f"  label cardinality {statistics['label_cardinality']:.4g}, "
            f"density {statistics['label_density']:.3g}, "
            f"imbalance ratio mean {ratio.get('mean', 0):,.4g} and max {ratio.get('max', 0):,.4g}, "
            f"{statistics['labels_without_positives']:,} labels without positives",
        ]
    return lines


def _describe_labels(manifest: Manifest, directory: str, most: int) -> list[str]:
    rows = manifests.load_labels(manifest, directory)
    rows.sort(key=lambda row: -row["positives"]["train"])
    lines = [f"labels: {manifest.num_labels:,}, with documents in {' / '.join(manifest.splits)}"]
    for row in rows[:most]:
        counts = " / ".join(f"{count:,}" for count in row["positives"].values())
        lines.append(f"  {row['name']}: {counts}")
    if len(rows) > most:
        lines.append(f"  and {len(rows) - most:,} more")
    return lines


def show_records(manifest: Manifest, directory: str, split: str, count: int) -> Iterator[str]:
    """The first records of a split, a few lines each."""
    files = [places.join(directory, shard.file) for shard in manifest.splits[split].shards]
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
        labels = [names[label] for label in features["labels"].int64_list.value]
        yield f"  labels: {', '.join(labels) or 'none'}"
        for name in (*record_spec.metadata_names, *record_spec.text_names):
            value = features[name].bytes_list.value[0].decode()
            if len(value) > TEXT_CHARACTERS:
                value = value[:TEXT_CHARACTERS] + "..."
            yield f"  {name}: {value}"


def verify(manifest: Manifest, directory: str) -> str:
    """Checks the SHA-256 of every file of the manifest and the checksums of every record.

    Returns:
      What was checked, in words.

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
                found = sum(1 for _ in read_records(places.join(directory, info.file)))
                if found != shards[info.file]:
                    raise _damaged(
                        places.join(directory, info.file),
                        f"holds {found:,} records, expected {shards[info.file]:,}",
                    )
                examples += found
            _check_sha256(info, directory)
            done += info.bytes
            line.update(done, max(total, 1), f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB")
    return f"verified: {len(files):,} files, {total / 1e6:,.1f} MB, {examples:,} records"


def _check_sha256(info: FileInfo, directory: str) -> None:
    digest = hashlib.sha256()
    path = places.join(directory, info.file)
    with places.open_local(path) as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
    if digest.hexdigest() != info.sha256:
        raise _damaged(path, f"has SHA-256 {digest.hexdigest()}, expected {info.sha256}")


def _damaged(path: str, how: str) -> UserError:
    return UserError(
        f"{path} {how}: the dataset is damaged; run the preprocessing again with --force"
    )


def _quantiles(values: dict[str, int]) -> str:
    return ", ".join(f"{float(q):.0%} {value:,}" for q, value in values.items()) or "none"
