"""Configs: strict reading, complete errors, defaults, and what decides a dataset."""

import copy
import json
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beam_jobs.contract.config import (
    Config,
    JsonlData,
    TextConfig,
    config_from_dict,
    config_hash,
    differing_keys,
    load_config,
)
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.validation import Section, describe_keys

MINIMAL = {"name": "tiny", "data": {"source": "jsonl", "inputs": ["in.jsonl"]}}

# No value is the default of its key, as a test below proves.
FULL = {
    "name": "full_2",
    "data": {
        "source": "jsonl",
        "inputs": ["a.jsonl", "b/*.jsonl.gz"],
        "id_field": "key",
        "text_fields": ["title", "body"],
        "labels_field": "tags",
        "label_delimiter": "; ",
        "weight_field": "w",
        "max_reject_fraction": 0.5,
    },
    "text": {
        "strip_html": False,
        "strip_urls": False,
        "normalize": "lower",
        "expand_contractions": False,
        "keep_characters": "a-z'\\-: #\"\u00e9",
        "token_pattern": "[a-z]{2,}",
        "tokenizer": "character",
        "drop_tokens_with_digits": True,
        "stop_words": ["no", "null", "1e-4", "~"],
        "max_tokens": 7,
    },
    "vocabulary": {"max_tokens": 100, "min_document_count": 1},
    "labels": {"min_count": 3, "top_k": 20, "keep_unlabeled": False},
    "splits": {"train": 0.5, "validation": 0.25, "test": 0.25},
    "output": {"dataset_dir": "elsewhere/dataset", "shards": 4, "shard_bytes": 4096},
    "model": {"name": "bow", "embedding_dim": 16, "token_weights": "uniform", "bigram_buckets": 64, "dropout": 0.25},
    "loss": {"pos_weight": "balanced", "max_pos_weight": 3.5},
    "optimizer": {"name": "adagrad", "learning_rate": 1e-05},
    "train": {
        "run_dir": "elsewhere/run",
        "strategy": "mirrored",
        "replicas": 2,
        "batch_size": 64,
        "epochs": 3,
        "patience": 1,
        "steps_per_call": 4,
        "shuffle_buffer": 99,
        "checkpoint_steps": 50,
        "keep_checkpoints": 1,
        "seed": 5,
    },
    "evaluate": {"batch_size": 32, "ranks": [1, 2], "min_positives": 2},
    "export": {"model_dir": "elsewhere/model", "top_k": 9, "threshold": "global"},
}
DATASET_SECTIONS = {"name", "data", "text", "vocabulary", "labels", "splits", "output"}
LEAVES = [(section, key) for section, values in FULL.items() if isinstance(values, dict) for key in values]
DOCSTRINGS = {"source": "python_docstrings", "packages": ["numpy"], "min_words": 3, "label_depth": 1, "max_reject_fraction": 1.0}


