"""Documents with a separate title and body, from raw rows to a served model."""

import json
import random

import pytest
import tensorflow as tf
import yaml

from beam_jobs.contract import manifest as manifests
from tests.command_lines import succeed

WORDS = [f"word{i}" for i in range(40)]


def write_documents(path) -> list[dict]:
    """Rows whose labels follow from words of the title; in the body they mean nothing."""
    generator = random.Random(5)
    rows = []
    for i in range(600):
        title, body = generator.sample(WORDS, 4), generator.sample(WORDS, 12)
        labels = []
        for topic in ("rocket", "soup", "piano"):
            if generator.random() < 0.4:
                title.append(topic)
                labels.append(f"about {topic}")
            if generator.random() < 0.4:
                body.append(topic)
        generator.shuffle(title)
        rows.append(
            {
                "key": f"d{i}",
                "title": " ".join(title),
                "body": f"{' '.join(body)} n{i}",
                "labels": labels,
                "section": f"s{i % 3}",
            }
        )
    rows[7]["title"] = ""
    rows[7]["labels"] = []
    rows.append(
        rows[3] | {"key": "e0", "labels": ["about soup"]}
    )  # equal in both texts: one document, with the labels of both
    rows.append(
        rows[4] | {"key": "e1", "title": rows[4]["title"] + " more"}
    )  # equal in one text only: another document
    rows.append(
        {"key": "e2", "title": " ", "body": "--", "labels": [], "section": ""}
    )  # empty in both
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    root = tmp_path_factory.mktemp("apart")
    rows = write_documents(root / "documents.jsonl")
    config = {
        "name": "apart",
        "data": {
            "source": "jsonl",
            "inputs": ["documents.jsonl"],
            "id_field": "key",
            "text_fields": ["title", "body"],
            "join_text_fields": False,
            "metadata_fields": ["section"],
            "max_reject_fraction": 0.1,
        },
        "splits": {"train": 0.6, "validation": 0.2, "test": 0.2},
        "output": {"dataset_dir": "out/dataset", "shards": 2},
        "model": {"name": "bow", "embedding_dim": 16},
        "train": {"run_dir": "out/run", "batch_size": 32, "epochs": 8},
        "export": {"model_dir": "out/model"},
    }
    (root / "apart.yaml").write_text(yaml.safe_dump(config))
    succeed("beam_jobs.preprocess", "--config", "apart.yaml", cwd=root)
    succeed("trainer.task", "train", "--config", "apart.yaml", cwd=root)
    succeed("trainer.task", "evaluate", "--config", "apart.yaml", cwd=root)
    return root, {row["key"]: row for row in rows}


@pytest.fixture(scope="module")
def records(apart):
    root, _ = apart
    manifest = manifests.load(root / "out/dataset")
    files = [
        str(root / "out/dataset" / shard.file)
        for split in manifest.splits.values()
        for shard in split.shards
    ]
    parsed = manifest.record_spec.parse_batch(
        tf.constant(list(tf.data.TFRecordDataset(files).as_numpy_iterator()))
    )
    columns = (
        parsed[name].numpy() for name in ("id", "text/title", "text/body", "metadata/section")
    )
    return {
        key.decode(): tuple(value.decode() for value in values)
        for key, *values in zip(*columns, strict=True)
    }


def test_records_hold_each_text_and_the_metadata(apart, records):
    _, rows = apart
    assert records == {
        key: (row["title"], row["body"], row["section"])
        for key, row in rows.items()
        if key not in ("e0", "e2")
    }


def test_documents_are_duplicates_where_all_texts_are_equal_and_rejects_where_all_are_empty(apart):
    root, rows = apart
    manifest = manifests.load(root / "out/dataset")
    assert (manifest.text_fields, manifest.metadata_fields) == (("title", "body"), ("section",))
    assert (manifest.counts.duplicates, manifest.counts.rejected, manifest.counts.written) == (
        1,
        {"empty text": 1},
        601,
    )


