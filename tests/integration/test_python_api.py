"""`import multihot`: what commands do, with values that are given and returned."""

import json
import re
import shutil
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import multihot
from beam_jobs.contract import manifest as manifests
from multihot import preprocessing
from tests.command_lines import succeed
from tests.small_experiment import write_documents


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory of a script that is not a notebook."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def frame(tmp_path_factory) -> pd.DataFrame:
    path = tmp_path_factory.mktemp("frame") / "documents.jsonl"
    write_documents(path, 300)
    return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])


@pytest.fixture
def experiment(trained, tmp_path, monkeypatch):
    """A copy of the trained experiment, as the working directory."""
    shutil.copytree(trained.root, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def model(trained) -> multihot.Model:
    return multihot.load(trained.root / "out/small/model")


# --- preprocess, Dataset -----------------------------------------------------------------


def test_a_data_frame_becomes_the_dataset_of_the_same_documents_in_a_file(place, frame, capsys):
    given = {
        "text": "text",
        "labels": "labels",
        "output_dir": "exp",
        "settings": {"data.id_field": "key", "vocabulary.min_document_count": 1},
    }
    dataset = multihot.preprocess(frame, **given)
    assert sum(dataset.splits.values()) == 300
    assert "wrote exp/dataset" in capsys.readouterr().out
    assert dataset.config.train.run_dir == "exp/run"
    frame.to_json("documents.jsonl", orient="records", lines=True)
    config = "name: documents\ndata: {source: jsonl, inputs: [documents.jsonl], id_field: key}\n"
    (place / "c.yaml").write_text(config + "vocabulary: {min_document_count: 1}\n")
    succeed("beam_jobs.preprocess", "--config", "c.yaml", cwd=place)
    theirs = place / "out/documents/dataset"
    shards, others = (
        [shard.file for split in manifest.splits.values() for shard in split.shards]
        for manifest in (dataset.manifest, manifests.load(theirs))
    )
    for file, other in zip(shards, others, strict=True):
        assert (dataset.directory / file).read_bytes() == (theirs / other).read_bytes()

    again = multihot.preprocess(frame, **given)
    assert "exp/dataset is complete" in capsys.readouterr().out and repr(again) == repr(dataset)
    with pytest.raises(multihot.UserError, match="exp holds the dataset of other documents"):
        multihot.preprocess(frame[:99], **given)


def test_columns_of_zeros_and_ones_and_given_splits_are_kept(place):
    frames = {
        split: pd.DataFrame(
            {"title": [f"{split} of {i}" for i in range(4)], "x": [1, 0, 1, 0], "y": [0, 0, 1, 1]}
        )
        for split in ("train", "test")
    }
    dataset = multihot.preprocess(
        frames,
        text=["title"],
        labels=["x", "y"],
        verbose=False,
        vocabulary={"min_document_count": 1},
    )
    assert dataset.splits == {"train": 4, "validation": 0, "test": 4}
    assert dataset.label_counts["y"] == {"train": 2, "validation": 0, "test": 2}
    assert dataset.config.output.dataset_dir == "out/documents/dataset"


def test_the_process_of_a_notebook_gives_the_message_of_the_command():
    with pytest.raises(multihot.UserError, match="^too few\nsuch as this$"):
        preprocessing._check_ended(2, "a note\nerror: too few\nsuch as this\n")
    with pytest.raises(RuntimeError, match="status -9:\nKilled"):
        preprocessing._check_ended(-9, "Killed")
    preprocessing._check_ended(0, "a note")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "body"}, "text: received body, expected one or several of the columns"),
        ({"text": "text", "labels": ["a"]}, "labels: received a, expected"),
        ({}, "text: received None, expected the column with the text"),
        ({"text": "text", "labels": "labels", "labels_": {}}, "unknown key"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(place, frame, arguments, message):
    with pytest.raises(multihot.UserError, match=message):
        multihot.preprocess(frame, **arguments)
    assert not list(place.iterdir())


def test_tf_data_has_every_document_of_a_split_once(trained):
    dataset = multihot.Dataset(trained.root / "out/small/dataset")
    size, rows, weights = dataset.splits["validation"], [], []
    for texts, labels, weight in dataset.tf_data("validation", batch_size=50, weights=True):
        names = [np.flatnonzero(row).tolist() for row in labels.numpy()]
        rows += zip([text.decode() for text in texts.numpy()], names, strict=True)
        weights += weight.numpy().tolist()
    assert len(rows) == size and weights == [1.0] * size
    rare = dataset.label_names.index("rare")
    assert all((rare in ids) == ("peculiar" in text) for text, ids in rows)

    by_ids = dataset.tf_data(
        "validation", inputs="ids", labels="ids", batch_size=50, shuffle_seed=3
    )
    assert by_ids.cardinality() == -(-size // 50)
    words = ["", "[unknown]", *dataset.vocabulary]
    shuffled = []
    for ids, label_ids in by_ids:
        assert isinstance(ids, tf.RaggedTensor)
        texts = [" ".join(words[i] for i in row) for row in ids.to_list()]
        shuffled += zip(texts, label_ids.to_list(), strict=True)
    known = set(dataset.vocabulary)
    expected = [
        (" ".join(word if word in known else "[unknown]" for word in text.split()), ids)
        for text, ids in rows
    ]
    assert sorted(shuffled) == sorted(expected) and shuffled != expected


@pytest.mark.parametrize("wrong", [{"split": "dev"}, {"inputs": "tokens"}, {"labels": "names"}])
def test_tf_data_says_what_there_is(trained, wrong):
    dataset = multihot.Dataset(trained.root / "out/small/dataset")
    (name,) = wrong
    with pytest.raises(multihot.UserError, match=f"{name}: received '{wrong[name]}', expected"):
        dataset.tf_data(**({"split": "train"} | wrong))


# --- train, Run --------------------------------------------------------------------------


def test_a_run_is_trained_evaluated_and_exported_with_values_returned(experiment, capsys):
    run = multihot.train(
        "out/small/dataset", run_dir="runs/a", train={"epochs": 2}, model={"embedding_dim": 8}
    )
    assert "epoch 2: loss" in capsys.readouterr().out
    assert run.history.index.tolist() == [1, 2] and run.config.model.embedding_dim == 8
    assert run.best["validation_micro_f1"] == run.history.validation_micro_f1.max()
    evaluation = run.evaluate()
    assert evaluation.split == "test" and run.evaluation("validation").split == "validation"
    assert f"{evaluation.methods[0].metrics.micro_f1:.3f}</td>" in evaluation._repr_html_()
    model = run.export(model_dir="models/a")
    assert model.path.name == "1" and len(model.label_names) == 5
    assert not capsys.readouterr().out
    other = {"train.epochs": 2, "model.embedding_dim": 9}
    with pytest.raises(multihot.UserError, match=r"embedding_dim: run 8, config 9[^$]*fresh=True"):
        multihot.train("out/small/dataset", run_dir="runs/a", settings=other)


def test_a_run_trains_in_a_thread_of_its_own(experiment):
    runs = []

    def work():
        runs.append(multihot.train("small.yaml", run_dir="b", verbose=False, train={"epochs": 1}))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert runs[0].best["epoch"] == 1


def test_the_report_is_that_of_the_command(trained, tmp_path, monkeypatch):
    from trainer.report import html_report

    monkeypatch.setattr(html_report, "draw_all", lambda *_: {})
    monkeypatch.setattr(html_report, "page", lambda run, others, plots: run.name)
    page = multihot.Run(trained.root / "out/small/run").report(output=tmp_path / "new")
    assert page == tmp_path / "new/index.html" and page.read_text().startswith("small (")


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(multihot.UserError, match="holds no training run"):
        multihot.Run(tmp_path)


# --- load, Model -------------------------------------------------------------------------

TEXTS = ["Rocket in orbit around the moon", "", "soup and bread " * 3] * 100


def test_a_model_answers_lists_series_and_tables_alike_in_their_order(model, trained):
    predicted = model.predict(TEXTS)
    assert predicted[0][0] == "space" and "food" in predicted[2] and len(predicted) == 300
    assert predicted[3:] == predicted[:-3]  # over the bounds of batches
    frame = pd.DataFrame({"text": TEXTS, "more": 1})
    assert model.predict(frame) == model.predict(frame["text"]) == predicted
    assert model.predict([{"text": text} for text in TEXTS[:3]]) == predicted[:3]
    scores = model.scores(TEXTS)
    assert scores.shape == (300, 5) and model.scores([]).shape == (0, 5)
    (best, *_) = model.best(TEXTS[:1], k=2)
    assert [name for name, _ in best][0] == "space" and best[0][1] == pytest.approx(scores[0].max())


def test_an_explanation_is_a_page_in_a_frame(model):
    explanations = model.explain(TEXTS[0])
    assert explanations.labels[0].label == "space"
    assert re.match("<iframe srcdoc=.*rocket.*</iframe>$", explanations._repr_html_(), re.DOTALL)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("a text", "received 'a text', expected a list of documents"),
        (["a", None], "received the document None, expected a string, or a mapping"),
        ([{"body": "a"}], "received the document .*'body'.*, expected a string"),
        (pd.DataFrame({"body": ["a"]}), "the table: received text, expected .* columns body"),
    ],
)
def test_what_is_no_document_is_said(model, documents, message):
    with pytest.raises(multihot.UserError, match=message):
        model.predict(documents)


def test_a_directory_without_a_model_is_said_in_the_words_of_python(tmp_path):
    with pytest.raises(multihot.UserError, match=r"holds no SavedModel; .*`run.export\(\)`"):
        multihot.load(tmp_path)
