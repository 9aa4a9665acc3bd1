"""Kill it anywhere: a run that was stopped and resumed ends with the bits of one that was not."""

import json
import os
import random
import shutil
import signal
import time

import pytest
import tensorflow as tf

from tests.command_lines import fail_cleanly
from tests.integration.conftest import make_dataset
from tests.integration.workers import (
    assert_same_bits,
    finish,
    history,
    newest_step,
    start,
    train,
    variables,
    wait_for,
)

pytestmark = pytest.mark.slow

# Dropout, so that the state of its random numbers counts.
SETTINGS = (
    "train.epochs=3",
    "train.patience=null",
    "train.checkpoint_steps=3",
    "train.steps_per_call=2",
    "model.dropout=0.3",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small dataset."""
    root = tmp_path_factory.mktemp("resume")
    make_dataset(root, 500)
    return root


@pytest.fixture(scope="module")
def whole(place):
    """A run that nothing interrupts."""
    train(place, "train.run_dir=whole", *SETTINGS)
    return place / "whole"


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(place, whole):
    train(place, "train.run_dir=again", *SETTINGS)
    assert_same_bits(place / "again", whole)
    train(place, "train.run_dir=other", *SETTINGS, "train.seed=1")
    assert history(place / "other") != history(whole)


def test_killed_at_random_moments_a_run_ends_with_the_bits_of_one_that_was_not(place, whole):
    rng = random.Random(0)
    kills, last = 0, len(history(whole)) and history(whole)[-1]["step"]
    for _ in range(20):
        process = start(place, "train.run_dir=killed", *SETTINGS)
        before = newest_step(place / "killed")
        try:
            # Either right at a checkpoint or at some later moment, in a step, a save or a validation.
            wait_for(lambda before=before: newest_step(place / "killed") > before, process)
            time.sleep(rng.random() * 0.5)
        except AssertionError:
            break  # it has come to its end
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
    train(place, "train.run_dir=killed", *SETTINGS)
    assert kills >= 3
    assert newest_step(place / "killed") == last
    assert_same_bits(place / "killed", whole)
    best, expected = (variables(run, folder="best") for run in (place / "killed", whole))
    assert all((best[name] == expected[name]).all() for name in expected)


@pytest.mark.parametrize(("number", "calls"), [(signal.SIGTERM, 2), (signal.SIGINT, 1)])
def test_a_signal_saves_and_the_rest_of_the_run_gives_the_same_bits(place, whole, number, calls):
    name = f"run_dir_{number.name}"
    settings = [s for s in SETTINGS if not s.startswith("train.steps_per_call")] + [
        f"train.steps_per_call={calls}"
    ]
    process = start(place, f"train.run_dir={name}", *settings)
    wait_for(lambda: newest_step(place / name) >= 3, process)
    os.kill(process.pid, number)
    output = finish(process, status=128 + number)
    assert (
        f"stopped by {number.name} after step {newest_step(place / name)}, which is saved; the same command resumes there"
        in output
    )
    assert "Traceback" not in output
    assert "resuming after step" in train(place, f"train.run_dir={name}", *settings)
    assert_same_bits(place / name, whole)


def test_killed_while_saving_at_every_step_a_run_can_always_be_resumed(place):
    settings = (
        "train.run_dir=saving",
        "train.epochs=1000",
        "train.patience=null",
        "train.checkpoint_steps=1",
        "model.embedding_dim=512",
    )
    rng = random.Random(1)
    step = 0
    for _ in range(5):
        process = start(place, *settings)
        wait_for(lambda step=step: newest_step(place / "saving") > step, process)
        time.sleep(rng.random())
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        assert "damaged" not in output and "error" not in output
        assert newest_step(place / "saving") > step
        step = newest_step(place / "saving")
        variables(place / "saving")  # it can be read, whole
    names = {path.name.partition(".")[0] for path in (place / "saving/checkpoints").iterdir()}
    process = start(place, *settings)
    wait_for(lambda: newest_step(place / "saving") > step, process)
    os.killpg(process.pid, signal.SIGTERM)
    finish(process, status=128 + signal.SIGTERM)
    left = {path.name.partition(".")[0] for path in (place / "saving/checkpoints").iterdir()}
    assert len(left) == 3, (
        names,
        left,
    )  # the two newest, and the list of them: nothing of saves that were killed


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_is_taken(place, whole):
    shutil.copytree(whole, place / "damaged")
    state = tf.train.get_checkpoint_state(str(place / "damaged/checkpoints"))
    older, newest = state.all_model_checkpoint_paths[-2:]
    data = f"{newest}.data-00000-of-00001"
    with open(data, "r+b") as stream:
        stream.truncate(100)
    output = train(place, "train.run_dir=damaged", *SETTINGS)
    assert f"warning: the checkpoint {newest}".replace(str(place) + "/", "") in output.replace(
        str(place) + "/", ""
    )
    assert_same_bits(place / "damaged", whole)
    for path in (place / "damaged/checkpoints").glob("*.data*"):
        path.write_bytes(b"")
    assert "no checkpoint can be restored" in train(
        place, "train.run_dir=damaged", *SETTINGS, status=2
    )
    assert older


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.batch_size=16", "train.batch_size: run 32, config 16"),
        ("model.embedding_dim=8", "model.embedding_dim: run 16, config 8"),
        ("optimizer.learning_rate=0.5", "optimizer.learning_rate: run 0.01, config 0.5"),
    ],
)
def test_a_changed_config_is_refused_with_both_sides(place, whole, setting, expected):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    settings = [part for s in ("train.run_dir=whole", *SETTINGS, setting) for part in ("--set", s)]
    message = fail_cleanly("trainer.task", "train", "--config", "small.yaml", *settings, cwd=place)
    assert expected in message and "--fresh" in message
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


def test_a_dataset_that_was_made_again_is_refused_and_fresh_starts_again(place, whole, tmp_path):
    shutil.copytree(place, tmp_path / "p")
    manifest = tmp_path / "p/out/small/dataset/manifest.json"
    manifest.write_text(manifest.read_text().replace('"input_hash": "', '"input_hash": "0'))
    assert "was made again, and differs" in train(
        tmp_path / "p", "train.run_dir=whole", *SETTINGS, status=2
    )
    output = train(tmp_path / "p", "train.run_dir=whole", *SETTINGS, fresh=True)
    assert "resuming" not in output
    assert_same_bits(tmp_path / "p/whole", whole)


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_good_checkpoint(place):
    settings = (
        "train.run_dir=diverged",
        "optimizer.name=sgd",
        "optimizer.learning_rate=1e30",
        "train.checkpoint_steps=1",
        "train.steps_per_call=4",
    )
    output = train(place, *settings, status=2)
    assert (
        "the last good checkpoint stays" in output
        and "optimizer.learning_rate" in output
        and "step" in output
    )
    saved = place / "diverged/checkpoints"
    assert not saved.exists() or all(
        tf.reduce_all(tf.math.is_finite(v))
        for v in variables(place / "diverged").values()
        if v.dtype.kind == "f"
    )


def test_deterministic_operations_give_the_same_bits_on_every_run(place):
    for name in ("one", "two"):
        train(
            place, f"train.run_dir={name}", *SETTINGS, "train.deterministic=true", "train.epochs=1"
        )
    assert_same_bits(place / "one", place / "two")


def test_a_corrupt_record_in_an_epoch_is_named_or_skipped_and_counted(place, whole, tmp_path):
    root = tmp_path / "p"
    shutil.copytree(place, root)
    shard = sorted((root / "out/small/dataset").glob("small-train*"))[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    settings = ("train.run_dir=corrupt", "train.epochs=2", "train.checkpoint_steps=1")
    output = train(root, *settings, status=2)
    assert (
        f"{shard.name}: the record at byte " in output
        and "train.on_corrupt=skip" in output
        and "Traceback" not in output
    )
    output = train(root, *settings, "train.on_corrupt=skip")
    assert "resuming" in output or newest_step(root / "corrupt") == 0 or "epoch 2" in output
    examples = json.loads((root / "out/small/dataset/manifest.json").read_text())["splits"][
        "train"
    ]["examples"]
    skipped = {row["skipped"] for row in history(root / "corrupt")}
    assert len(skipped) == 1 and 0 < skipped.pop() < examples / 2
    assert f"{shard.name}: the record at byte " in output and "documents skipped" in output
