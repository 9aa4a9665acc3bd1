"""A config that names no model, from training to the exported model."""

import shutil

import pytest

from tests.command_lines import fail_cleanly, succeed
from tests.small_experiment import CONFIG


@pytest.fixture(scope="module")
def place(small_dataset, tmp_path_factory):
    """A small dataset, and `auto.yaml`, which names no model."""
    root = shutil.copytree(small_dataset, tmp_path_factory.mktemp("auto") / "root")
    kept = [line for line in CONFIG.splitlines() if not line.startswith(("model:", "train:"))]
    (root / "auto.yaml").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return root


def _command(place, name, *settings):
    overrides = [part for setting in settings for part in ("--set", setting)]
    return succeed("trainer.task", name, "--config", "auto.yaml", *overrides, cwd=place)


def test_what_is_chosen_is_told_and_saved_and_evaluated_and_exported(place):
    printed = _command(place, "train")
    assert "model: auto: linear, for " in printed
    assert "name: linear" in (place / "out/small/run/config.yaml").read_text()
    assert "linear, as chosen when the run began" in _command(place, "train")
    assert "micro-F1" in _command(place, "evaluate")
    _command(place, "export")
    card = (place / "out/small/model/1/README.md").read_text()
    assert "linear" in card


def test_keys_of_the_optimizer_lead_to_a_model_that_it_trains(place):
    settings = ("train.run_dir=out/steps", "train.epochs=1", "optimizer.learning_rate=0.02")
    printed = _command(place, "train", *settings)
    assert "model: auto: bow (" in printed and "optimizer.learning_rate 0.02" in printed
    assert "loss squared_hinge" in printed
    overrides = [part for setting in settings for part in ("--set", setting)]
    overrides[-1] = "optimizer.learning_rate=0.5"
    output = fail_cleanly("trainer.task", "train", "--config", "auto.yaml", *overrides, cwd=place)
    assert "optimizer.learning_rate: run 0.02, config 0.5" in output
