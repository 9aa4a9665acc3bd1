"""From raw text to a served model, through the command lines."""

import contextlib
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import load_config
from beam_jobs.contract.records import RecordSpec
from tests.command_lines import fail_cleanly, succeed
from tests.corpus import files_of
from tests.served import answers_of
from trainer.data.input_pipeline import evaluation_batches
from trainer.evaluation import evaluator
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.tuned import load_tuned
from trainer.experiment import assemble, restore_best


def in_root(trained, monkeypatch):
    monkeypatch.chdir(trained.root)
    return load_config(trained.config)


@pytest.fixture(scope="session")
def documents(trained):
    with open(trained.root / "documents.jsonl", encoding="utf-8") as stream:
        return {row["key"]: row for row in map(json.loads, stream)}


@pytest.fixture(scope="session")
def served(trained, documents):
    """What the exported model answers to every raw document."""
    model = tf.saved_model.load(str(trained.root / "out/small/model/1"))
    return answers_of(model, [row["text"] for row in documents.values()])


def test_the_model_learns_what_the_labels_follow_from(trained):
    evaluation = json.loads((trained.root / "out/small/run/evaluation-test.json").read_text())
    scores = {method["key"]: method["metrics"]["micro_f1"] for method in evaluation["methods"]}
    assert scores["one_threshold"] > 0.95
    assert 0.7 > scores["frequent_labels"] > scores["no_labels"] == 0


def test_the_saved_model_analyzes_raw_text_to_the_very_bytes_of_the_dataset(
    trained, documents, served
):
    analyzed = dict(zip(documents, served["analyzed"], strict=True))
    shards = sorted(map(str, files_of(trained.root / "out/small/dataset").glob("*.tfrecord-*")))
    parsed = RecordSpec().parse_batch(
        tf.constant(list(tf.data.TFRecordDataset(shards).as_numpy_iterator()))
    )
    assert len(parsed["id"]) == len(documents)
    for key, text in zip(parsed["id"].numpy(), parsed["text"].numpy(), strict=True):
        assert analyzed[key.decode()].encode() == text


def test_the_saved_model_alone_gives_the_scores_of_the_trainer(
    trained, documents, served, monkeypatch
):
    experiment = assemble(in_root(trained, monkeypatch))
    restore_best(experiment)
    place = {key: i for i, key in enumerate(documents)}
    shards = experiment.dataset.shards("test")
    ids = [
        i.decode()
        for i in RecordSpec()
        .parse_batch(tf.constant(list(tf.data.TFRecordDataset(shards).as_numpy_iterator())))["id"]
        .numpy()
    ]
    batches = evaluation_batches(
        experiment.dataset, "test", experiment.vectorizer, experiment.strategy, global_batch_size=64
    )
    scores = np.concatenate([experiment.scores(batch["tokens"]).numpy() for batch in batches])[
        : len(ids)
    ]
    # One shard after another here, interleaved there: compared as sets of rows.
    expected = np.array([served["scores"]["scores"][place[key]] for key in ids])
    np.testing.assert_allclose(np.sort(scores, axis=0), np.sort(expected, axis=0), atol=1e-6)