def sections_of(field) -> list[type[Section]]:
    return [t for t in (field.annotation, *get_args(field.annotation)) if isinstance(t, type) and issubclass(t, Section)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "tiny.yaml"
    file.write_text("name: tiny\ndata:\n  source: jsonl\n  inputs: [in.jsonl]\n", encoding="utf-8")
    return file


def from_text(tmp_path, text: str, **kwargs) -> Config:
    file = tmp_path / "experiment.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return load_config(file, **kwargs)


def message_of(raw: dict) -> str:
    with pytest.raises(UserError) as raised:
        config_from_dict(raw, what="x.yaml")
    return str(raised.value)


# --- reading and writing ---------------------------------------------------------------


def test_full_example_sets_every_key_to_something_else_than_its_default():
    default, full = (config_from_dict(raw, what="") for raw in (MINIMAL, FULL))
    for name, section in full:
        if isinstance(section, Section):
            assert set(type(section).model_fields) == set(FULL[name]), f"the example lacks a key of {name}"
    same = {f"{section}.{key}" for section, key in LEAVES if getattr(getattr(default, section), key) == getattr(getattr(full, section), key)}
    assert same <= {"data.source", "model.name"}  # these name the section's kind


@pytest.mark.parametrize("raw", [MINIMAL, FULL, FULL | {"data": DOCSTRINGS}], ids=["minimal", "full", "docstrings"])
def test_resolved_config_round_trips_through_yaml(tmp_path, raw):
    config = config_from_dict(raw, what="")
    again = from_text(tmp_path, config.to_yaml())
    assert again == config
    assert again.to_yaml() == config.to_yaml()


@example(texts=["\x85", "\U00010000" * 8 + " b"], number=1.0)
@example(texts=["a\x85b", "\u2028", "\u2029 ", "\ufeff", "a\r\n b\t"], number=1e-05)
@given(texts=st.lists(st.text(min_size=1), min_size=1), number=st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_any_text_and_number_round_trips_through_yaml(tmp_path_factory, texts, number):
    raw = MINIMAL | {"data": {"source": "jsonl", "inputs": texts}, "optimizer": {"learning_rate": number}}
    config = config_from_dict(raw, what="")
    file = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    file.write_bytes(config.to_yaml().encode("utf-8"))
    assert load_config(file) == config


def test_numbers_are_read_as_yaml_1_2_reads_them(tmp_path):
    text = "name: a\ndata: {source: jsonl, inputs: [no]}\noptimizer: {learning_rate: 1e-4}\nloss: {max_pos_weight: 5}"
    config = from_text(tmp_path, text)
    assert config.optimizer.learning_rate == 1e-4
    assert config.loss.max_pos_weight == 5.0
    assert config.data.inputs == ("no",)


def test_byte_order_mark_before_a_config_is_ignored(tmp_path):
    assert from_text(tmp_path, "\ufeffname: a\ndata: {source: python_docstrings}").name == "a"


def test_empty_and_null_sections_mean_their_defaults(tmp_path):
    text = "name: tiny\ndata: {source: jsonl, inputs: [in.jsonl]}\ntext:\ntrain: null\noutput: {}\nexport: {model_dir: null}"
    assert from_text(tmp_path, text) == config_from_dict(MINIMAL, what="")


def test_directories_default_to_the_name_and_may_be_set_one_by_one():
    config = config_from_dict(MINIMAL | {"train": {"run_dir": "/scratch/r"}}, what="")
    assert config.output.dataset_dir == "out/tiny/dataset"
    assert config.train.run_dir == "/scratch/r"
    assert config.export.model_dir == "out/tiny/model"


def test_config_from_dict_leaves_its_argument_alone():
    raw = copy.deepcopy(FULL) | {"output": {}}
    before = copy.deepcopy(raw)
    config_from_dict(raw, what="")
    assert raw == before


# --- --set -----------------------------------------------------------------------------

printable = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]), min_size=1)
OVERRIDES = st.one_of(
    st.tuples(st.just("train.epochs"), st.integers(1, 2**63 - 1)),
    st.tuples(st.just("train.seed"), st.integers(0, 2**40)),
    st.tuples(st.just("train.patience"), st.none() | st.integers(1, 100)),
    st.tuples(st.just("optimizer.learning_rate"), st.floats(min_value=1e-300, max_value=1e300)),
    st.tuples(st.just("text.strip_html"), st.booleans()),
    st.tuples(st.just("text.stop_words"), st.none() | printable | st.lists(printable).map(tuple)),
    st.tuples(st.just("data.labels_field"), printable),
    st.tuples(st.just("evaluate.ranks"), st.lists(st.integers(1, 50), min_size=1).map(tuple)),
)


@given(override=OVERRIDES)
def test_set_changes_its_key_and_nothing_else(path, override):
    key, value = override
    config = load_config(path, overrides=[f"{key}={json.dumps(value, ensure_ascii=False)}"])
    section, leaf = key.split(".")
    assert getattr(getattr(config, section), leaf) == value
    changed = {row[0] for row in differing_keys(load_config(path).model_dump(), config.model_dump())}
    assert changed <= {key}


@given(override=st.one_of(st.text(), st.builds("{}={}".format, st.sampled_from(["name", "data.inputs", "text", "train.epochs"]), st.text())))
def test_any_set_argument_gives_a_config_or_a_user_error(path, override):
    try:
        assert isinstance(load_config(path, overrides=[override]), Config)
    except UserError as error:
        assert len(str(error)) > 20


def test_later_set_wins_and_values_may_hold_equals_signs(path):
    config = load_config(path, overrides=["train.epochs=3", "train.epochs=1e1", "train.epochs=4", "data.label_delimiter='='"])
    assert config.train.epochs == 4
    assert config.data.label_delimiter == "="


def test_set_of_the_name_moves_the_default_directories(path):
    assert load_config(path, overrides=["name=other"]).train.run_dir == "out/other/run"


