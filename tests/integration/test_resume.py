"""What a run gives, and what a second one makes of what it finds in the run directory."""

import json
import shutil

import pytest
import tensorflow as tf

from tests.command_lines import fail_cleanly, train
from tests.runs import SETTINGS, assert_same_bits, history, newest_step, variables


@pytest.fixture(scope="module")
def place(small_dataset, tmp_path_factory):
    """A small dataset."""
    root = shutil.copytree(small_dataset, tmp_path_factory.mktemp("resume") / "root")
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


def test_a_corrupt_record_in_an_epoch_is_named_or_skipped_and_counted(place, whole, tmp_path):
    root = tmp_path / "p"
    shutil.copytree(place, root)
    shard = sorted((root / "out/small/dataset").rglob("small-train*"))[1]
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
