"""Folds: every document of train and validation validates once; each fold is a run of its own."""

import json

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.config import load_config
from beam_jobs.contract.errors import UserError
from tests.command_lines import fail_cleanly, succeed
from tests.small_experiment import CONFIG, make_dataset
from trainer.data.dataset import open_dataset
from trainer.data.folds import take_fold

pytestmark = pytest.mark.slow

FOLDS = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("folds")
    make_dataset(
        root,
        400,
        CONFIG.replace("shards: 3", "shards: 8").replace("train: {", f"train: {{folds: {FOLDS}, "),
    )
    return root


@pytest.fixture
def dataset(place, monkeypatch):
    monkeypatch.chdir(place)
    return open_dataset(load_config("small.yaml"))


def _records(dataset, split):
    """Document id -> label ids."""
    parsed = (
        dataset.record_spec.parse_batch(records)
        for records in tf.data.TFRecordDataset(dataset.shards(split)).batch(1000)
    )
    return {
        key: ids
        for batch in parsed
        for key, ids in zip(batch["id"].numpy(), batch["labels"].to_list(), strict=True)
    }


def test_each_document_validates_in_one_fold_and_trains_in_the_others(dataset):
    everything = _records(dataset, "train") | _records(dataset, "validation")
    validated = []
    for fold in range(FOLDS):
        of_fold = take_fold(dataset, fold=fold, folds=FOLDS)
        train, validation = _records(of_fold, "train"), _records(of_fold, "validation")
        assert train | validation == everything and not train.keys() & validation.keys()
        assert (of_fold.num_examples("train"), of_fold.num_examples("validation")) == (
            len(train),
            len(validation),
        )
        assert abs(len(validation) - len(everything) / FOLDS) < 0.1 * len(everything)
        assert of_fold.shards("test") == dataset.shards("test")
        validated += validation
    assert sorted(validated) == sorted(everything)


def test_positives_are_those_of_the_new_splits(dataset):
    for fold in range(FOLDS):
        of_fold = take_fold(dataset, fold=fold, folds=FOLDS)
        for split in ("train", "validation", "test"):
            ids = [i for row in _records(of_fold, split).values() for i in row]
            np.testing.assert_array_equal(
                of_fold.label_counts(split), np.bincount(ids, minlength=of_fold.num_labels)
            )
        assert of_fold.label_names == dataset.label_names


def test_more_folds_than_shards_are_refused(dataset):
    with pytest.raises(
        UserError,
        match=r"train.folds: received 17, and .* have 16 shards with documents; "
        r".*output.shards=17 or more",
    ):
        take_fold(dataset, fold=0, folds=17)


def test_a_fold_is_a_run_of_its_own_through_every_stage(place, dataset):
    output = {}
    for command in ("train", "evaluate", "export"):
        output[command] = succeed(
            "trainer.task",
            command,
            "--config",
            "small.yaml",
            "--fold",
            "1",
            "--set",
            "train.epochs=1",
            cwd=place,
        )
    of_fold = take_fold(dataset, fold=1, folds=FOLDS)
    assert f"{of_fold.num_examples('train'):,} documents" in output["train"]
    run = place / "out/small/run"
    assert [path.name for path in run.iterdir()] == ["fold-1"]
    evaluation = json.loads((run / "fold-1/evaluation-test.json").read_text())
    assert evaluation["documents"] == dataset.num_examples("test")
    assert (place / "out/small/model/fold-1").is_dir()
    saved = load_config(run / "fold-1/config.yaml")
    assert saved.train.fold == 1 and saved.train.run_dir.endswith("run/fold-1")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--fold", str(FOLDS)], "expected a fold below folds, not 4 of 4"),
        (["--fold", "-1"], "train.fold: received -1"),
        (
            ["--fold", "0", "--set", "train.folds=null"],
            "expected a fold below folds, not 0 of None",
        ),
        (["--fold", "0", "--set", "train.folds=1"], "train.folds: received 1"),
    ],
)
def test_folds_that_do_not_exist_are_refused(place, arguments, expected):
    assert expected in fail_cleanly(
        "trainer.task", "train", "--config", "small.yaml", *arguments, cwd=place
    )
