"""What a dataset holds: `PLACE/manifest.json`, and the files that it names.

It is written last: its presence means that the dataset is complete. The paths in it are relative to
the place; the files lie in a folder there, the generation, or, in datasets of before, beside it.
"""

import hashlib
import json
import os
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import pydantic

from beam_jobs.contract import places
from beam_jobs.contract.config import CONFIG_FILE, differing_keys
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.records import TEXT_FIELDS, RecordSpec
from beam_jobs.contract.validation import Section, validate
from beam_jobs.contract.word_lists import AnalyzerSpec

# 1: the config's keys had other names. 2: the analyzer took more for HTML's tags, and less for its
# character references.
FORMAT_VERSION = 3

MANIFEST = "manifest.json"
LABELS = "labels.json"
VOCABULARY = "vocabulary.txt"
DOCUMENT_COUNTS = "vocabulary_document_counts.npy"
TERM_COUNTS = "vocabulary_term_counts.npy"
NGRAMS = "vocabulary_ngrams.txt"
NGRAM_DOCUMENT_COUNTS = "vocabulary_ngram_document_counts.npy"
STATISTICS = "statistics.json"
REJECTS = "rejects-00000-of-00001.jsonl"
CONFIG = CONFIG_FILE

SPLITS = ("train", "validation", "test")
_BLOCK_BYTES = 1 << 20  # 1 MiB


SHARD_PATTERN = "*.tfrecord-*"  # what `shard_name` gives


def shard_name(name: str, split: str, index: int, count: int, compression: str = "none") -> str:
    """`<name>-<split>.tfrecord-00000-of-00016`, as TensorFlow Datasets names shards.

    Compressed ones end in `.gz`.
    """
    return f"{name}-{split}.tfrecord-{index:05d}-of-{count:05d}" + (
        ".gz" if compression == "gzip" else ""
    )


def _within(file: str) -> str:
    """The path; raises ValueError if it is not that of a file below where it starts."""
    parts = file.split("/")
    if not all(parts) or not {".", ".."}.isdisjoint(parts) or "\0" in file:
        raise ValueError("expected the path of a file within the output, as `folder/file`")
    return file


class FileInfo(Section):
    """A file, by its path from the place, which it does not leave."""

    file: Annotated[str, pydantic.AfterValidator(_within)]
    bytes: int
    sha256: str


class ShardInfo(FileInfo):
    """A TFRecord file."""

    examples: int


class SplitInfo(Section):
    """A split: its shards in order, and what they hold together."""

    examples: int
    shards: tuple[ShardInfo, ...]
    token_length_quantiles: dict[str, int]


class Counts(Section):
    """What became of every document read.

    read = written + duplicates + near_duplicates + rejected + dropped_without_labels.
    """

    read: int
    rejected: dict[str, int] = pydantic.Field(description="by reason")
    duplicates: int
    duplicates_with_other_labels: int = pydantic.Field(
        0, description="of the duplicates, those merged where not all had the same labels"
    )
    near_duplicates: int = 0
    dropped_without_labels: int
    written: int
    written_without_labels: int

    def unaccounted(self) -> int:
        """Documents read that nothing else counts: if not 0, the runner lost or repeated some."""
        return (
            self.read
            - sum(self.rejected.values())
            - self.duplicates
            - self.near_duplicates
            - self.dropped_without_labels
            - self.written
        )


class LabelChanges(Section):
    """Occurrences of labels that cleaning changed or dropped, before duplicates are merged."""

    case_folded: int = 0
    aliased: int = 0
    denied: int = 0
    not_allowed: int = 0

    def __add__(self, other: "LabelChanges") -> "LabelChanges":
        return LabelChanges(**{key: value + getattr(other, key) for key, value in self})


class LabelCounts(LabelChanges):
    """What became of labels: occurrences that cleaning changed, then names that were left out."""

    distinct: int = pydantic.Field(0, description="different labels after cleaning")
    below_min_count: int = pydantic.Field(
        0, description="of them, those on fewer documents than labels.min_count"
    )
    beyond_top_k: int = pydantic.Field(
        0, description="of the others, those less frequent than labels.top_k of them"
    )
    occurrences: int = pydantic.Field(0, description="labels of merged documents, all together")
    occurrences_kept: int = pydantic.Field(0, description="of them, those of the labels kept")


