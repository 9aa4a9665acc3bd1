"""Models and labels that validation documents say nothing about: how they are decided, and told."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract import saved_model
from tests.command_lines import fail_cleanly, succeed, train
from tests.small_experiment import CONFIG, make_dataset, write_documents
from trainer.metrics.calibration import Calibration
from trainer.metrics.thresholds import NEVER_TRAINED, OWN
from trainer.runs.evaluation_record import read_evaluation
from trainer.runs.layout import CALIBRATION, evaluation_path
from trainer.serving.predict import predictions


def trainer(command, *arguments, cwd, run=succeed):
    return run("trainer.task", command, "--config", "small.yaml", *arguments, cwd=cwd)


def card_of(root, version):
    path = root / f"out/small/model/{version}/README.md"
    return path.read_text(encoding="utf-8")


# --- a model that was trained on all documents ---------------------------------------------


@pytest.fixture(scope="module")
def all_in_train(tmp_path_factory):
    """A trained model, without validation and test documents."""
    root = tmp_path_factory.mktemp("all")
    make_dataset(root, 300, CONFIG + "splits: {train: 1, validation: 0, test: 0}\n")
    assert "no validation split" in train(root)
    return root


def test_a_model_trained_on_all_documents_exports_and_no_command_sends_to_another_in_a_circle(
    all_in_train,
):
    message = trainer("evaluate", cwd=all_in_train, run=fail_cleanly)
    assert "neither validation nor test documents" in message
    assert "trainer.task export` then decides by 0.5" in message
    run_dir = "out/small/run"
    message = fail_cleanly("trainer.task", "report", "--run", run_dir, cwd=all_in_train)
    assert "there is no evaluation to report" in message and "evaluate`" not in message

    printed = trainer("export", "--set", "export.model_dir=half", cwd=all_in_train)
    assert "0.5 for all labels, untuned, because there were no validation documents" in printed
    card = (all_in_train / "half/1/README.md").read_text(encoding="utf-8")
    assert "because there were no validation documents" in card
    assert "A label is assigned if its score is at least 0.500." in card
    model = saved_model.load(str(all_in_train / "half"))
    found = model.module.signatures["decide"](text=tf.constant(["goal match song guitar"]))
    scores = model.module.signatures["scores"](text=tf.constant(["goal match song guitar"]))
    assert found["counts"].numpy()[0] == (scores["scores"].numpy() >= 0.5).sum() > 0

    printed = trainer(
        "export", "--average", "half", "half", "--set", "export.model_dir=mean", cwd=all_in_train
    )
    assert "0.5 for all labels, untuned" in printed


def test_thresholds_of_an_evaluated_run_with_the_same_labels_are_exported(all_in_train, trained):
    other = trained.root / "out/small/run"
    printed = trainer("export", "--set", f"export.thresholds_from={other}", cwd=all_in_train)
    assert f"thresholds: those of the run {other}" in printed
    assert f"those of the run {other}, whose model has other weights" in card_of(all_in_train, 1)
    bins = json.loads((other / "thresholds.json").read_text())["per_label_bins"]
    model = saved_model.load(str(all_in_train / "out/small/model"))
    texts = tf.constant(["goal match", "song bread soup", "peculiar"])
    assigned = model.module.decide_analyzed(texts)
    np.testing.assert_array_equal(
        assigned["assigned"], np.floor(assigned["scores"].numpy() * 1024) >= bins
    )


def test_thresholds_of_a_run_with_other_labels_or_of_none_are_refused(
    all_in_train, trained, tmp_path
):
    def refused(run):
        return trainer(
            "export", "--set", f"export.thresholds_from={run}", cwd=all_in_train, run=fail_cleanly
        )

    assert "holds no evaluation; expected train.run_dir of a run" in refused(tmp_path)
    run = shutil.copytree(trained.root / "out/small/run", tmp_path / "run")
    evaluation = evaluation_path(run, "validation")
    evaluation.write_text(evaluation.read_text().replace('"rare"', '"scarce"'))
    message = refused(run)
    assert "has 5 labels and this run 5" in message and "rare, scarce" in message


# --- a label that was never trained ----------------------------------------------------------


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """An evaluated and exported model, whose label `rare` is in validation and test only."""
    root = tmp_path_factory.mktemp("unseen")
    write_documents(root / "all.jsonl", 490)
    with open(root / "documents.jsonl", "w", encoding="utf-8") as stream:
        for i, line in enumerate((root / "all.jsonl").read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            row["split"] = ("train", "train", "train", "train", "dev", "dev", "test")[i % 7]
            if row["split"] == "train":
                row["labels"] = [label for label in row["labels"] if label != "rare"]
            stream.write(json.dumps(row) + "\n")
    config = CONFIG.replace("id_field: key", "id_field: key, split_field: split")
    config = config.replace("evaluate: {", "evaluate: {calibration: platt, ")
    (root / "small.yaml").write_text(config + "splits: {method: column}\n", encoding="utf-8")
    succeed("beam_jobs.preprocess", "--config", "small.yaml", cwd=root)
    train(root)
    return root, trainer("evaluate", cwd=root), trainer("export", cwd=root)


def test_a_label_that_was_never_trained_is_assigned_by_no_rule_and_said_to_be(unseen):
    root, evaluated, exported = unseen
    line = "1 label: never assigned: no train positives (rare)"
    assert line in evaluated and line in exported and line in card_of(root, 1)
    for split in ("validation", "test"):
        evaluation = read_evaluation(evaluation_path(root / "out/small/run", split))
        row = {row.name: row for row in evaluation.per_label.rows()}["rare"]
        assert (row.threshold_source, row.train_positives) == (NEVER_TRAINED, 0)
        assert row.positives > 0 == row.predicted and row.threshold > 1
        assert {row.threshold_source for row in evaluation.per_label.rows()} == {OWN, NEVER_TRAINED}
    assert saved_model.load(str(root / "out/small/model")).origin()["labels_never_trained"] == [
        "rare"
    ]


def test_a_served_label_that_was_never_trained_is_ranked_but_never_assigned(unseen):
    root = unseen[0]
    model = saved_model.load(str(root / "out/small/model"))
    texts = ["peculiar goal match", "peculiar peculiar", ""]
    for prediction in predictions(model, texts):
        assert "rare" in prediction["labels"] and "rare" not in prediction["assigned"]
    printed = succeed("trainer.task", "predict", "--model", "out/small/model", *texts, cwd=root)
    assert not [line for line in printed.splitlines() if "rare" in line and "*" in line]
    scored = model.module.decide_analyzed(tf.constant(texts))
    assert not scored["assigned"].numpy()[:, model.label_names().index("rare")].any()


def test_the_ensemble_of_such_models_never_assigns_it_either(unseen):
    root = unseen[0]
    printed = trainer(
        "export", "--average", "out/small/model", "--set", "export.model_dir=mean", cwd=root
    )
    assert "never assigned: no train positives (rare)" in printed


def test_one_threshold_for_all_labels_is_exported_without_it(unseen):
    root = unseen[0]
    trainer("export", "--set", "export.threshold=global", "--set", "export.model_dir=one", cwd=root)
    model = saved_model.load(str(root / "one"))
    scored = model.module.decide_analyzed(tf.constant(["peculiar", "goal match team"]))
    assert not scored["assigned"].numpy()[:, model.label_names().index("rare")].any()
    assert scored["assigned"].numpy().any()


# --- an evaluation that was interrupted ------------------------------------------------------


def test_thresholds_and_calibration_of_different_evaluations_are_not_exported(unseen, tmp_path):
    root = Path(shutil.copytree(unseen[0], tmp_path / "root"))
    run = root / "out/small/run"
    Calibration.none(5).save(run / CALIBRATION)  # as an evaluation writes before it is killed
    message = trainer("export", cwd=root, run=fail_cleanly)
    assert "an evaluation was interrupted; run `python -m trainer.task evaluate` again" in message
    trainer("evaluate", cwd=root)
    trainer("export", cwd=root)


def test_thresholds_of_earlier_weights_are_not_exported(unseen, tmp_path):
    root = Path(shutil.copytree(unseen[0], tmp_path / "root"))
    path = root / "out/small/run/thresholds.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"step": raw["step"] - 1}))  # as if training had gone on
    assert "the best weights of the run are now those of step" in trainer(
        "export", cwd=root, run=fail_cleanly
    )