def test_set_reaches_one_section_where_an_alias_shares_a_mapping(tmp_path):
    text = "name: a\ndata: {source: python_docstrings}\ntrain: &sizes {batch_size: 8}\nevaluate: *sizes"
    config = from_text(tmp_path, text, overrides=["train.batch_size=16"])
    assert (config.train.batch_size, config.evaluate.batch_size) == (16, 8)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs", "--set: received 'train.epochs', expected section.key=value"),
        ("=3", "--set: received '=3', expected section.key=value"),
        ("train..epochs=3", "--set: received 'train..epochs=3', expected section.key=value"),
        ("name.epochs=3", "--set: received 'name.epochs=3', expected section.key=value, and 'name' is no section"),
        ("train.epochs=[", "--set train.epochs is not valid YAML: "),
        ("name=2020-13-45", "--set name is not valid YAML: month must be in 1..12"),
        ("train.epoch=3", "train.epoch: unknown key; did you mean 'epochs'?"),
        ("train.epochs=two", "train.epochs: received 'two' (str); expected a valid integer"),
        ("train.epochs=", "train.epochs: received None (NoneType); expected a valid integer"),
    ],
)
def test_bad_set_is_a_user_error(path, override, expected):
    with pytest.raises(UserError) as raised:
        load_config(path, overrides=[override])
    assert expected in str(raised.value)


# --- errors ----------------------------------------------------------------------------


def test_missing_file_names_the_path_and_what_is_expected(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the config .*nowhere\.yaml: .*No such file.* Expected a YAML file"):
        load_config(tmp_path / "nowhere.yaml")


def test_directory_in_place_of_a_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="Is a directory.*Expected a YAML file"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"name: \xff\xfe", r"cannot read the config .*experiment\.yaml: 'utf-8' codec can't decode.*Expected a YAML file"),
        ("name: [a", r"experiment\.yaml is not valid YAML: (?s:.*)line 1"),
        ("name: a\nname: b", r"experiment\.yaml is not valid YAML: (?s:.*)duplicate key \"name\""),
        ("train:\n  seed: 1\n  epochs: 2\n  seed: 3", r"experiment\.yaml is not valid YAML: (?s:.*)duplicate key \"seed\"(?s:.*)line 4"),
        ("name: a\n---\nname: b", r"experiment\.yaml is not valid YAML: (?s:.*)single document"),
        ("name: !!python/name:os.system x", r"experiment\.yaml is not valid YAML: "),
        ("name: !!int x", r"experiment\.yaml is not valid YAML: .*int"),
        ("name: !!bool maybe", r"experiment\.yaml is not valid YAML: 'maybe'"),
        ("name: " + "[" * 500, r"experiment\.yaml is not valid YAML: maximum recursion depth"),
        ("- name", r"experiment\.yaml: received list at the top level, expected a mapping of sections"),
        ("", r"experiment\.yaml: received NoneType at the top level, expected a mapping of sections"),
        ("name: a\n? [x, y]\n: z", r"experiment\.yaml: received values that JSON cannot hold \(.*tuple\); expected "),
        ("name: &a [*a]", r"experiment\.yaml: received values that JSON cannot hold \(.*[Cc]ircular.*\); expected "),
        ('name: "\\ud800"', r"experiment\.yaml: received values that JSON cannot hold \(.*surrogates.*\); expected "),
    ],
)
def test_file_that_is_no_config_is_a_user_error(tmp_path, text, expected):
    with pytest.raises(UserError, match=expected) as raised:
        from_text(tmp_path, text)
    assert "suppress this check" not in str(raised.value)  # ruamel's advice to its own callers


