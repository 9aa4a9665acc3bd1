"""Near-duplicates in whole jobs: what is reported, and what is dropped."""

import json
import random

import pytest
import tensorflow as tf

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict
from beam_jobs.preprocessing.job import preprocess


@pytest.fixture(scope="module")
def corpus() -> list[dict]:
    """100 documents of 60 words of their own.

    30 of them are in train and, with one word more, in test; 10 are twice in train.
    """
    rng = random.Random(0)
    texts = [" ".join(f"w{rng.randrange(5000)}" for _ in range(60)) for _ in range(100)]
    rows = [{"text": text, "label": "train" if i < 70 else "valid"} for i, text in enumerate(texts)]
    rows += [{"text": f"{text} extra", "label": "test"} for text in texts[:30]]
    rows += [{"text": f"again {text}", "label": "train"} for text in texts[40:50]]
    return rows


def make(folder, corpus: list[dict], near: str, **duplicates):
    """The dataset of the corpus, whose files are its splits."""
    for label in ("train", "valid", "test"):
        lines = [
            json.dumps({"text": row["text"], "labels": [label]})
            for row in corpus
            if row["label"] == label
        ]
        (folder / f"{label}.jsonl").write_text("\n".join(lines))
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {"source": "jsonl", "inputs": [str(folder / "*.jsonl")]},
            "duplicates": {"near": near} | duplicates,
            "splits": {"method": "files", "validation": ["*valid.jsonl"], "test": ["*test.jsonl"]},
            "output": {"dataset_dir": str(folder / "dataset")},
        },
        what="",
    )
    preprocess(config, beam_arguments=[], overwrite=False, force=False)
    manifest = manifests.load(folder / "dataset")
    sizes = [manifest.splits[split].examples for split in manifests.SPLITS]
    return manifest.counts, sizes, manifests.load_statistics(manifest, folder / "dataset")


def test_near_duplicates_across_splits_are_reported_and_stay(tmp_path, corpus):
    counts, sizes, statistics = make(tmp_path, corpus, "report")
    assert (sizes, counts.near_duplicates) == ([80, 30, 30], 0)
    assert statistics["near_duplicates"] == {
        "train": {"in train": 10},
        "validation": {"in train": 0, "in validation": 0},
        "test": {"in train": 30, "in validation": 0, "in test": 0},
    }


def test_near_duplicates_are_dropped_from_the_earlier_split(tmp_path, corpus):
    counts, sizes, statistics = make(tmp_path, corpus, "drop")
    assert (sizes, counts.near_duplicates, counts.unaccounted()) == ([40, 30, 30], 40, 0)
    assert "near_duplicates" not in statistics


def test_the_document_that_stays_keeps_its_own_labels_and_weight(tmp_path):
    words = [f"w{i}" for i in range(80)]
    # Each text is nearly equal to the next ones.
    texts = [" ".join([*words, *(f"more{j}" for j in range(i))]) for i in range(5)]
    rows = [
        {"text": text, "labels": [f"l{i}", "all"], "weight": 1.0 + i}
        for i, text in enumerate(texts)
    ]
    rows += [
        {"text": f"other words, number{i}", "labels": ["other"], "weight": 0.5} for i in range(30)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {
                "source": "jsonl",
                "inputs": [str(tmp_path / "in.jsonl")],
                "weight_field": "weight",
            },
            "duplicates": {"near": "drop", "similarity": 0.7, "shingle_tokens": 2},
            "splits": {"train": 1, "validation": 0, "test": 0},
            "output": {"dataset_dir": str(tmp_path / "dataset"), "shards": 1},
        },
        what="",
    )
    preprocess(config, beam_arguments=[], overwrite=False, force=False)
    manifest = manifests.load(tmp_path / "dataset")
    assert (manifest.counts.near_duplicates, manifest.counts.written) == (4, 31)
    names = [label["name"] for label in manifests.load_labels(manifest, tmp_path / "dataset")]
    assert len(names) == 3  # "all", "other" and that of the document that stays
    files = [str(tmp_path / "dataset" / shard.file) for shard in manifest.splits["train"].shards]
    parsed = manifest.record_spec.parse_batch(
        tf.constant(list(tf.data.TFRecordDataset(files).as_numpy_iterator()))
    )
    written = zip(parsed["labels"].to_list(), parsed["weight"].numpy().tolist(), strict=True)
    ((labels, weight),) = [
        (sorted(names[i] for i in labels), weight)
        for labels, weight in written
        if names.index("all") in labels
    ]
    assert labels == ["all", f"l{int(weight) - 1}"]


def test_a_higher_similarity_and_longer_shingles_keep_more(tmp_path, corpus):
    for name, keys in (
        ("a", {"similarity": 1.0}),
        ("b", {"shingle_tokens": 16, "similarity": 0.99}),
    ):
        (tmp_path / name).mkdir()
        assert make(tmp_path / name, corpus, "drop", **keys)[0].near_duplicates < 15


def test_near_duplicates_are_ignored_by_default(tmp_path, corpus):
    counts, sizes, statistics = make(tmp_path, corpus, "ignore")
    assert (sizes, counts.near_duplicates, "near_duplicates" in statistics) == (
        [80, 30, 30],
        0,
        False,
    )
