"""The evaluation of a trained model, against scikit-learn on the model's own scores."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import (
    average_precision_score,
    coverage_error,
    f1_score,
    label_ranking_loss,
    roc_auc_score,
)
from sklearn.svm import LinearSVC

from beam_jobs.contract.config import load_config
from tests.command_lines import fail_cleanly, succeed
from trainer.data.input_pipeline import evaluation_batches
from trainer.data.records import read_records
from trainer.evaluation.evaluate import load_thresholds
from trainer.experiment import assemble, restore_best
from trainer.metrics.calibration import Calibration
from trainer.metrics.classification import decide
from trainer.runs.layout import CALIBRATION


@pytest.fixture(scope="module")
def root(trained, tmp_path_factory):
    """A copy of the experiment, whose evaluations may be overwritten."""
    return shutil.copytree(trained.root, tmp_path_factory.mktemp("evaluate") / "root")


def evaluation_of(root, split="test"):
    return json.loads((root / f"out/small/run/evaluation-{split}.json").read_text(encoding="utf-8"))


def system(evaluation, name):
    return next(row for row in evaluation["systems"] if row["name"] == name)


@pytest.fixture(scope="module")
def scored(root):
    """(multi-hot labels, log-odds before calibration) of the test split, and the experiment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        experiment = assemble(load_config("small.yaml"))
        restore_best(experiment)
        rows = []
        for batch in evaluation_batches(
            experiment.dataset,
            "test",
            experiment.vectorizer,
            experiment.strategy,
            global_batch_size=64,
        ):
            log_odds = experiment.log_odds(
                experiment.model(batch["tokens"], training=False)
            ).numpy()
            for labels, z, mask in zip(
                batch["labels"].to_list(), log_odds, batch["mask"].numpy(), strict=True
            ):
                if mask:
                    rows.append((np.isin(np.arange(len(z)), labels), z))
        yield *(np.array(column) for column in zip(*rows, strict=True)), experiment


def test_every_number_of_the_model_is_that_of_scikit_learn_on_its_scores(root, scored, monkeypatch):
    monkeypatch.chdir(root)
    y, log_odds, experiment = scored
    evaluation, thresholds = evaluation_of(root), load_thresholds(experiment)
    scores = tf.sigmoid(log_odds).numpy()
    order = np.argsort(-scores, axis=1, kind="stable")
    best = np.zeros_like(y)
    np.put_along_axis(best, order[:, : thresholds.top_k], True, axis=1)
    for name, decided in (
        ("model, one threshold", decide(scores, thresholds.global_bin).numpy()),
        ("model, a threshold per label", decide(scores, thresholds.per_label_bins).numpy()),
        ("model, k best labels", best),
        ("baseline: no labels", np.zeros_like(y)),
    ):
        for average in ("micro", "macro", "weighted", "samples"):
            key = f"{average.removesuffix('s') if average == 'samples' else average}_f1"
            assert system(evaluation, name)[key] == pytest.approx(
                f1_score(y, decided, average=average, zero_division=0)
            ), (name, average)
    model = system(evaluation, "model, one threshold")
    assert model["precision_at"]["1"] == pytest.approx(
        np.take_along_axis(y, order[:, :1], axis=1).mean()
    )
    assert model["coverage_error"] == pytest.approx(coverage_error(y, scores))
    assert model["ranking_loss"] == pytest.approx(label_ranking_loss(y, scores), abs=1e-6)
    areas = evaluation["areas"]
    assert (
        abs(areas["macro_roc_auc"] - roc_auc_score(y, log_odds, average="macro"))
        <= areas["macro_roc_auc_error"] + 1e-9
    )
    assert (
        abs(areas["mean_average_precision"] - average_precision_score(y, log_odds))
        <= areas["mean_average_precision_error"] + 1e-9
    )


def test_parts_of_the_evaluation_agree_with_its_whole(root):
    evaluation = evaluation_of(root)
    model = system(evaluation, "model, a threshold per label")
    assert (
        sum(row["documents"] for row in evaluation["slices"] if row["by"] == "length")
        == evaluation["documents"]
    )
    assert sum(group["labels"] for group in evaluation["groups"]) == evaluation["labels"]
    low, high = model["intervals"]["micro_f1"]
    assert low <= model["micro_f1"] <= high and high - low < 0.2
    at = int(np.argmin(np.abs(np.array(evaluation["sweep"]["threshold"]) - 0.5)))
    assert (
        evaluation["sweep"]["micro_recall"][0] == 1 and evaluation["sweep"]["threshold"][at] == 0.5
    )
    names = {row["name"] for row in evaluation["per_label"]}
    assert all(
        {error["label"], *error["labels"]} <= names
        for side in evaluation["errors"].values()
        for error in side
    )
    for side, has_label in (("wrong", False), ("missed", True)):
        assert all(
            (error["label"] in error["labels"]) == has_label and error["text"]
            for error in evaluation["errors"][side]
        )


