"""The evaluation of a trained model, against scikit-learn on the model's own scores."""

import errno
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
from trainer.evaluation import evaluate
from trainer.evaluation.tuned import load_tuned
from trainer.experiment import assemble, restore_best
from trainer.metrics.classification import decide
from trainer.runs.evaluation_record import (
    LABEL_THRESHOLDS,
    LINEAR_ONE_THRESHOLD,
    NO_LABELS,
    ONE_THRESHOLD,
    TOP_K,
    read_evaluation,
)
from trainer.runs.layout import evaluation_path


@pytest.fixture(scope="module")
def root(trained, tmp_path_factory):
    """A copy of the experiment, whose evaluations may be overwritten."""
    return shutil.copytree(trained.root, tmp_path_factory.mktemp("evaluate") / "root")


def evaluation_of(root, split="test"):
    return read_evaluation(evaluation_path(root / "out/small/run", split))


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
    evaluation = evaluation_of(root)
    thresholds = load_tuned(experiment.run_dir, num_labels=y.shape[1]).thresholds
    scores = tf.sigmoid(log_odds).numpy()
    order = np.argsort(-scores, axis=1, kind="stable")
    best = np.zeros_like(y)
    np.put_along_axis(best, order[:, : thresholds.top_k], True, axis=1)
    for key, decided in (
        (ONE_THRESHOLD, decide(scores, thresholds.global_bin).numpy()),
        (LABEL_THRESHOLDS, decide(scores, thresholds.per_label_bins).numpy()),
        (TOP_K, best),
        (NO_LABELS, np.zeros_like(y)),
    ):
        metrics = evaluation.method(key).metrics
        for average, received in (
            ("micro", metrics.micro_f1),
            ("macro", metrics.macro_f1),
            ("weighted", metrics.weighted_f1),
            ("samples", metrics.sample_f1),
        ):
            assert received == pytest.approx(
                f1_score(y, decided, average=average, zero_division=0)
            ), (key, average)
    ranking = evaluation.method(ONE_THRESHOLD).ranking
    assert ranking.precision_at[1] == pytest.approx(
        np.take_along_axis(y, order[:, :1], axis=1).mean()
    )
    assert ranking.coverage_error == pytest.approx(coverage_error(y, scores))
    assert ranking.ranking_loss == pytest.approx(label_ranking_loss(y, scores), abs=1e-6)
    curves = evaluation.curve_metrics
    assert (
        abs(curves.macro_roc_auc - roc_auc_score(y, log_odds, average="macro"))
        <= curves.macro_roc_auc_error + 1e-9
    )
    assert (
        abs(curves.mean_average_precision - average_precision_score(y, log_odds))
        <= curves.mean_average_precision_error + 1e-9
    )


def test_parts_of_the_evaluation_agree_with_its_whole(root):
    evaluation = evaluation_of(root)
    model = evaluation.method(LABEL_THRESHOLDS)
    lengths = [part.documents for part in evaluation.slices if part.by == "length"]
    assert sum(lengths) == evaluation.documents
    assert sum(group.labels for group in evaluation.groups) == evaluation.labels
    low, high = model.intervals.micro_f1
    assert low <= model.metrics.micro_f1 <= high and high - low < 0.2
    assert evaluation.sweep.micro_recall[0] == 1 and 0.5 in evaluation.sweep.threshold
    for errors, has_label in ((evaluation.errors.wrong, False), (evaluation.errors.missed, True)):
        for error in errors:
            assert {error.label, *error.labels} <= set(evaluation.per_label.name)
            assert (error.label in error.labels) == has_label and error.text


@pytest.mark.slow
def test_two_replicas_find_what_one_finds(root, tmp_path):
    shutil.copytree(root, tmp_path / "root")
    mirrored = "--set", "train.strategy=mirrored", "--set", "train.replicas=2"
    succeed("trainer.task", "evaluate", "--config", "small.yaml", *mirrored, cwd=tmp_path / "root")
    for split in ("validation", "test"):
        one, two = (
            json.loads(
                evaluation_of(directory, split).model_dump_json(),
                parse_float=lambda x: round(float(x), 9),
            )
            for directory in (root, tmp_path / "root")
        )
        # Scores may differ in their last bits, and with them which errors are the most confident.
        del one["errors"], two["errors"]
        assert one == two


@pytest.fixture(scope="module")
def calibrated(root, tmp_path_factory):
    """The experiment evaluated with Platt's calibration, and compared with a linear classifier."""
    copy = shutil.copytree(root, tmp_path_factory.mktemp("calibrated") / "root")
    arguments = (
        "--config",
        "small.yaml",
        "--set",
        "evaluate.calibration=platt",
        "--baseline",
        "linear",
    )
    printed = succeed("trainer.task", "evaluate", *arguments, cwd=copy)
    assert "baseline: linear, one threshold" in printed and "(calibrated: platt)" in printed
    return copy


@pytest.mark.slow
def test_thresholds_are_those_of_calibrated_scores(root, calibrated, scored, monkeypatch):
    monkeypatch.chdir(calibrated)
    y, log_odds, experiment = scored
    thresholds, calibration = load_tuned(calibrated / "out/small/run", num_labels=y.shape[1])
    assert calibration.method == "platt" and (calibration.scale != 1).all()
    decided = decide(tf.sigmoid(calibration.log_odds(log_odds)), thresholds.per_label_bins).numpy()
    evaluation = evaluation_of(calibrated)
    assert evaluation.method(LABEL_THRESHOLDS).metrics.micro_f1 == pytest.approx(
        f1_score(y, decided, average="micro")
    )
    stages = evaluation.calibration.stages
    assert [stage.name for stage in stages] == ["logits", "prior-corrected", "calibrated: platt"]
    assert stages[:2] == evaluation_of(root).calibration.stages


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
    ours = evaluation_of(calibrated).method(LINEAR_ONE_THRESHOLD)
    first = y["test"][np.arange(len(margins)), margins.argmax(axis=1)].mean()
    assert ours.ranking.precision_at[1] == pytest.approx(first, abs=0.01)
    grid = [
        f1_score(y["test"], margins >= at, average="micro") for at in np.linspace(-0.5, 0.5, 21)
    ]
    assert max(grid) - 0.03 < ours.metrics.micro_f1 <= max(grid) + 0.01


def test_a_baseline_that_does_not_exist_is_refused(root):
    assert "invalid choice: 'cubic'" in fail_cleanly(
        "trainer.task", "evaluate", "--config", "small.yaml", "--baseline", "cubic", cwd=root
    )


def test_a_run_directory_that_may_not_be_written_is_told_of_before_the_work(root, monkeypatch):
    def refuse(directory, name, owns):
        raise PermissionError(errno.EACCES, "", f"{directory}/{name}")

    # Root may write everywhere, so the file system cannot be asked.
    monkeypatch.setattr(evaluate, "in_turn", refuse)
    monkeypatch.setattr(evaluate, "Evaluator", None)  # it is not called
    told = fail_cleanly("trainer.task", "evaluate", "--config", "small.yaml", cwd=root)
    assert "out/small/run/.evaluation.lock: Permission denied; expected files that you" in told
