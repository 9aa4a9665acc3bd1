"""A linear model through the command lines: fitted, evaluated, exported, explained, averaged."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.command_lines import fail_cleanly, run_module, succeed
from tests.served import answers_of
from trainer.runs.run import Run

MODEL = "{name: linear, features: words_bigrams_chars, C: 0.5}"
TEXT = "Rocket in orbit around the moon"


def run(root, command, *settings, arguments=()):
    overrides = [part for setting in settings for part in ("--set", setting)]
    return succeed(
        "trainer.task", command, "--config", "small.yaml", *overrides, *arguments, cwd=root
    )


def settings_of(name, model=MODEL):
    return f"model={model}", f"train.run_dir=out/{name}/run", f"export.model_dir=out/{name}/model"


@pytest.fixture(scope="module")
def root(trained, tmp_path_factory):
    """A copy of the small experiment, beside whose model a linear one was made; what it printed."""
    root = shutil.copytree(trained.root, tmp_path_factory.mktemp("linear") / "root")
    printed = {
        command: run(root, command, *settings_of("linear"))
        for command in ("train", "evaluate", "export")
    }
    (root / "linear.json").write_text(json.dumps(printed), encoding="utf-8")
    return root


@pytest.fixture
def printed(root):
    return json.loads((root / "linear.json").read_text())


def documents(root, count):
    with open(root / "documents.jsonl", encoding="utf-8") as stream:
        return [json.loads(line)["text"] for _, line in zip(range(count), stream, strict=False)]


def scores_of(root, model, count=50):
    return np.array(
        answers_of(tf.saved_model.load(str(root / model)), documents(root, count))["scores"][
            "scores"
        ]
    )


def test_it_learns_what_the_labels_follow_from_and_says_how_sparse_it_is(root, printed):
    evaluation = Run(root / "out/linear/run").evaluation
    assert evaluation.split == "test"
    assert evaluation.method("one_threshold").metrics.micro_f1 > 0.95
    assert re.search(r"words_bigrams_chars, C 0.5: .* weights kept, \d+% .* MB", printed["train"])
    assert "train.batch_size, train.epochs" in printed["train"]  # of no use
    (row,) = json.loads((root / "out/linear/run/history.json").read_text())
    assert row["epoch"] == 1 and row["skipped"] == 0 and row["validation_micro_f1"] > 0.95
    assert not (root / "out/linear/run/label_fits").exists()
    page = run_module("trainer.task", "report", "--run", "out/linear/run", cwd=root)
    assert page.returncode == 0, page.stderr


def test_its_scores_are_calibrated_without_further_steps(root):
    stages = Run(root / "out/linear/run").evaluation.calibration.stages
    assert stages[0].ece < 0.05 and stages[0].ece == stages[-1].ece


def test_a_finished_run_is_not_fitted_again_and_refuses_another_c(root):
    again = run(root, "train", *settings_of("linear"))
    assert "fitting" not in again and "validation micro-F1" in again
    overrides = ("model={name: linear, C: 2}", "train.run_dir=out/linear/run")
    refused = fail_cleanly(
        *("trainer.task", "train", "--config", "small.yaml"),
        *(part for setting in overrides for part in ("--set", setting)),
        cwd=root,
    )
    assert "model.C: run 0.5, config 2" in refused


def test_explanations_are_exact(root):
    text = succeed("trainer.task", "explain", "--model", "out/linear/model", TEXT, cwd=root)
    assert text.startswith("Exact") and "space: " in text
    assert re.search(r"\+\d\.\d+  (rocket|orbit|moon)", text)
    labels = succeed("trainer.task", "predict", "--model", "out/linear/model", TEXT, cwd=root)
    assert labels.splitlines()[1].split()[1:] == ["*", "space"]


def test_half_precision_halves_the_weights_and_hardly_moves_scores(root):
    settings = (*settings_of("linear"), "export.weights=float16", "export.model_dir=out/half")
    printed = run(root, "export", *settings)
    assert "float16 on the validation split" in printed
    whole, half = scores_of(root, "out/linear/model/1"), scores_of(root, "out/half/1")
    assert 0 < np.abs(whole - half).max() < 0.01
    np.testing.assert_allclose(whole, half, atol=0.01)


def test_it_is_averaged_with_another_model(root):
    members = ("out/small/model/1", "out/linear/model/1")
    run(
        root,
        "export",
        *settings_of("both"),
        arguments=("--average", *members),
    )
    mean = (scores_of(root, members[0]) + scores_of(root, members[1])) / 2
    np.testing.assert_allclose(scores_of(root, "out/both/model/1"), mean, atol=1e-6)


@pytest.mark.parametrize("objective", ["micro_f1", "macro_f1"])
def test_auto_says_what_it_tries_and_takes_the_best_objective_on_validation(root, objective):
    settings = (*settings_of(objective, "{name: linear}"), f"train.objective={objective}")
    printed, title = run(root, "train", *settings), objective.replace("_f1", "-F1")
    tried = re.findall(
        rf"^  (\w+, C [\d.]+): {title} ([\d.]+) on validation", printed, re.MULTILINE
    )
    scores = {choice: float(score) for choice, score in tried}
    # C from the middle in the direction that is better.
    assert ("words, C 4" in scores) == (scores["words, C 1"] > scores["words, C 0.25"])
    assert ("words, C 0.1" in scores) != ("words, C 4" in scores)
    (chosen,) = re.findall(r"^(\w+, C [\d.]+): .* weights kept", printed, re.M)
    assert scores[chosen] == max(scores.values())
    (row,) = json.loads((root / f"out/{objective}/run/history.json").read_text())
    # Margins of validation are counted in bins, and so are scores, in others.
    assert row[f"validation_{objective}"] == pytest.approx(scores[chosen], abs=0.02)


def test_a_fold_has_a_model_of_its_own(root):
    settings = (*settings_of("folds"), "train.folds=3", "train.fold=1")
    for command in ("train", "evaluate"):
        run(root, command, *settings)
    assert (root / "out/folds/run/fold-1/evaluation-validation.json").is_file()


def test_replicas_evaluate_the_same_model(root):
    settings = (*settings_of("mirrored"), "train.strategy=mirrored", "train.replicas=2")
    for command in ("train", "evaluate"):
        run(root, command, *settings)
    one, two = (
        Run(root / f"out/{name}/run").method("one_threshold").metrics.micro_f1
        for name in ("linear", "mirrored")
    )
    assert one == pytest.approx(two)  # sums over documents differ in their last bits


def test_without_a_validation_split_it_takes_fixed_settings(root, tmp_path):
    shutil.copy(root / "documents.jsonl", tmp_path)
    config = (root / "small.yaml").read_text()
    (tmp_path / "small.yaml").write_text(
        config + "splits: {train: 0.9, validation: 0, test: 0.1}\n"
    )
    succeed("beam_jobs.preprocess", "--config", "small.yaml", cwd=tmp_path)
    printed = run(tmp_path, "train", *settings_of("none", "{name: linear}"))
    assert "words_bigrams, C 1: " in printed and "micro-F1" not in printed
    assert "exported epoch 1" in run(tmp_path, "export", *settings_of("none", "{name: linear}"))


def test_a_train_split_that_memory_has_no_place_for_is_refused_at_once(root, monkeypatch):
    monkeypatch.setattr("trainer.linear.costs.available_bytes", lambda: 1000)
    arguments = [part for s in settings_of("large") for part in ("--set", s)]
    refused = fail_cleanly("trainer.task", "train", "--config", "small.yaml", *arguments, cwd=root)
    assert "model.features: words_bigrams_chars of" in refused and "GiB" in refused
