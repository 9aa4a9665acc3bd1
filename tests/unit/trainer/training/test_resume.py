"""Which run directories are opened, and which are refused."""

import json
import types

import pytest
import tensorflow as tf

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST
from trainer.runs.checkpoints import RunState
from trainer.training.resume import check_data_order, open_run_directory


@pytest.fixture
def open_run(tmp_path):
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / MANIFEST).write_text("{}")

    def open_(*, fresh=False, within=None, **sections):
        values = {"name": "x", "data": {"source": "python_docstrings"}} | sections
        values["train"] = {"run_dir": str(tmp_path / "run")} | values.get("train", {})
        config = config_from_dict(values, what="")
        experiment = types.SimpleNamespace(
            config=config,
            run_dir=tmp_path / "run",
            run_place="run",
            push=lambda: None,
            dataset=types.SimpleNamespace(directory=dataset, place="dataset"),
            strategy=tf.distribute.OneDeviceStrategy("/cpu:0"),
        )
        with open_run_directory(experiment, fresh=fresh):
            if within:
                within()

    return open_


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ({}, {}, None),
        ({}, {"train": {"patience": 7, "steps_per_call": 3, "checkpoint_steps": 5}}, None),
        ({}, {"evaluate": {"batch_size": 7}}, None),
        ({}, {"train": {"seed": 1}}, "train.seed: run 0, config 1"),
        (
            {"model": {"name": "bow"}},
            {"model": {"name": "bow", "embedding_dim": 7}},
            "model.embedding_dim: run ",
        ),
        ({}, {"train": {"epochs": 9}}, None),
        (
            {"optimizer": {"schedule": "linear"}},
            {"optimizer": {"schedule": "linear"}, "train": {"epochs": 9}},
            "train.epochs: run ",
        ),
        ({"train": {"folds": 3, "fold": 1}}, {"train": {"folds": 3, "fold": 2}}, "train.fold: "),
    ],
)
def test_a_run_is_resumed_where_no_key_that_decides_its_weights_has_changed(
    open_run, first, second, refused
):
    open_run(**first)
    if refused is None:
        open_run(**second)
        return
    with pytest.raises(UserError, match=rf"cannot be resumed:\n  {refused}.*\nset the keys back"):
        open_run(**second)
    open_run(**first)
    open_run(**second, fresh=True)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("dataset/manifest.json", "dataset: .* was made again, and differs from the one"),
        ("weights.json", ".*weights.json.* has other content than when the run began"),
    ],
)
def test_a_run_is_refused_whose_inputs_have_changed(open_run, tmp_path, changed, expected):
    (tmp_path / "weights.json").write_text(json.dumps({"a": 1}))
    loss = {
        "name": "weighted_bce",
        "pos_weight": "file",
        "pos_weight_file": str(tmp_path / "weights.json"),
    }
    open_run(loss=loss)
    open_run(loss=loss)
    (tmp_path / changed).write_text(json.dumps({"a": 2}))
    with pytest.raises(UserError, match=rf"resumed:\n  {expected}.*\nset the keys"):
        open_run(loss=loss)
    open_run(loss=loss, fresh=True)


def test_a_directory_of_other_files_is_no_run(open_run, tmp_path):
    (tmp_path / "run").mkdir()
    open_run()
    (tmp_path / "run/config.yaml").rename(tmp_path / "run/other.yaml")
    for fresh in (False, True):
        with pytest.raises(UserError, match="run holds files, but no run; expected a new dir"):
            open_run(fresh=fresh)
    assert (tmp_path / "run/other.yaml").exists()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("number", range(4))
def test_a_run_that_was_killed_at_its_start_is_begun_again(open_run, tmp_path, number, fresh):
    run = tmp_path / "run"
    open_run()
    whole = {path.name: path.read_bytes() for path in run.iterdir()}
    for name in ["config.yaml", "named_files.json", "dataset_manifest.json"][:number]:
        (run / name).unlink()
    for name in whole:
        (run / f".{name}.{'0' * 32}.tmp").write_text("{")
    open_run(fresh=fresh)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == whole


def test_no_two_runs_are_open_in_a_directory(open_run, tmp_path):
    def open_another():
        for fresh in (False, True):
            with pytest.raises(UserError, match="another run is writing .*; .*set train.run_dir"):
                open_run(fresh=fresh)

    open_run(within=open_another)
    open_run()
    assert not (tmp_path / "run/.lock").exists()


def test_an_epoch_goes_on_in_the_order_in_which_it_began():
    check_data_order(RunState(step_in_epoch=0, data_order="by file over 2 workers"), "by example")
    check_data_order(RunState(step_in_epoch=3, data_order="by example"), "by example")
    with pytest.raises(
        UserError, match="went to workers by file over 2 workers, and now they would go by example"
    ):
        check_data_order(
            RunState(step_in_epoch=3, data_order="by file over 2 workers"), "by example"
        )
