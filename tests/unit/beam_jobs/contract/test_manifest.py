"""The manifest: what a dataset directory holds, and every way in which it can be broken."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict, config_hash
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import (
    Counts,
    Manifest,
    ShardInfo,
    SplitInfo,
    file_info,
    shard_name,
)
from beam_jobs.contract.word_lists import AnalyzerSpec

CONFIG = config_from_dict(
    {"name": "tiny", "data": {"source": "jsonl", "inputs": ["in.jsonl"]}}, what=""
)
LABELS = [{"name": "a", "positives": {"train": 2}}, {"name": "né", "positives": {"train": 1}}]
VOCABULARY = ["the", "\u00e9t\u00e9", "\u2028", "x"]


@pytest.fixture
def dataset(tmp_path) -> tuple[Path, Manifest]:
    """A small dataset directory, all but its manifest.json."""
    splits = {}
    for split, counts in (("train", (2, 1)), ("validation", (1,)), ("test", (0,))):
        shards = []
        for index, examples in enumerate(counts):
            name = shard_name("tiny", split, index, len(counts))
            (tmp_path / name).write_bytes(f"{split} {index} ".encode() * examples)
            shards.append(ShardInfo(**file_info(tmp_path, name).model_dump(), examples=examples))
        splits[split] = SplitInfo(
            examples=sum(counts), shards=tuple(shards), token_length_quantiles={"0.5": 3}
        )
    (tmp_path / manifests.LABELS).write_text(manifests.dump_json(LABELS), encoding="utf-8")
    (tmp_path / manifests.VOCABULARY).write_text(
        "".join(token + "\n" for token in VOCABULARY), encoding="utf-8"
    )
    np.save(tmp_path / manifests.DOCUMENT_COUNTS, np.array([4, 3, 2, 1]))
    (tmp_path / manifests.REJECTS).write_text('{"reason": "not_json"}\n')
    manifest = Manifest(
        format_version=manifests.FORMAT_VERSION,
        name="tiny",
        config=CONFIG.dataset_config(),
        config_hash=config_hash(CONFIG.dataset_config()),
        input_hash="00",
        analyzer=AnalyzerSpec(stop_words=("the",)),
        splits=splits,
        counts=Counts(
            read=8,
            rejected={"not_json": 1},
            duplicates=2,
            dropped_without_labels=1,
            written=4,
            written_without_labels=1,
        ),
        labels=file_info(tmp_path, manifests.LABELS),
        num_labels=2,
        vocabulary=file_info(tmp_path, manifests.VOCABULARY),
        document_counts=file_info(tmp_path, manifests.DOCUMENT_COUNTS),
        vocabulary_size=4,
        rejects=file_info(tmp_path, manifests.REJECTS),
    )
    return tmp_path, manifest


@pytest.fixture
def complete(dataset) -> Path:
    directory, manifest = dataset
    manifests.write(manifest, directory)
    return directory


def rewrite(directory: Path, **changes) -> None:
    file = directory / "manifest.json"
    file.write_text(
        json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8"
    )


# --- writing and loading ---------------------------------------------------------------


def test_written_manifest_loads_equal_and_leaves_no_temporary_file(dataset):
    directory, manifest = dataset
    before = set(os.listdir(directory))
    manifests.write(manifest, directory)
    assert set(os.listdir(directory)) == before | {"manifest.json"}
    assert manifests.load(directory) == manifest
    assert manifests.load(str(directory)) == manifest


def test_equal_manifests_are_equal_bytes(dataset):
    directory, manifest = dataset
    manifests.write(manifest, directory)
    first = (directory / "manifest.json").read_bytes()
    manifests.write(manifests.load(directory), directory)
    assert (directory / "manifest.json").read_bytes() == first


def test_every_file_of_the_directory_is_vouched_for(complete):
    vouched = [info.file for info in manifests.load(complete).files()]
    assert sorted(vouched) == sorted(set(os.listdir(complete)) - {"manifest.json"})


def fail_half_way(_):
    raise OSError("disk full")


def fail_to_rename(source, target):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("target", "fails"),
    [("os.fsync", fail_half_way), ("os.replace", fail_to_rename)],
)
def test_failure_while_writing_leaves_no_manifest_and_spoils_no_older_one(
    dataset, monkeypatch, target, fails
):
    directory, manifest = dataset
    with monkeypatch.context() as patch:
        patch.setattr(target, fails)
        with pytest.raises((OSError, KeyboardInterrupt)):
            manifests.write(manifest, directory)
    assert not (directory / "manifest.json").exists()
    manifests.write(manifest, directory)
    with monkeypatch.context() as patch:
        patch.setattr(target, fails)
        with pytest.raises((OSError, KeyboardInterrupt)):
            manifests.write(manifest.model_copy(update={"name": "other"}), directory)
    assert manifests.load(directory) == manifest


def test_labels_vocabulary_and_document_counts_load_as_written(complete):
    manifest = manifests.load(complete)
    assert manifests.load_labels(manifest, complete) == LABELS
    assert manifests.load_vocabulary(manifest, complete) == VOCABULARY
    counts = manifests.load_document_counts(manifest, complete)
    assert counts.dtype == np.int64
    assert counts.tolist() == [4, 3, 2, 1]


def test_shard_names_are_those_of_tensorflow_datasets():
    assert shard_name("tiny", "train", 3, 16) == "tiny-train.tfrecord-00003-of-00016"


def test_unaccounted_documents_are_those_in_no_other_count(dataset):
    counts = dataset[1].counts
    assert counts.unaccounted() == 0
    assert counts.model_copy(update={"written": 3}).unaccounted() == 1
    assert counts.model_copy(update={"rejected": {"not_json": 1, "empty": 2}}).unaccounted() == -2
    # Documents written without labels are among those written.
    assert counts.model_copy(update={"written_without_labels": 4}).unaccounted() == 0


# --- broken datasets -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "state"),
    [
        (lambda path: None, "does not exist"),
        (
            lambda path: path.mkdir(),
            "has no manifest.json: it is not a dataset, or its preprocessing did not finish",
        ),
        (lambda path: path.write_text(""), "is not a directory"),
    ],
    ids=["nothing", "empty directory", "file"],
)
def test_directory_that_is_no_dataset_is_told_with_the_job_that_writes_one(
    tmp_path, prepare, state
):
    path = tmp_path / "data"
    prepare(path)
    with pytest.raises(UserError) as raised:
        manifests.load(path)
    assert (
        str(raised.value)
        == f"the dataset directory {path} {state}; expected a dataset that `python -m "
        f"beam_jobs.preprocess` wrote"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"format_version": 1'])
def test_manifest_that_is_no_json_is_told_with_its_file(complete, content):
    (complete / "manifest.json").write_bytes(content)
    with pytest.raises(
        UserError,
        match=r"manifest\.json is not valid JSON \(.*\); expected a dataset that `python -m "
        r"beam_jobs\.preprocess` wrote",
    ):
        manifests.load(complete)


@pytest.mark.parametrize("content", ["[]", "{}", '{"format_version": "1"}'])
def test_json_that_is_no_manifest_is_told_with_its_file(complete, content):
    (complete / "manifest.json").write_text(content)
    with pytest.raises(
        UserError, match=r"manifest\.json has no format_version; expected what `python"
    ):
        manifests.load(complete)


@pytest.mark.parametrize(
    ("change", "made_by", "remedy"),
    [
        (1, "a newer", "upgrade multihot, or run the preprocessing again with --overwrite"),
        (-1, "an older", "run the preprocessing again with --overwrite"),
    ],
)
def test_another_format_version_is_refused_with_both_versions_before_anything_else_is_read(
    complete, change, made_by, remedy
):
    version = manifests.FORMAT_VERSION
    rewrite(complete, format_version=version + change, splits="of a kind unknown today")
    expected = (
        rf"manifest\.json has format version {version + change}, of {made_by} version of multihot; "
        f"this one reads format version {version}: {remedy}"
    )
    with pytest.raises(UserError, match=expected):
        manifests.load(complete)


def test_manifest_with_wrong_keys_is_told_key_by_key(complete):
    rewrite(
        complete,
        num_labels="2",
        splits={
            "train": {
                "examples": 1,
                "shards": [{"file": "a", "size": 1}],
                "token_length_quantiles": {"0.5": 1.5},
            }
        },
    )
    with pytest.raises(UserError) as raised:
        manifests.load(complete)
    lines = str(raised.value).splitlines()
    assert lines[0].endswith("manifest.json: 6 errors")
    assert sorted(line.strip() for line in lines[1:]) == [
        "num_labels: received '2' (str); expected a valid integer",
        "splits.train.shards.0.bytes: missing; expected a value",
        "splits.train.shards.0.examples: missing; expected a value",
        "splits.train.shards.0.sha256: missing; expected a value",
        "splits.train.shards.0.size: unknown key; valid keys here: bytes, examples, file, sha256",
        "splits.train.token_length_quantiles.0.5: received 1.5 (float); expected a valid integer",
    ]


FILES = [
    "tiny-train.tfrecord-00001-of-00002",
    "tiny-test.tfrecord-00000-of-00001",
    "labels.json",
    "vocabulary.txt",
    manifests.REJECTS,
]


@pytest.mark.parametrize("file", FILES)
def test_missing_file_is_named_with_the_fix(complete, file):
    size = (complete / file).stat().st_size
    (complete / file).unlink()
    with pytest.raises(UserError) as raised:
        manifests.load(complete)
    damage = "the dataset is damaged; run the preprocessing again with --force"
    assert str(raised.value) == f"{complete / file} is missing, expected {size} bytes: {damage}"


def test_truncated_shard_is_named_with_both_sizes_and_the_fix(complete):
    shard = complete / FILES[0]
    size = shard.stat().st_size
    os.truncate(shard, size - 1)
    with pytest.raises(UserError) as raised:
        manifests.load(complete)
    assert str(raised.value).startswith(
        f"{shard} has {size - 1} bytes, expected {size} bytes: the dataset is damaged; run the "
        f"preprocessing again"
    )


@pytest.mark.parametrize(
    ("file", "load"),
    [
        (manifests.LABELS, manifests.load_labels),
        (manifests.VOCABULARY, manifests.load_vocabulary),
        (manifests.DOCUMENT_COUNTS, manifests.load_document_counts),
    ],
)
def test_file_changed_in_its_content_alone_is_named_with_the_fix(complete, file, load):
    content = bytearray((complete / file).read_bytes())
    content[-2] ^= 1
    (complete / file).write_bytes(content)
    manifest = manifests.load(complete)  # of the same size: only its hash tells
    with pytest.raises(UserError) as raised:
        load(manifest, complete)
    assert str(raised.value).startswith(f"{complete / file} has SHA-256 ")
    assert "expected " in str(raised.value)
    assert str(raised.value).endswith(
        "the dataset was changed after it was made; run the preprocessing again"
    )


# --- another config --------------------------------------------------------------------


def test_same_config_passes_also_after_json(complete):
    manifests.check_same_dataset(manifests.load(complete), CONFIG.dataset_config(), complete)


def test_key_that_the_dataset_is_older_than_passes_while_it_is_null(complete):
    newer = CONFIG.dataset_config()
    newer["text"]["new_key"] = None
    manifests.check_same_dataset(manifests.load(complete), newer, complete)


def test_other_config_is_refused_with_both_sides_of_each_difference(complete):
    raw = CONFIG.model_dump(mode="json")
    raw["text"] |= {"normalize": "lower"}
    raw["labels"] |= {"top_k": 5}
    other = config_from_dict(raw, what="").dataset_config()
    with pytest.raises(UserError) as raised:
        manifests.check_same_dataset(manifests.load(complete), other, complete)
    assert str(raised.value).splitlines() == [
        f"the dataset {complete} was made with another config:",
        "  labels.top_k: dataset None, config 5",
        "  text.normalize: dataset 'nfkc_casefold', config 'lower'",
        "run the preprocessing again with --overwrite, or set the keys back",
    ]


def test_keys_that_do_not_decide_the_dataset_may_change(complete):
    raw = CONFIG.model_dump(mode="json")
    raw["train"]["epochs"] = 1
    raw["output"]["dataset_dir"] = "moved"
    manifests.check_same_dataset(
        manifests.load(complete), config_from_dict(raw, what="").dataset_config(), complete
    )


def test_json_is_readable_and_its_order_is_kept():
    assert manifests.dump_json({"b": [1], "a": "é"}) == '{\n "b": [\n  1\n ],\n "a": "é"\n}\n'