def test_the_vocabulary_counts_documents_with_a_token_in_any_text(apart, records):
    root, _ = apart
    manifest = manifests.load(root / "out/dataset")
    counts = dict(
        zip(
            manifests.load_vocabulary(manifest, root / "out/dataset"),
            manifests.load_document_counts(manifest, root / "out/dataset").tolist(),
            strict=True,
        )
    )
    train = [str(root / "out/dataset" / shard.file) for shard in manifest.splits["train"].shards]
    parsed = manifest.record_spec.parse_batch(
        tf.constant(list(tf.data.TFRecordDataset(train).as_numpy_iterator()))
    )
    ids = [key.decode() for key in parsed["id"].numpy()]
    assert (
        counts["rocket"]
        == sum("rocket" in f"{records[key][0]} {records[key][1]}".split() for key in ids)
        > 50
    )


def test_tensorflow_datasets_reads_the_texts_as_a_dictionary(apart, records):
    tfds = pytest.importorskip("tensorflow_datasets")
    directory = apart[0] / "out/dataset"
    for row in (
        tfds.builder_from_directory(str(directory / manifests.load(directory).generation))
        .as_dataset(split="test", shuffle_files=False)
        .as_numpy_iterator()
    ):
        title, body, section = records[row["id"].decode()]
        assert {key: value.decode() for key, value in row["text"].items()} == {
            "title": title,
            "body": body,
        }
        assert row["metadata"] == {"section": section.encode()}


def test_inspect_shows_every_text(apart):
    root, _ = apart
    shown = succeed("beam_jobs.inspect", "out/dataset", cwd=root)
    assert (
        "  text/title: " in shown and "  text/body: " in shown and "  metadata/section: s" in shown
    )


def test_the_model_learns_in_which_text_a_word_stands(apart):
    root, _ = apart
    evaluation = json.loads((root / "out/run/evaluation-test.json").read_text())
    scores = {method["key"]: method["metrics"]["micro_f1"] for method in evaluation["methods"]}
    assert scores["one_threshold"] > 0.95


def answers(model, rows) -> tuple[list[list[str]], dict[str, list[str]]]:
    """(The labels that the model decides for each row, the analyzed texts by name)."""
    texts = {name: tf.constant([row[name] for row in rows]) for name in ("title", "body")}
    decided = model.signatures["decide"](**texts)
    labels = [
        sorted(row[:count])
        for row, count in zip(
            decided["labels"].numpy().astype(str).tolist(), decided["counts"].numpy(), strict=True
        )
    ]
    analyzed = model.signatures["analyze"](**texts)
    return labels, {name: value.numpy().astype(str).tolist() for name, value in analyzed.items()}


def test_the_served_model_takes_each_text_by_its_name(apart, records):
    root, rows = apart
    succeed("trainer.task", "export", "--config", "apart.yaml", cwd=root)
    model = tf.saved_model.load(str(root / "out/model/1"))
    keys = list(records)
    expected = [sorted(rows[key]["labels"]) for key in keys]
    labels, analyzed = answers(model, [rows[key] for key in keys])
    assert analyzed == {
        "analyzed/title": [records[key][0] for key in keys],
        "analyzed/body": [records[key][1] for key in keys],
    }
    right = sum(a == b for a, b in zip(labels, expected, strict=True))
    assert right > 0.9 * len(keys)
    swapped = [{"title": rows[key]["body"], "body": rows[key]["title"]} for key in keys]
    labels, _ = answers(model, swapped)
    assert sum(a == b for a, b in zip(labels, expected, strict=True)) < 0.6 * len(keys)


def test_predict_takes_a_json_object_a_line(apart):
    root, _ = apart
    lines = [
        {"title": "word1 rocket word2", "body": "word3 soup"},
        {"title": "word1", "body": "rocket"},
    ]
    printed = succeed(
        "trainer.task",
        "predict",
        "--model",
        "out/model",
        "--json",
        cwd=root,
        stdin="".join(json.dumps(x) + "\n" for x in lines),
    )
    assert [json.loads(line)["assigned"] for line in printed.splitlines()] == [["about rocket"], []]


def test_evaluation_slices_by_metadata(apart):
    root, _ = apart
    evaluation = json.loads((root / "out/run/evaluation-test.json").read_text())
    assert "section" in json.dumps(evaluation["slices"])
