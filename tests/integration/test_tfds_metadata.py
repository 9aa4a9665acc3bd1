"""TensorFlow Datasets reads a dataset directory and finds what our own reader finds."""

import json
from pathlib import Path

import pytest
import tensorflow as tf

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.records import RecordSpec
from beam_jobs.preprocessing.job import preprocess
from beam_jobs.preprocessing.tfds_metadata import DATASET_INFO, FEATURES
from tests.corpus import files_of


def make(folder, *, weights: list[float], **output):
    """A dataset of 60 documents, with an empty test split and some empty shards."""
    rows = [
        {
            "text": f"words of number{i} é",
            "labels": [f"l{j}" for j in range(i % 4)],
            "weight": weights[i % len(weights)],
            "id": f"№ {i}",
        }
        for i in range(60)
    ]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {
                "source": "jsonl",
                "inputs": [str(folder / "in.jsonl")],
                "id_field": "id",
                "weight_field": "weight",
            },
            "splits": {"train": 0.8, "validation": 0.2, "test": 0},
            "output": {"dataset_dir": str(folder / "dataset"), "shards": 9} | output,
        },
        what="",
    )
    preprocess(config, beam_arguments=[], overwrite=False, force=False)
    return folder / "dataset"


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.5]])
def test_tensorflow_datasets_reads_what_our_reader_reads(tmp_path, weights):
    tfds = pytest.importorskip("tensorflow_datasets")
    directory = make(tmp_path, weights=weights)
    manifest = manifests.load(directory)
    builder = tfds.builder_from_directory(str(directory / manifest.generation))
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        name: split.examples for name, split in manifest.splits.items() if split.examples
    }
    for split in ("train", "validation"):
        files = [str(directory / shard.file) for shard in manifest.splits[split].shards]
        ours = RecordSpec().parse_batch(
            tf.constant(list(tf.data.TFRecordDataset(files).as_numpy_iterator()))
        )
        theirs = list(builder.as_dataset(split=split, shuffle_files=False).as_numpy_iterator())
        assert sorted(
            (row["id"], row["text"], row["labels"].tolist(), row.get("weight", 1.0))
            for row in theirs
        ) == sorted(
            zip(
                *(ours[key].numpy().tolist() for key in ("id", "text")),
                ours["labels"].to_list(),
                ours["weight"].numpy().tolist(),
                strict=True,
            )
        )
        assert len(theirs) == manifest.splits[split].examples > 0


def test_the_manifest_vouches_for_the_metadata_and_weights_are_in_it_where_there_are_any(
    tmp_path,
):
    for weights in ([1.0], [1.0, 0.5]):
        (folder := tmp_path / str(len(weights))).mkdir()
        directory = make(folder, weights=weights)
        assert {Path(info.file).name for info in manifests.load(directory).tfds} == {
            FEATURES,
            DATASET_INFO,
        }
        features = json.loads((files_of(directory) / FEATURES).read_text())["content"]["features"]
        assert set(features) == {"id", "text", "labels"} | (
            {"weight"} if len(weights) > 1 else set()
        )


def test_compressed_shards_have_no_metadata_since_tensorflow_datasets_cannot_read_them(tmp_path):
    directory = make(tmp_path, weights=[1.0], compression="gzip")
    manifest = manifests.load(directory)
    assert manifest.tfds == () and not (files_of(directory) / FEATURES).exists()
    files = [str(directory / shard.file) for shard in manifest.splits["train"].shards]
    assert all(file.endswith(".gz") for file in files)
    found = list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())
    assert len(found) == manifest.splits["train"].examples > 30