def test_serving_default_is_the_sorted_top_of_all_scores(trained, served):
    labels = files_of(trained.root / "out/small/dataset") / "labels.json"
    names = [label["name"] for label in json.loads(labels.read_text())]
    scores = np.array(served["scores"]["scores"], np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    assert served["serving_default"]["labels"] == [[names[j] for j in row] for row in order]
    np.testing.assert_array_equal(
        np.array(served["serving_default"]["scores"], np.float32),
        np.take_along_axis(scores, order, axis=1),
    )


def test_decide_applies_the_thresholds_of_the_evaluation(trained, served):
    thresholds = json.loads((trained.root / "out/small/run/thresholds.json").read_text())
    labels = files_of(trained.root / "out/small/dataset") / "labels.json"
    names = [label["name"] for label in json.loads(labels.read_text())]
    limits = np.array(thresholds["per_label_bins"]) / thresholds["num_bins"]
    for row, labels, count in zip(
        served["scores"]["scores"],
        served["decide"]["labels"],
        served["decide"]["counts"],
        strict=True,
    ):
        assert set(labels[:count]) == {
            name for name, score, limit in zip(names, row, limits, strict=True) if score >= limit
        }
        assert set(labels[count:]) <= {""}


def test_thresholds_and_metrics_come_out_the_same_from_the_saved_scores(
    trained, documents, served, monkeypatch
):
    experiment = assemble(in_root(trained, monkeypatch))
    restore_best(experiment)
    tuned = load_tuned(experiment.run_dir, num_labels=experiment.dataset.num_labels)
    measured = Evaluator(experiment).measure(
        ["test"], *tuned, confusion_labels=np.arange(experiment.dataset.num_labels)
    )["test"]
    counts = measured["methods"]["label_thresholds"]
    shards = experiment.dataset.shards("test")
    ids = [
        i.decode()
        for i in RecordSpec()
        .parse_batch(tf.constant(list(tf.data.TFRecordDataset(shards).as_numpy_iterator())))["id"]
        .numpy()
    ]
    place = {key: i for i, key in enumerate(documents)}
    tp = sum(
        len(set(documents[key]["labels"]) & set(served["decide"]["labels"][place[key]]))
        for key in ids
    )
    predicted = sum(served["decide"]["counts"][place[key]] for key in ids)
    assert counts["documents"] == len(ids)
    assert (counts["tp"].sum(), (counts["tp"] + counts["fp"]).sum()) == (tp, predicted)


def test_each_pass_over_a_split_shows_its_progress(trained, monkeypatch):
    lines = []

    class Line(contextlib.AbstractContextManager):
        def __init__(self, what):
            self._what = what

        def __exit__(self, *exc_info):
            pass

        def update(self, done, total, status):
            lines.append((self._what, done, total, status.partition(" documents, ")[0]))

    monkeypatch.setattr(evaluator, "ProgressLine", Line)
    experiment = assemble(in_root(trained, monkeypatch))
    restore_best(experiment)
    Evaluator(experiment).histogram("validation")
    number = experiment.dataset.num_examples("validation")
    assert lines[-1] == ("scoring validation", number, number, f"{number:,} of {number:,}")


def test_predict_prints_labels_with_scores_for_arguments_and_for_lines_of_stdin(trained):
    text = "Rocket in orbit around the moon"
    printed = succeed(
        "trainer.task", "predict", "--model", "out/small/model", text, cwd=trained.root
    )
    assert printed.splitlines()[0] == text
    assert printed.splitlines()[1].split()[1:] == ["*", "space"]
    lines = succeed(
        "trainer.task",
        "predict",
        "--model",
        "out/small/model/1",
        "--json",
        cwd=trained.root,
        stdin=f"{text}\n\nsoup and bread\n",
    )
    rows = [json.loads(line) for line in lines.splitlines()]
    assert [row["text"] for row in rows] == [text, "", "soup and bread"]
    assert rows[0]["labels"][0] == "space" and rows[2]["labels"][0] == "food"
    assert "space" in rows[0]["assigned"] and set(rows[0]["assigned"]) <= set(rows[0]["labels"])


def test_a_second_run_reuses_what_is_there_and_exports_a_new_version(trained, tmp_path):
    shutil.copytree(trained.root, tmp_path / "again")
    place = tmp_path / "again"
    checkpoint = (place / "out/small/run/checkpoints/checkpoint").read_bytes()
    assert "is complete" in succeed("beam_jobs.preprocess", "--config", "small.yaml", cwd=place)
    told = succeed("trainer.task", "train", "--config", "small.yaml", cwd=place)
    assert "the run is finished; nothing is trained" in told and "resuming" not in told
    assert (place / "out/small/run/checkpoints/checkpoint").read_bytes() == checkpoint
    succeed("trainer.task", "export", "--config", "small.yaml", cwd=place)
    assert sorted(path.name for path in (place / "out/small/model").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda d: (d / "manifest.json").unlink(), "has no manifest.json"),
        (lambda d: shutil.rmtree(d), "does not exist"),
        (lambda d: truncate(next(d.glob("*/small-train*"))), "the dataset is damaged"),
        (
            lambda d: set_version(d / "manifest.json", manifests.FORMAT_VERSION + 1),
            f"this one reads format version {manifests.FORMAT_VERSION}",
        ),
    ],
)
def test_a_dataset_that_is_none_is_told_in_one_message(trained, tmp_path, damage, expected):
    shutil.copytree(trained.root / "out/small/dataset", tmp_path / "out/small/dataset")
    shutil.copy(trained.root / "small.yaml", tmp_path)
    damage(tmp_path / "out/small/dataset")
    assert expected in fail_cleanly("trainer.task", "train", "--config", "small.yaml", cwd=tmp_path)
    assert not (tmp_path / "out/small/run").exists()


def truncate(shard):
    shard.write_bytes(shard.read_bytes()[:-7])


def set_version(path, version):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": version}))


def test_a_model_directory_that_is_none_is_told_in_one_message(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/saved_model.pb").write_bytes(b"no protobuf")
    for model, expected in (
        ("missing", "is not a directory"),
        ("empty", "holds no SavedModel"),
        ("broken", "cannot be loaded"),
    ):
        assert expected in fail_cleanly(
            "trainer.task", "predict", "--model", model, "text", cwd=tmp_path
        )


def test_stages_called_out_of_order_say_what_comes_first(trained, tmp_path):
    shutil.copytree(trained.root / "out/small/dataset", tmp_path / "out/small/dataset")
    shutil.copy(trained.root / "small.yaml", tmp_path)
    assert "holds no trained model" in fail_cleanly(
        "trainer.task", "evaluate", "--config", "small.yaml", cwd=tmp_path
    )
    shutil.copytree(trained.root / "out/small/run", tmp_path / "out/small/run")
    (tmp_path / "out/small/run/thresholds.json").unlink()
    assert "run it first" in fail_cleanly(
        "trainer.task", "export", "--config", "small.yaml", cwd=tmp_path
    )
    assert not (tmp_path / "out/small/model").exists()