class Manifest(Section):
    """`manifest.json`."""

    format_version: int
    name: str
    config: dict[str, Any] = pydantic.Field(
        description="the part of the resolved config that decides the dataset's bytes"
    )
    config_hash: str
    input_hash: str = pydantic.Field(
        description="hash of the input files' names, sizes and contents"
    )
    named_files: dict[str, str] = pydantic.Field(
        {}, description="SHA-256 of each file that the config names, by its key"
    )
    analyzer: AnalyzerSpec = pydantic.Field(
        description="the analyzer's specification, stop words and subwords written out"
    )
    text_fields: tuple[str, ...] = pydantic.Field(
        TEXT_FIELDS, description="names of the documents' texts"
    )
    metadata_fields: tuple[str, ...] = pydantic.Field(
        (), description="names of the documents' metadata"
    )
    splits: dict[str, SplitInfo]
    counts: Counts
    labels: FileInfo
    num_labels: int
    label_counts: LabelCounts = LabelCounts()
    vocabulary: FileInfo
    document_counts: FileInfo
    vocabulary_size: int
    rejects: FileInfo
    term_counts: FileInfo | None = pydantic.Field(
        None, description="null in datasets of versions without it"
    )
    ngrams: FileInfo | None = pydantic.Field(None, description="null where vocabulary.ngrams is 1")
    ngram_document_counts: FileInfo | None = pydantic.Field(
        None, description="null where vocabulary.ngrams is 1"
    )
    statistics: FileInfo | None = pydantic.Field(
        None, description="null in datasets of versions without it"
    )
    tfds: tuple[FileInfo, ...] = pydantic.Field((), description="what TensorFlow Datasets reads")
    config_file: FileInfo | None = pydantic.Field(
        None, description="the resolved config as YAML; null where an older version named none"
    )

    @property
    def record_spec(self) -> RecordSpec:
        """What the records hold."""
        return RecordSpec(self.text_fields, self.metadata_fields)

    @property
    def generation(self) -> str:
        """The folder of the files, seen from the place; empty in datasets of before."""
        return self.labels.file.rpartition("/")[0]

    def files(self) -> list[FileInfo]:
        """Every file that the manifest describes."""
        shards = [shard for split in self.splits.values() for shard in split.shards]
        return [
            *shards,
            self.labels,
            self.vocabulary,
            self.document_counts,
            self.rejects,
            *self.tfds,
            *filter(
                None,
                [
                    self.term_counts,
                    self.ngrams,
                    self.ngram_document_counts,
                    self.statistics,
                    self.config_file,
                ],
            ),
        ]


def load(dataset_dir: str | Path) -> Manifest:
    """Reads the manifest and checks that every file it names is there in its full size.

    Raises:
      UserError: there is no complete dataset of a known format version in `dataset_dir`.
    """
    manifest = read(dataset_dir)
    check_files(manifest, dataset_dir)
    return manifest


def check_files(manifest: Manifest, dataset_dir: str | Path) -> None:
    """Raises UserError unless every file that the manifest names is there in its full size."""
    sizes = _sizes(manifest, dataset_dir)
    for info in manifest.files():
        size = sizes.get(info.file)
        if size != info.bytes:
            received = "is missing" if size is None else f"has {size} bytes"
            raise UserError(
                f"{places.join(dataset_dir, info.file)} {received}, expected {info.bytes} bytes: "
                "the dataset is damaged; run the preprocessing again with --force"
            )


def read(dataset_dir: str | Path) -> Manifest:
    """Reads the manifest alone.

    Raises:
      UserError: there is none of a known format version in `dataset_dir`.
    """
    path = places.join(dataset_dir, MANIFEST)
    advice = "expected a dataset that `python -m beam_jobs.preprocess` wrote"
    try:
        raw = json.loads(places.read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        if places.is_remote(dataset_dir) or Path(dataset_dir).is_dir():
            state = "has no manifest.json: it is not a dataset, or its preprocessing did not finish"
        else:
            state = "is not a directory" if Path(dataset_dir).exists() else "does not exist"
        raise UserError(f"the dataset directory {dataset_dir} {state}; {advice}") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); {advice}") from None
    return parse(raw, what=path)


def _sizes(manifest: Manifest, dataset_dir: str | Path) -> dict[str, int]:
    """The sizes of those files that the manifest names and that are there."""
    if places.is_remote(dataset_dir):  # one request for a thousand files
        prefix = f"{manifest.generation}/" if manifest.generation else ""
        folder = places.join(dataset_dir, prefix)
        return {prefix + name: file.size for name, file in places.list_files(folder).items()}
    paths = {info.file: Path(dataset_dir, info.file) for info in manifest.files()}
    return {file: path.stat().st_size for file, path in paths.items() if os.path.isfile(path)}