@pytest.mark.slow
def test_two_replicas_find_what_one_finds(root, tmp_path):
    shutil.copytree(root, tmp_path / "root")
    mirrored = "--set", "train.strategy=mirrored", "--set", "train.replicas=2"
    succeed("trainer.task", "evaluate", "--config", "small.yaml", *mirrored, cwd=tmp_path / "root")
    for split in ("validation", "test"):
        one, two = evaluation_of(root, split), evaluation_of(tmp_path / "root", split)
        assert one.keys() == two.keys()
        for key in one.keys() - {
            "errors"
        }:  # scores may differ in their last bits, and surety with them
            assert json.loads(
                json.dumps(two[key]), parse_float=lambda x: round(float(x), 9)
            ) == json.loads(json.dumps(one[key]), parse_float=lambda x: round(float(x), 9)), key


@pytest.fixture(scope="module")
def calibrated(root, tmp_path_factory):
    """The experiment evaluated with Platt's calibration, and beside a linear classifier."""
    place = shutil.copytree(root, tmp_path_factory.mktemp("calibrated") / "root")
    arguments = (
        "--config",
        "small.yaml",
        "--set",
        "evaluate.calibration=platt",
        "--baseline",
        "linear",
    )
    printed = succeed("trainer.task", "evaluate", *arguments, cwd=place)
    assert "baseline: linear, one threshold" in printed and "(calibrated: platt)" in printed
    return place


@pytest.mark.slow
def test_thresholds_are_those_of_calibrated_scores(root, calibrated, scored, monkeypatch):
    monkeypatch.chdir(calibrated)
    y, log_odds, experiment = scored
    calibration = Calibration.load(
        calibrated / "out/small/run" / CALIBRATION, num_labels=y.shape[1]
    )
    assert calibration.method == "platt" and (calibration.scale != 1).all()
    decided = decide(
        tf.sigmoid(calibration.log_odds(log_odds)), load_thresholds(experiment).per_label_bins
    ).numpy()
    evaluation = evaluation_of(calibrated)
    assert system(evaluation, "model, a threshold per label")["micro_f1"] == pytest.approx(
        f1_score(y, decided, average="micro")
    )
    assert [stage["name"] for stage in evaluation["calibration"]["stages"]][
        -1
    ] == "calibrated: platt"
    assert evaluation["calibration"]["stages"][1] == evaluation_of(root)["calibration"]["stages"][1]


@pytest.mark.slow
def test_the_linear_baseline_is_that_of_scikit_learn(calibrated, scored):
    experiment, y = scored[2], {}
    texts = {}
    for split in ("train", "test"):
        records = list(read_records(experiment.dataset, split, ["text", "labels"]))
        texts[split] = [text.decode() for part in records for text in part["text"]]
        labels = [row for part in records for row in part["labels"].to_list()]
        y[split] = np.array(
            [np.isin(np.arange(experiment.dataset.num_labels), row) for row in labels]
        )
    features = TfidfVectorizer(analyzer=str.split, sublinear_tf=True)
    train, test = features.fit_transform(texts["train"]), features.transform(texts["test"])
    margins = np.stack(
        [
            LinearSVC(random_state=0).fit(train, column).decision_function(test)
            for column in y["train"].T
        ],
        axis=1,
    )
    ours = system(evaluation_of(calibrated), "baseline: linear, one threshold")
    first = y["test"][np.arange(len(margins)), margins.argmax(axis=1)].mean()
    assert ours["precision_at"]["1"] == pytest.approx(first, abs=0.01)
    grid = [
        f1_score(y["test"], margins >= at, average="micro") for at in np.linspace(-0.5, 0.5, 21)
    ]
    assert max(grid) - 0.03 < ours["micro_f1"] <= max(grid) + 0.01


def test_a_baseline_that_does_not_exist_is_refused(root):
    assert "invalid choice: 'cubic'" in fail_cleanly(
        "trainer.task", "evaluate", "--config", "small.yaml", "--baseline", "cubic", cwd=root
    )