@given(text=st.text(st.sampled_from("abn01:-.~[]{}&*!<>|?#'\" \n%@,=\ufeff\x85"), max_size=40))
def test_any_yaml_gives_a_config_or_a_user_error(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    file.write_bytes(text.encode("utf-8"))
    with pytest.raises(UserError):
        load_config(file)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # unknown keys
        ({"trian": {}}, "x.yaml: trian: unknown key; did you mean 'train'? valid keys here: data, evaluate, "),
        ({"text": {"normalise": "lower"}}, "text.normalise: unknown key; did you mean 'normalize'? valid keys here: drop_tokens_with_digits, "),
        ({"text": {"zzz": 1}}, "text.zzz: unknown key; valid keys here: drop_tokens_with_digits, "),
        ({"data": MINIMAL["data"] | {"weights": "w"}}, "data.weights: unknown key; did you mean 'weight_field'? valid keys here: id_field, "),
        ({"data": DOCSTRINGS | {"inputs": ["a"]}}, "data.inputs: unknown key; valid keys here: label_depth, max_reject_fraction, "),
        # wrong types
        ({"train": {"epochs": "3"}}, "train.epochs: received '3' (str); expected a valid integer"),
        ({"train": {"epochs": 1.5}}, "train.epochs: received 1.5 (float); expected a valid integer"),
        ({"train": {"epochs": True}}, "train.epochs: received True (bool); expected a valid integer"),
        ({"train": {"epochs": None}}, "train.epochs: received None (NoneType); expected a valid integer"),
        ({"text": {"strip_html": "yes"}}, "text.strip_html: received 'yes' (str); expected a valid boolean"),
        ({"optimizer": {"learning_rate": "1e-4"}}, "optimizer.learning_rate: received '1e-4' (str); expected a valid number"),
        ({"data": {"source": "jsonl", "inputs": "a.jsonl"}}, "data.inputs: received 'a.jsonl' (str); expected a list"),
        ({"text": {"stop_words": 5}}, "x.yaml: text.stop_words: received 5 (int); expected a list or a valid string"),
        ({"evaluate": {"ranks": [1, "x"]}}, "evaluate.ranks.1: received 'x' (str); expected a valid integer"),
        ({"train": [1]}, "train: received [1] (list); expected a mapping"),
        ({"name": 5}, "name: received 5 (int); expected a valid string"),
        # out of range
        ({"name": "My Set"}, "name: received 'My Set' (str); expected to match pattern '^[a-z][a-z0-9_]*$'"),
        ({"train": {"epochs": 0}}, "train.epochs: received 0 (int); expected greater than or equal to 1"),
        ({"model": {"dropout": 1.0}}, "model.dropout: received 1.0 (float); expected less than 1"),
        ({"loss": {"max_pos_weight": float("nan")}}, "loss.max_pos_weight: received nan (float); expected a finite number"),
        ({"text": {"normalize": "NFC"}}, "text.normalize: received 'NFC' (str); expected 'none', 'lower', 'nfkc' or 'nfkc_casefold'"),
        ({"text": {"keep_characters": ""}}, "text.keep_characters: received '' (str); expected at least 1 character"),
        ({"evaluate": {"ranks": []}}, "evaluate.ranks: received [] (list); expected at least 1 item"),
        # missing, and the kind of source
        ({"data": {"source": "jsonl"}}, "data.inputs: missing; expected a value"),
        ({"data": {}}, "data.source: missing; expected one of 'jsonl', 'python_docstrings'"),
        ({"data": {"source": "csv"}}, "data.source: received 'csv', expected one of 'jsonl', 'python_docstrings'"),
        ({"data": "jsonl"}, "data: received 'jsonl' (str); expected a mapping"),
        # keys that must agree
        ({"splits": {"train": 0.9}}, "splits: received {'train': 0.9} (dict); expected a sum of 1 with train above 0, not 0.9 + 0.1 + 0.1"),
        ({"splits": {"train": 0, "validation": 0.5, "test": 0.5}}, "expected a sum of 1 with train above 0, not 0.0 + 0.5 + 0.5"),
        (
            {"train": {"replicas": 2}},
            "train: received {'replicas': 2, 'run_dir': 'out/tiny/run'} (dict); expected replicas with `strategy: mirrored` only",
        ),
        ({"train": {"strategy": "mirrored", "replicas": 3}}, "expected a batch_size that replicas divide, not 256 and 3"),
    ],
)
def test_wrong_key_is_told_with_what_was_received_and_expected(changes, expected):
    message = message_of(MINIMAL | changes)
    assert message.startswith("x.yaml: ")
    assert expected in message
    assert "error" not in message.removeprefix("x.yaml: ").split("\n")[0]  # one wrong key is one line


@pytest.mark.parametrize("key", ["name", "data"])
def test_missing_top_level_key_is_told_alone(key):
    assert message_of({k: v for k, v in MINIMAL.items() if k != key}) == f"x.yaml: {key}: missing; expected a value"


def test_all_wrong_keys_are_told_at_once():
    message = message_of(MINIMAL | {"train": {"epochs": 0, "seed": -1}, "labels": {"topk": 3}})
    assert message.startswith("x.yaml: 3 errors\n")
    assert [line.partition(":")[0].strip() for line in message.splitlines()[1:]] == ["labels.topk", "train.epochs", "train.seed"]