def parse(raw: Any, *, what: str) -> Manifest:
    """Validates the JSON values of a manifest; `what` names their origin in errors.

    Raises:
      UserError: they are not a manifest of this format version.
    """
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if not isinstance(version, int):
        raise UserError(
            f"{what} has no format_version; expected what `python -m beam_jobs.preprocess` wrote"
        )
    if version != FORMAT_VERSION:
        remedy = "run the preprocessing again with --overwrite"
        if version > FORMAT_VERSION:
            remedy = f"upgrade multihot, or {remedy}"
        raise UserError(
            f"{what} has format version {version}, of "
            f"{'a newer' if version > FORMAT_VERSION else 'an older'} version of multihot; this "
            f"one reads format version {FORMAT_VERSION}: {remedy}"
        )
    return validate(Manifest, raw, what=what)


def write(manifest: Manifest, dataset_dir: str | Path) -> None:
    """Writes `manifest.json` atomically. Call it when every other file is in place."""
    places.write(places.join(dataset_dir, MANIFEST), dumps(manifest), durable=True)


def dumps(manifest: Manifest) -> str:
    """The content of `manifest.json`."""
    return dump_json(manifest.model_dump(mode="json"))


def check_same_dataset(
    manifest: Manifest, dataset_config: dict[str, Any], dataset_dir: str | Path
) -> None:
    """Raises UserError, with both sides of each difference, unless the dataset has this config."""
    rows = [
        f"  {key}: dataset {a!r}, config {b!r}"
        for key, a, b in differing_keys(manifest.config, dataset_config)
    ]
    if not rows:
        return
    raise UserError(
        f"the dataset {dataset_dir} was made with another config:\n"
        + "\n".join(rows)
        + "\nrun the preprocessing again with --overwrite, "
        "or set the keys back"
    )


def load_labels(manifest: Manifest, dataset_dir: str | Path) -> list[dict[str, Any]]:
    """`labels.json`: {"name": str, "positives": {split: int}} of each label, by label id."""
    return json.loads(_read_checked(manifest.labels, dataset_dir))


def load_vocabulary(manifest: Manifest, dataset_dir: str | Path) -> list[str]:
    """`vocabulary.txt`: tokens, most frequent first."""
    return _read_checked(manifest.vocabulary, dataset_dir).decode("utf-8").split("\n")[:-1]


def load_ngrams(manifest: Manifest, dataset_dir: str | Path) -> list[tuple[str, ...]]:
    """`vocabulary_ngrams.txt`: the tokens of each n-gram, most frequent first; may be empty.

    All are tokens of the vocabulary.
    """
    if manifest.ngrams is None:
        return []
    return [
        tuple(line.split(" "))
        for line in _read_checked(manifest.ngrams, dataset_dir).decode("utf-8").split("\n")[:-1]
    ]


def load_ngram_document_counts(manifest: Manifest, dataset_dir: str | Path) -> Any:
    """int64 array [n-grams]: train documents that hold each n-gram; None without n-grams."""
    return (
        _load_counts(manifest.ngram_document_counts, dataset_dir)
        if manifest.ngram_document_counts
        else None
    )


def load_statistics(manifest: Manifest, dataset_dir: str | Path) -> dict[str, Any] | None:
    """`statistics.json`, or None where the dataset has none."""
    return (
        json.loads(_read_checked(manifest.statistics, dataset_dir)) if manifest.statistics else None
    )


def load_document_counts(manifest: Manifest, dataset_dir: str | Path) -> Any:
    """int64 array [vocabulary]: train documents that hold each token."""
    return _load_counts(manifest.document_counts, dataset_dir)


def load_term_counts(manifest: Manifest, dataset_dir: str | Path) -> Any:
    """int64 array [vocabulary]: occurrences of each token in the train split; None if unknown."""
    return _load_counts(manifest.term_counts, dataset_dir) if manifest.term_counts else None


def dump_json(value: Any) -> str:
    """JSON that people read and that equal values give equal bytes of: keys stay in their order."""
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def file_info(dataset_dir: str | Path, file: str) -> FileInfo:
    """Describes a written file."""
    digest, size = hashlib.sha256(), 0
    with places.open_local(places.join(dataset_dir, file)) as stream:
        while block := stream.read(_BLOCK_BYTES):  # there may be as many rejects as documents
            digest.update(block)
            size += len(block)
    return FileInfo(file=file, bytes=size, sha256=digest.hexdigest())


def _load_counts(info: FileInfo, dataset_dir: str | Path) -> Any:
    import numpy as np

    return np.load(BytesIO(_read_checked(info, dataset_dir)), allow_pickle=False)


def _read_checked(info: FileInfo, dataset_dir: str | Path) -> bytes:
    path = places.join(dataset_dir, info.file)
    content = places.read_bytes(path)
    received = hashlib.sha256(content).hexdigest()
    if received != info.sha256:
        raise UserError(
            f"{path} has SHA-256 {received}, expected {info.sha256}: the dataset was changed "
            "after it was made; run the preprocessing again"
        )
    return content
