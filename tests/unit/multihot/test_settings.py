"""Settings of a call: sections and single keys over a config."""

import pytest

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from multihot.settings import config_with

RAW = {"name": "x", "data": {"source": "jsonl", "inputs": ["a.jsonl"]}}


def test_sections_and_dotted_keys_are_one_and_later_ones_win():
    config = config_with(
        RAW, {"train.epochs": 3, "train": {"seed": 5}}, None, {"train": {"epochs": 4}}
    )
    assert (config.train.epochs, config.train.seed) == (4, 5)
    assert RAW == {"name": "x", "data": {"source": "jsonl", "inputs": ["a.jsonl"]}}


def test_a_section_of_another_kind_starts_anew():
    linear = config_with(RAW, {"model": {"name": "linear", "C": 0.5}})
    assert config_with(linear, {"model": {"embedding_dim": 8, "name": "bow"}}).model.name == "bow"
    assert config_with(linear, {"model.C": 2.0}).model.C == 2.0


def test_what_is_not_set_stays_open_for_the_trainers_choice():
    config = config_with(config_from_dict(RAW, what="it"), {"labels.min_count": 2})
    assert config.model.name == "auto" and "loss" not in config.model_fields_set


def test_a_file_and_a_directory_that_holds_one_are_read(tmp_path):
    (tmp_path / "config.yaml").write_text("name: x\ndata: {source: jsonl, inputs: [a.jsonl]}\n")
    assert config_with(tmp_path) == config_with(str(tmp_path / "config.yaml")) == config_with(RAW)


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        (RAW, {"train": {"epoch": 3}}, "settings: train.epoch: unknown key"),
        (RAW, {"train.epochs": "many"}, "settings: train.epochs: received 'many'"),
        (RAW, {"trian": {}}, "settings: trian: unknown key"),
        (RAW, ["train.epochs=3"], "settings: received ['train.epochs=3'], expected a mapping"),
        (7, None, "received 7 as the config, expected the path of a YAML file"),
        ("none.yaml", None, "cannot read the config none.yaml"),
    ],
)
def test_wrong_settings_are_one_message(source, settings, message):
    with pytest.raises(UserError) as caught:
        config_with(source, settings)
    assert message in str(caught.value)