def test_wrong_item_of_a_list_does_not_also_make_the_list_too_short():
    message = message_of(MINIMAL | {"data": {"source": "jsonl", "inputs": [""]}})
    assert message == "x.yaml: data.inputs.0: received '' (str); expected at least 1 character"


def test_long_values_are_cut_in_errors():
    assert len(message_of(MINIMAL | {"train": {"epochs": "9" * 10_000}})) < 200


# --- what decides a dataset ------------------------------------------------------------


@pytest.mark.parametrize(("section", "key"), [leaf for leaf in LEAVES if leaf not in (("data", "source"), ("model", "name"))])
def test_dataset_config_holds_a_key_if_and_only_if_it_decides_bytes(section, key):
    default = config_from_dict(MINIMAL, what="").model_dump(mode="json")
    # Splits sum to 1 together, and replicas need their strategy.
    companions = {"splits": FULL["splits"], "train": {"strategy": "mirrored"} if key == "replicas" else {}}.get(section, {})
    changed = copy.deepcopy(default)
    changed[section] |= companions | {key: FULL[section][key]}
    before, after = (config_hash(config_from_dict(raw, what="").dataset_config()) for raw in (default, changed))
    decides_bytes = section in DATASET_SECTIONS and key != "dataset_dir"
    assert (before != after) == decides_bytes


def test_dataset_config_depends_on_the_name_and_the_source():
    hashes = {
        config_hash(config_from_dict(raw, what="").dataset_config()) for raw in (MINIMAL, MINIMAL | {"name": "b"}, MINIMAL | {"data": DOCSTRINGS})
    }
    assert len(hashes) == 3


def test_dataset_config_is_the_same_after_json():
    values = config_from_dict(FULL, what="").dataset_config()
    assert json.loads(json.dumps(values)) == values
    assert set(values) == DATASET_SECTIONS
    assert "dataset_dir" not in values["output"]


def test_config_hash_ignores_the_order_of_keys_and_nothing_else():
    assert config_hash({"a": 1, "b": {"c": 2, "d": 3}}) == config_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert config_hash({"a": [1, 2]}) != config_hash({"a": [2, 1]})
    assert config_hash({"a": "1"}) != config_hash({"a": 1})
    # Golden: a hash stands in manifests, so it must outlive this process and this version.
    assert config_hash({"a": [1, 0.5, None, "é"]}) == "cce84fd6a3a77eb7ddf15c6d5a3e62572e11a4aa5b2716803f1334f3ea6286bb"


def test_differing_keys_names_nested_keys_with_both_values():
    left, right = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": 5}
    assert differing_keys(left, right) == [("a.c", 2, 4), ("d", 3, None), ("e", None, 5)]


# --- --list-keys -----------------------------------------------------------------------


def test_describe_keys_tells_every_key_of_every_section_with_type_default_and_meaning():
    text = describe_keys(Config)
    blocks = {}  # by section, in the case of `data` several blocks
    current = None
    for line in text.splitlines():
        if line and not line.startswith(" ") and ":  # " in line:
            current = blocks.setdefault(line.partition(":")[0], [])
            current.append({})
        elif line.startswith("  "):
            key, _, meaning = line.strip().partition(": ")
            current[-1][key] = meaning
    for name, field in Config.model_fields.items():
        sections = sections_of(field)
        if not sections:
            assert f"{name}: string, required -- " in text
            continue
        assert [set(block) for block in blocks[name]] == [set(section.model_fields) for section in sections]
        for block in blocks[name]:
            for key, meaning in block.items():
                assert ("required" in meaning or "default " in meaning) and " -- " in meaning, f"{name}.{key}: {meaning}"
    assert set(blocks) == set(Config.model_fields) - {"name"}


def test_describe_keys_says_types_and_defaults_as_yaml_has_them():
    text = describe_keys(Config)
    assert "  stop_words: null | list of string | string, default null -- tokens to drop" in text
    assert "  normalize: 'none' | 'lower' | 'nfkc' | 'nfkc_casefold', default \"nfkc_casefold\" -- " in text
    assert "  ranks: list of integer, default [1, 3, 5] -- " in text
    assert "  inputs: list of string, required -- " in text
    assert "  keep_unlabeled: true | false, default true -- " in text


def test_sections_cannot_be_changed_after_validation():
    with pytest.raises(ValueError, match="frozen"):
        TextConfig().max_tokens = 3
    with pytest.raises(ValueError, match="frozen"):
        JsonlData(source="jsonl", inputs=("a",)).inputs = ()
