"""Files that a config names: their hashes, and which of them have changed."""

import hashlib

import pytest

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.named_files import DATASET_KEYS, RUN_KEYS, describe_changes, hash_files

DATA = {"source": "jsonl", "inputs": ["in.jsonl"]}

ENCODER = {"text": {"tokenizer": "minilm"}, "model": {"name": "pretrained"}}


def config(**sections):
    return config_from_dict({"name": "tiny", "data": DATA} | sections, what="")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "named.txt"
    path.write_text("one\n")
    return path


def naming(key: str, file):
    section, _, name = key.partition(".")
    more = {"loss": {"pos_weight": "file"}, "data": DATA, "model": ENCODER["model"]}
    others = ENCODER if section == "model" else {}
    return config(**others | {section: {name: str(file)} | more.get(section, {})})


@pytest.mark.parametrize("key", [*DATASET_KEYS, *RUN_KEYS])
def test_a_named_file_is_hashed_and_a_change_of_it_is_described(file, key):
    keys = DATASET_KEYS if key in DATASET_KEYS else RUN_KEYS
    saved = hash_files(naming(key, file), keys)
    assert saved == {key: hashlib.sha256(b"one\n").hexdigest()}
    assert describe_changes(saved, saved, naming(key, file)) == []
    file.write_text("two\n")
    now = hash_files(naming(key, file), keys)
    assert describe_changes(saved, now, naming(key, file)) == [f"{file} ({key})"]
    file.unlink()
    with pytest.raises(UserError, match=f"{key}: cannot read '{file}': .*No such file"):
        hash_files(naming(key, file), keys)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"text": {"stop_words": "english", "subwords": "train"}},
        {"text": {"stop_words": ["a"], "subwords": ["[UNK]"]}, "labels": {"allow": ["a"]}},
        {"data": DATA | {"label_names": ["a"]}},
        {"loss": {"name": "focal"}},
        ENCODER | {"model": {"name": "pretrained", "label_descriptions": "names"}},
    ],
)
def test_what_is_no_file_is_not_hashed(sections):
    assert hash_files(config(**sections), [*DATASET_KEYS, *RUN_KEYS]) == {}
