"""Configs: strict reading, complete errors, defaults, and what decides a dataset."""

import copy
import json
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beam_jobs.contract.config import (
    RENAMED_KEYS,
    Config,
    config_from_dict,
    config_hash,
    differing_keys,
    load_config,
    load_saved_config,
)
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import JsonlData
from beam_jobs.contract.sections.text import TextConfig
from beam_jobs.contract.sections.vocabulary import VocabularyConfig
from beam_jobs.contract.validation import Section, describe_keys

MINIMAL = {"name": "tiny", "data": {"source": "jsonl", "inputs": ["in.jsonl"]}}
WITH_FIELDS = {
    "name": "tiny",
    "data": {
        "source": "jsonl",
        "inputs": ["in.jsonl"],
        "split_field": "part",
        "time_field": "created",
    },
    "text": {"tokenizer": "encoder"},
}

# No value is the default of its key, as a test below proves.
BOW = {"model": {"name": "bow"}}
FULL = {
    "name": "full_2",
    "data": {
        "source": "jsonl",
        "inputs": ["a.jsonl", "b/*.jsonl.gz"],
        "id_field": "key",
        "text_fields": ["title", "body"],
        "labels_field": "tags",
        "label_delimiter": "; ",
        "label_columns": ["x", "y"],
        "label_score_field": "labels.score",
        "label_threshold": 0.25,
        "label_format": "ids",
        "label_names": ["cats", "food"],
        "missing_labels": "none",
        "weight_field": "w",
        "split_field": "part",
        "time_field": "created",
        "time_format": "seconds",
        "join_text_fields": False,
        "metadata_fields": ["section"],
        "max_row_bytes": 1000,
        "max_reject_fraction": 0.5,
    },
    "text": {
        "strip_html": False,
        "strip_urls": False,
        "normalize": "lower",
        "expand_contractions": False,
        "case": "turkic",
        "strip_accents": True,
        "keep_symbols": ["C++", "no"],
        "keep_emoji": True,
        "keep_characters": "a-z'\\-: #\"\u00e9",
        "token_pattern": "[a-z]{2,}",
        "tokenizer": "whitespace",
        "drop_tokens_with_digits": True,
        "stop_words": ["no", "null", "1e-4", "~"],
        "subwords": ["[UNK]", "no", "##s", "~"],
        "max_tokens_per_document": 7,
    },
    "vocabulary": {"size": 100, "min_document_count": 1, "ngrams": 2, "max_ngrams": 9},
    "duplicates": {"near": "drop", "similarity": 0.9, "shingle_tokens": 5},
    "labels": {
        "fold_case": True,
        "aliases": {"math-ph": "math.MP"},
        "deny": ["meta"],
        "allow": ["a", "b"],
        "include": ["a"],
        "min_count": 3,
        "top_k": 20,
        "keep_unlabeled": False,
    },
    "splits": {"method": "hash", "train": 0.5, "validation": 0.25, "test": 0.25},
    "output": {
        "dataset_dir": "elsewhere/dataset",
        "shards": 4,
        "shard_bytes": 4096,
        "compression": "gzip",
    },
    "model": {
        "name": "bow",
        "embedding_dim": 16,
        "pretrained_vectors": "vectors.txt",
        "freeze_pretrained_vectors": True,
        "token_weights": "uniform",
        "bigram_buckets": 64,
        "bigram_dim": 8,
        "dropout": 0.25,
        "wide": True,
    },
    "loss": {
        "name": "weighted_bce",
        "pos_weight": "file",
        "max_pos_weight": 3.5,
        "effective_number_beta": 0.9,
        "pos_weight_file": "weights.json",
        "label_smoothing": 0.1,
        "negatives": "sampled",
        "num_sampled": 64,
    },
    "optimizer": {
        "name": "adagrad",
        "learning_rate": 1e-05,
        "learning_rate_embeddings": 1e-4,
        "learning_rate_encoder": 1e-3,
        "learning_rate_output": 1e-1,
        "layer_decay": 0.9,
        "schedule": "plateau",
        "plateau_factor": 0.2,
        "plateau_patience": 3,
        "warmup_fraction": 0.1,
        "final_fraction": 0.2,
        "clip_norm": 1.5,
        "weight_decay": 0.01,
        "average_epochs": 0.9,
    },
    "train": {
        "run_dir": "elsewhere/run",
        "strategy": "mirrored",
        "replicas": 2,
        "worker_timeout_seconds": 30,
        "shard_by": "file",
        "on_corrupt": "skip",
        "batch_size": 64,
        "accumulate_steps": 4,
        "precision": "bfloat16",
        "callbacks": [{"name": "CSVLogger", "filename": "log.csv"}],
        "length_bucket_steps": 4,
        "folds": 5,
        "fold": 2,
        "fold_repeat": 1,
        "epochs": 3,
        "objective": "macro_f1",
        "patience": 1,
        "steps_per_call": 4,
        "shuffle_buffer": 99,
        "checkpoint_steps": 50,
        "keep_checkpoints": 1,
        "seed": 5,
        "deterministic": True,
    },
    "evaluate": {
        "batch_size": 32,
        "at_k": [1, 2],
        "min_positives": 2,
        "calibration": "isotonic",
        "bootstrap_replicates": 50,
        "propensity_a": 0.5,
        "propensity_b": 0.4,
    },
    "export": {
        "model_dir": "elsewhere/model",
        "top_k": 9,
        "threshold": "global",
        "thresholds_from": "chosen/run",
        "weights": "float16",
    },
    "tune": {
        "dir": "elsewhere/tune",
        "time": "2h",
        "trials": 7,
        "grace_seconds": 5,
        "space": {"model.dropout": [0.1, 0.2], "train.epochs": {"low": 2, "high": 9}},
        "pruner": "halving",
        "storage": "sqlite:///studies.db",
        "study": "other",
        "seed": 3,
    },
}
# The other kinds of sections that come in kinds; no value is the default of its key either.
_EMBEDDINGS = {
    "embedding_dim": 16,
    "dropout": 0.25,
    "pretrained_vectors": "vectors.txt",
    "freeze_pretrained_vectors": True,
}
_SAMPLED = {"negatives": "sampled", "num_sampled": 64}
OTHER_KINDS = [
    (
        "model",
        {"name": "mlp", "token_weights": "uniform", "bigram_buckets": 64, "hidden_units": [8, 4]}
        | _EMBEDDINGS,
    ),
    (
        "model",
        {"name": "cnn", "max_tokens": None, "filter_widths": [1, 2], "filters": 8} | _EMBEDDINGS,
    ),
    (
        "model",
        {
            "name": "lstm",
            "max_tokens": 9,
            "units": 8,
            "layers": 2,
            "bidirectional": False,
            "pooling": "last",
            "spatial_dropout": 0.2,
        }
        | _EMBEDDINGS,
    ),
    ("model", {"name": "cnn_lwan", "max_tokens": 9, "filter_width": 3, "filters": 8} | _EMBEDDINGS),
    (
        "model",
        {
            "name": "bow_lwan",
            "token_weights": "uniform",
            "bigram_buckets": 64,
            "bigram_dim": 8,
            "wide": True,
            "max_tokens": 9,
            "filter_width": 2,
            "filters": 8,
            "candidates": 10,
            "convolution_dim": 16,
        }
        | _EMBEDDINGS,
    ),
    (
        "model",
        {
            "name": "bow_tree",
            "token_weights": "uniform",
            "bigram_buckets": 64,
            "bigram_dim": 8,
            "head_labels": 100,
            "cluster_labels": 8,
            "beam": 4,
            "output_devices": 2,
        }
        | _EMBEDDINGS,
    ),
    (
        "model",
        {
            "name": "transformer",
            "max_tokens": 9,
            "layers": 1,
            "heads": 2,
            "feed_forward_dim": 8,
            "positions": "learned",
        }
        | _EMBEDDINGS,
    ),
    (
        "model",
        {
            "name": "linear",
            "features": "words",
            "loss": "logistic",
            "C": 2.0,
            "pos_weight": "none",
            "min_weight": 0.1,
        },
    ),
    (
        "model",
        {
            "name": "pretrained",
            "backbone": "other",
            "trainable_layers": 2,
            "lora_rank": 8,
            "lora_targets": "all",
            "gradient_checkpointing": True,
            "pooling": "cls",
            "max_tokens": 64,
            "window": 32,
            "stride": 16,
            "window_pooling": "max",
            "hidden_units": [8],
            "dropout": 0.2,
            "label_descriptions": "labels.json",
            "cache_dir": "vectors",
        },
    ),
    ("model", {"name": "custom", "build": "own.models:build"}),
    ("splits", {"method": "stratified", "train": 0.5, "validation": 0.25, "test": 0.25}),
    ("splits", {"method": "column", "train": ["tr"], "validation": ["va"], "test": ["te"]}),
    ("splits", {"method": "files", "validation": ["*dev*"], "test": ["*test*"]}),
    (
        "splits",
        {
            "method": "time",
            "validation_from": "2024-01-01",
            "test_from": "2024-06-01T12:00:00+02:00",
        },
    ),
    ("splits", {"method": "time_fractions", "train": 0.5, "validation": 0.25, "test": 0.25}),
    (
        "loss",
        {
            "name": "squared_hinge",
            "margin": 2.0,
            "pos_weight": "fourth_root",
            "label_smoothing": 0.1,
        }
        | _SAMPLED,
    ),
    ("loss", {"name": "focal", "gamma": 1.0, "alpha": None, "label_smoothing": 0.1} | _SAMPLED),
    (
        "loss",
        {
            "name": "asymmetric",
            "gamma_positive": 1.0,
            "gamma_negative": 2.0,
            "probability_shift": 0.0,
            "label_smoothing": 0.1,
        }
        | _SAMPLED,
    ),
    (
        "loss",
        {"name": "class_balanced", "beta": 0.9, "gamma": 2.0, "label_smoothing": 0.1} | _SAMPLED,
    ),
    (
        "loss",
        {
            "name": "distribution_balanced",
            "alpha": 0.2,
            "beta": 5.0,
            "mu": 0.9,
            "negative_scale": 5.0,
            "bias_scale": 0.1,
            "gamma": 0.0,
            "label_smoothing": 0.1,
        }
        | _SAMPLED,
    ),
]
DATASET_SECTIONS = {
    "name",
    "data",
    "text",
    "vocabulary",
    "duplicates",
    "labels",
    "splits",
    "output",
}
LEAVES = [
    (section, key) for section, values in FULL.items() if isinstance(values, dict) for key in values
]
DOCSTRINGS = {
    "source": "python_docstrings",
    "packages": ["numpy"],
    "min_words": 3,
    "label_depth": 1,
    "max_reject_fraction": 1.0,
}
# The other kinds of sources; no value is the default of its key either.
_FILES = {"inputs": ["a"], "max_row_bytes": 1000, "max_reject_fraction": 1.0}
_ROWS = FULL["data"]
OTHER_SOURCES = [
    _ROWS
    | {
        "source": "csv",
        "columns": ["a", "b"],
        "delimiter": "\t",
        "quote_character": "'",
        "double_quote": False,
        "escape_character": "\\",
    }
    | {"encoding": "latin-1"},
    _ROWS | {"source": "parquet"},
    _ROWS | {"source": "arrow"},
    {"source": "fasttext", "label_prefix": "#", **_FILES},
    {"source": "directories", "encoding": "cp1252", "remove": ["headers", "quotes"], **_FILES},
    {
        "source": "stack_exchange",
        "text_fields": ["body", "title"],
        "join_text_fields": False,
        "metadata_fields": ["Score"],
        **_FILES,
    },
    {
        "source": "custom",
        "reader": "my.module:Reader",
        "text_fields": ["title", "body"],
        "metadata_fields": ["section"],
        "options": {
            "folder": "a",
            "depth": 3,
            "share": 0.5,
            "all": True,
            "names": ["x", "y"],
            "none": None,
        },
        "max_reject_fraction": 1.0,
    },
]


def sections_of(field) -> list[type[Section]]:
    return [
        t
        for t in (field.annotation, *get_args(field.annotation))
        if isinstance(t, type) and issubclass(t, Section)
    ]


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
    default, full = (config_from_dict(raw, what="") for raw in (MINIMAL | BOW, FULL))
    for name, section in full:
        if isinstance(section, Section):
            assert set(type(section).model_fields) == set(FULL[name]), (
                f"the example lacks a key of {name}"
            )
    same = {
        f"{section}.{key}"
        for section, key in LEAVES
        if getattr(getattr(default, section), key) == getattr(getattr(full, section), key)
    }
    # These name the section's kind, and only the default tokenizer keeps symbols.
    kinds = {"data.source", "model.name", "loss.name", "splits.method"}
    assert same <= kinds | {"text.tokenizer"}


@pytest.mark.parametrize(
    ("section", "values"),
    OTHER_KINDS,
    ids=[values.get("name", values.get("method")) for _, values in OTHER_KINDS],
)
def test_examples_of_other_kinds_change_every_default_and_round_trip(tmp_path, section, values):
    config = config_from_dict(WITH_FIELDS | {section: values}, what="")
    kind = type(getattr(config, section))
    assert set(kind.model_fields) == set(values)
    assert not [
        key
        for key, field in kind.model_fields.items()
        if key not in ("name", "method") and getattr(getattr(config, section), key) == field.default
    ]
    assert from_text(tmp_path, config.to_yaml()) == config


@pytest.mark.parametrize(
    "values", OTHER_SOURCES, ids=[values["source"] for values in OTHER_SOURCES]
)
def test_examples_of_other_sources_change_every_default_and_round_trip(tmp_path, values):
    config = config_from_dict(MINIMAL | {"data": values}, what="")
    fields = type(config.data).model_fields
    assert set(fields) == set(values)
    assert not [key for key, field in fields.items() if getattr(config.data, key) == field.default]
    assert from_text(tmp_path, config.to_yaml()) == config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for values in OTHER_SOURCES
        for key, value in values.items()
        if key not in ("source", "inputs", "reader")
    ],
)
def test_every_key_of_every_source_decides_bytes(key, value):
    for values in (values for values in OTHER_SOURCES if key in values):
        required = {name: values[name] for name in ("source", "inputs", "reader") if name in values}
        hashes = {
            config_hash(config_from_dict(MINIMAL | {"data": data}, what="").dataset_config())
            for data in (required, required | {key: values[key]})
        }
        assert len(hashes) == 2, values["source"]


def test_custom_model_keeps_its_options_of_any_kind(tmp_path):
    model = {
        "name": "custom",
        "build": "own:build",
        "depth": 3,
        "rates": [0.1, {"a": None}],
        "kind": "x",
    }
    config = config_from_dict(MINIMAL | {"model": model}, what="")
    assert config.model.options == {"depth": 3, "rates": [0.1, {"a": None}], "kind": "x"}
    assert from_text(tmp_path, config.to_yaml()) == config
    other = config_from_dict(MINIMAL | {"model": model | {"depth": 4}}, what="")
    assert differing_keys(config.model_dump(), other.model_dump()) == [("model.depth", 3, 4)]


@pytest.mark.parametrize(
    ("section", "values"), [("loss", {"name": "focal"}), ("optimizer", {"name": "adam"})]
)
def test_a_linear_model_refuses_the_sections_that_have_no_part_in_it(section, values):
    raw = MINIMAL | {"model": {"name": "linear"}}
    assert config_from_dict(raw | {section: {}}, what="").model.name == "linear"
    with pytest.raises(UserError, match=f"expected no section `{section}` with .*liblinear"):
        config_from_dict(raw | {section: values}, what="")


def test_every_kind_of_every_section_has_an_example():
    kinds = {kind for field in Config.model_fields.values() for kind in sections_of(field)}
    examples = [FULL, *(FULL | {"data": data} for data in [DOCSTRINGS, *OTHER_SOURCES])] + [
        WITH_FIELDS | {section: values} for section, values in OTHER_KINDS
    ]
    assert kinds == {
        type(section)
        for raw in examples
        for _, section in config_from_dict(raw, what="")
        if isinstance(section, Section)
    }


@pytest.mark.parametrize(
    ("section", "key", "kind"),
    [("loss", "name", "weighted_bce"), ("model", "name", "auto"), ("splits", "method", "hash")],
)
def test_section_that_sets_no_key_is_of_the_default_kind(section, key, kind):
    for raw in (MINIMAL, MINIMAL | {section: {}}, MINIMAL | {section: None}):
        assert getattr(getattr(config_from_dict(raw, what=""), section), key) == kind


@pytest.mark.parametrize(
    ("section", "key", "kind", "values"),
    [
        ("loss", "name", "weighted_bce", {"label_smoothing": 0.1}),
        ("model", "name", "bow", {"bigram_buckets": 64}),
        ("splits", "method", "hash", {"train": 0.8, "validation": 0.1, "test": 0.1}),
    ],
)
def test_section_that_sets_keys_without_its_kind_is_of_the_simplest(section, key, kind, values):
    config = config_from_dict(MINIMAL | {section: values}, what="")
    assert getattr(getattr(config, section), key) == kind


def test_yaml_of_a_config_that_names_no_model_leaves_the_choice_open(tmp_path):
    config = config_from_dict(MINIMAL | {"train": {"seed": 3}}, what="")
    again = from_text(tmp_path, config.to_yaml())
    assert "loss" not in again.model_fields_set and "optimizer" not in again.model_fields_set
    assert again.train.model_fields_set == {"run_dir", "seed"}


@pytest.mark.parametrize(
    "raw", [MINIMAL, FULL, FULL | {"data": DOCSTRINGS}], ids=["minimal", "full", "docstrings"]
)
def test_resolved_config_round_trips_through_yaml(tmp_path, raw):
    config = config_from_dict(raw, what="")
    again = from_text(tmp_path, config.to_yaml())
    assert again == config
    assert again.to_yaml() == config.to_yaml()


@example(texts=["\x85", "\U00010000" * 8 + " b"], number=1.0)
@example(texts=["a\x85b", "\u2028", "\u2029 ", "\ufeff", "a\r\n b\t"], number=1e-05)
@given(
    texts=st.lists(st.text(min_size=1), min_size=1),
    number=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
)
def test_any_text_and_number_round_trips_through_yaml(tmp_path_factory, texts, number):
    raw = MINIMAL | {
        "data": {"source": "jsonl", "inputs": texts},
        "optimizer": {"learning_rate": number},
    }
    config = config_from_dict(raw, what="")
    file = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    file.write_bytes(config.to_yaml().encode("utf-8"))
    assert load_config(file) == config


def test_numbers_are_read_as_yaml_1_2_reads_them(tmp_path):
    text = (
        "name: a\ndata: {source: jsonl, inputs: [no]}\noptimizer: {learning_rate: 1e-4}\n"
        "loss: {max_pos_weight: 5}"
    )
    config = from_text(tmp_path, text)
    assert config.optimizer.learning_rate == 1e-4
    assert config.loss.max_pos_weight == 5.0
    assert config.data.inputs == ("no",)


def test_byte_order_mark_before_a_config_is_ignored(tmp_path):
    assert from_text(tmp_path, "\ufeffname: a\ndata: {source: python_docstrings}").name == "a"


def test_empty_and_null_sections_mean_their_defaults(tmp_path):
    text = (
        "name: tiny\ndata: {source: jsonl, inputs: [in.jsonl]}\ntext:\ntrain: null\noutput: "
        "{}\nexport: {model_dir: null}"
    )
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
    st.tuples(st.just("train.patience"), st.sampled_from(["auto", None]) | st.integers(1, 100)),
    st.tuples(st.just("optimizer.learning_rate"), st.floats(min_value=1e-300, max_value=1e300)),
    st.tuples(st.just("text.strip_html"), st.booleans()),
    st.tuples(st.just("text.stop_words"), st.none() | printable | st.lists(printable).map(tuple)),
    st.tuples(
        st.just("text.subwords"),
        st.none() | st.just("train") | printable | st.lists(printable).map(tuple),
    ),
    st.tuples(st.just("data.labels_field"), printable),
    st.tuples(st.just("evaluate.at_k"), st.lists(st.integers(1, 50), min_size=1).map(tuple)),
)


@given(override=OVERRIDES)
def test_set_changes_its_key_and_nothing_else(path, override):
    key, value = override
    config = load_config(path, overrides=[f"{key}={json.dumps(value, ensure_ascii=False)}"])
    section, leaf = key.split(".")
    assert getattr(getattr(config, section), leaf) == value
    changed = {
        row[0] for row in differing_keys(load_config(path).model_dump(), config.model_dump())
    }
    assert changed <= {key}


@given(
    override=st.one_of(
        st.text(),
        st.builds(
            "{}={}".format,
            st.sampled_from(["name", "data.inputs", "text", "train.epochs"]),
            st.text(),
        ),
    )
)
def test_any_set_argument_gives_a_config_or_a_user_error(path, override):
    try:
        assert isinstance(load_config(path, overrides=[override]), Config)
    except UserError as error:
        assert len(str(error)) > 20


def test_later_set_wins_and_values_may_hold_equals_signs(path):
    config = load_config(
        path,
        overrides=[
            "train.epochs=3",
            "train.epochs=1e1",
            "train.epochs=4",
            "data.label_delimiter='='",
        ],
    )
    assert config.train.epochs == 4
    assert config.data.label_delimiter == "="


def test_set_of_the_name_moves_the_default_directories(path):
    assert load_config(path, overrides=["name=other"]).train.run_dir == "out/other/run"


def test_set_reaches_one_section_where_an_alias_shares_a_mapping(tmp_path):
    text = (
        "name: a\ndata: {source: python_docstrings}\ntrain: &sizes {batch_size: 8}\n"
        "evaluate: *sizes"
    )
    config = from_text(tmp_path, text, overrides=["train.batch_size=16"])
    assert (config.train.batch_size, config.evaluate.batch_size) == (16, 8)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs", "--set: received 'train.epochs', expected section.key=value"),
        ("=3", "--set: received '=3', expected section.key=value"),
        ("train..epochs=3", "--set: received 'train..epochs=3', expected section.key=value"),
        (
            "name.epochs=3",
            "--set: received 'name.epochs=3', expected section.key=value, and 'name' is not a "
            "section",
        ),
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
    with pytest.raises(
        UserError,
        match=r"cannot read the config .*nowhere\.yaml: .*No such file.* Expected a YAML file",
    ):
        load_config(tmp_path / "nowhere.yaml")


def test_directory_in_place_of_a_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="Is a directory.*Expected a YAML file"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            b"name: \xff\xfe",
            r"cannot read the config .*experiment\.yaml: 'utf-8' codec can't decode.*Expected a "
            r"YAML file",
        ),
        ("name: [a", r"experiment\.yaml is not valid YAML: (?s:.*)line 1"),
        ("name: a\nname: b", r"experiment\.yaml is not valid YAML: (?s:.*)duplicate key \"name\""),
        (
            "train:\n  seed: 1\n  epochs: 2\n  seed: 3",
            r"experiment\.yaml is not valid YAML: (?s:.*)duplicate key \"seed\"(?s:.*)line 4",
        ),
        ("name: a\n---\nname: b", r"experiment\.yaml is not valid YAML: (?s:.*)single document"),
        ("name: !!python/name:os.system x", r"experiment\.yaml is not valid YAML: "),
        ("name: !!int x", r"experiment\.yaml is not valid YAML: .*int"),
        ("name: !!bool maybe", r"experiment\.yaml is not valid YAML: 'maybe'"),
        ("name: " + "[" * 500, r"experiment\.yaml is not valid YAML: maximum recursion depth"),
        ("name: " + "[" * 501, r"experiment\.yaml is not valid YAML: more than 500 brackets"),
        (
            "- name",
            r"experiment\.yaml: received list at the top level, expected a mapping of sections",
        ),
        (
            "",
            r"experiment\.yaml: received NoneType at the top level, expected a mapping of sections",
        ),
        (
            "name: a\n? [x, y]\n: z",
            r"experiment\.yaml: received values that JSON cannot hold \(.*tuple\); expected ",
        ),
        (
            "name: &a [*a]",
            r"experiment\.yaml: received values that JSON cannot hold \(.*[Cc]ircular.*\); "
            r"expected ",
        ),
        (
            'name: "\\ud800"',
            r"experiment\.yaml: received values that JSON cannot hold \(.*surrogates.*\); "
            r"expected ",
        ),
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
        (
            {"trian": {}},
            "x.yaml: trian: unknown key; did you mean 'train'? valid keys here: data, "
            "duplicates, evaluate, ",
        ),
        (
            {"text": {"normalise": "lower"}},
            "text.normalise: unknown key; did you mean 'normalize'? valid keys here: "
            "case, drop_tokens_with_digits, ",
        ),
        ({"text": {"zzz": 1}}, "text.zzz: unknown key; valid keys here: case, drop_tokens_with"),
        (
            {"data": MINIMAL["data"] | {"weights": "w"}},
            "data.weights: unknown key; did you mean 'weight_field'? valid keys here: id_field, ",
        ),
        (
            {"data": DOCSTRINGS | {"inputs": ["a"]}},
            "data.inputs: unknown key; valid keys here: label_depth, max_reject_fraction, ",
        ),
        # wrong types
        ({"train": {"epochs": "3"}}, "train.epochs: received '3' (str); expected a valid integer"),
        (
            {"train": {"epochs": 1.5}},
            "train.epochs: received 1.5 (float); expected a valid integer",
        ),
        (
            {"train": {"epochs": True}},
            "train.epochs: received True (bool); expected a valid integer",
        ),
        (
            {"train": {"epochs": None}},
            "train.epochs: received None (NoneType); expected a valid integer",
        ),
        (
            {"text": {"strip_html": "yes"}},
            "text.strip_html: received 'yes' (str); expected a valid boolean",
        ),
        (
            {"optimizer": {"learning_rate": "1e-4"}},
            "optimizer.learning_rate: received '1e-4' (str); expected a valid number",
        ),
        (
            {"data": {"source": "jsonl", "inputs": "a.jsonl"}},
            "data.inputs: received 'a.jsonl' (str); expected a list",
        ),
        (
            {"text": {"stop_words": 5}},
            "x.yaml: text.stop_words: received 5 (int); expected a list or a valid string",
        ),
        (
            {"text": {"subwords": 5}},
            "x.yaml: text.subwords: received 5 (int); expected 'train' or a list or a valid string",
        ),
        (
            {"evaluate": {"at_k": [1, "x"]}},
            "evaluate.at_k.1: received 'x' (str); expected a valid integer",
        ),
        ({"train": [1]}, "train: received [1] (list); expected a mapping"),
        ({"name": 5}, "name: received 5 (int); expected a valid string"),
        # out of range
        (
            {"name": "My Set"},
            "name: received 'My Set' (str); expected to match pattern '^[a-z][a-z0-9_]*$'",
        ),
        (
            {"train": {"epochs": 0}},
            "train.epochs: received 0 (int); expected greater than or equal to 1",
        ),
        ({"model": {"dropout": 1.0}}, "model.dropout: received 1.0 (float); expected less than 1"),
        (
            {"loss": {"max_pos_weight": float("nan")}},
            "loss.max_pos_weight: received nan (float); expected a finite number",
        ),
        (
            {"text": {"normalize": "NFC"}},
            "text.normalize: received 'NFC' (str); expected 'none', 'lower', 'nfkc' or "
            "'nfkc_casefold'",
        ),
        (
            {"text": {"keep_characters": ""}},
            "text.keep_characters: received '' (str); expected at least 1 character",
        ),
        (
            {"evaluate": {"at_k": []}},
            "evaluate.at_k: received [] (list); expected at least 1 item",
        ),
        # keys of another kind, and kinds that are not there
        (
            {"model": {"heads": 2}},
            "model.heads: unknown key; valid keys here: bigram_buckets, bigram_dim, dropout, ",
        ),
        (
            {"model": {"name": "bow", "bigram_dim": 8}},
            "bigram_dim: received 8 without pairs, expected bigram_buckets above 0",
        ),
        (
            {
                "model": {
                    "name": "bow",
                    "bigram_dim": 256,
                    "bigram_buckets": 64,
                }
            },
            "bigram_dim: received 256, expected at most embedding_dim, 128",
        ),
        (
            {"model": {"name": "cnn", "bigram_buckets": 2}},
            "model.bigram_buckets: unknown key; valid keys here: dropout, embedding_dim, ",
        ),
        (
            {"model": {"name": "bert"}},
            "model.name: received 'bert', expected one of 'auto', 'bow', 'mlp', 'cnn', ",
        ),
        (
            {"model": {"name": "transformer", "heads": 3}},
            "expected heads that divide embedding_dim, not 3 and 128",
        ),
        (
            {
                "model": {
                    "name": "bow_lwan",
                    "pretrained_vectors": "vectors.txt",
                    "convolution_dim": 64,
                }
            },
            "expected convolution_dim: null or embedding_dim with pretrained_vectors, not 64 and "
            "128",
        ),
        (
            {
                "text": {"tokenizer": "minilm"},
                "model": {"name": "pretrained", "window": 256, "max_tokens": 1024},
            },
            "expected model.max_tokens of at most 514 with text.max_tokens_per_document 512, not "
            "1024: records hold no more",
        ),
        (
            {"model": {"name": "bow_tree"}, "loss": {"negatives": "sampled"}},
            "expected `loss.negatives: all` with `model.name: bow_tree`, not 'sampled'",
        ),
        (
            {"model": {"name": "bow_tree"}, "loss": {"name": "distribution_balanced"}},
            "expected another loss with `model.name: bow_tree`, not 'distribution_balanced'",
        ),
        (
            {
                "model": {"name": "bow_tree", "output_devices": 2},
                "train": {"strategy": "mirrored", "replicas": 2},
            },
            "expected `train.strategy: auto` or one_device with model.output_devices 2, not "
            "'mirrored': the output layer of one replica",
        ),
        (
            {"model": {"name": "custom", "build": "own.build"}},
            "model.build: received 'own.build' (str); expected to match pattern",
        ),
        (
            {"loss": {"gamma": 2.0}},
            "loss.gamma: unknown key; valid keys here: effective_number_beta, label_smoothing, "
            "max_pos_weight, ",
        ),
        (
            {"loss": {"name": "focal", "gama": 2.0}},
            "loss.gama: unknown key; did you mean 'gamma'? valid keys here: alpha, gamma, ",
        ),
        (
            {"loss": {"name": "hinge"}},
            "loss.name: received 'hinge', expected one of 'weighted_bce', 'squared_hinge', ",
        ),
        (
            {"loss": {"pos_weight": "file"}},
            "expected pos_weight_file with `pos_weight: file` only, not None with 'file'",
        ),
        (
            {"loss": {"pos_weight_file": "w.json"}},
            "expected pos_weight_file with `pos_weight: file` only, not 'w.json' with 'sqrt'",
        ),
        # missing, and the kind of source
        ({"data": {"source": "jsonl"}}, "data.inputs: missing; expected a value"),
        (
            {"data": {}},
            "data.source: missing; expected one of 'jsonl', 'csv', 'parquet', 'arrow', "
            "'fasttext', "
            "'directories', 'stack_exchange', 'python_docstrings', ",
        ),
        (
            {"data": {"source": "xls"}},
            "data.source: received 'xls', expected one of 'jsonl', 'csv', 'parquet', ",
        ),
        (
            {"data": {"source": "csv", "inputs": ["a"], "delimiter": ""}},
            "data.delimiter: received '' (str); expected at least 1 character",
        ),
        (
            {"data": {"source": "csv", "inputs": ["a"], "delimiter": '"'}},
            "expected different characters, no line breaks, as delimiter, ",
        ),
        (
            {"data": {"source": "csv", "inputs": ["a"], "delimiter": "\n"}},
            "expected different characters, no line breaks, as delimiter, ",
        ),
        (
            {"data": {"source": "csv", "inputs": ["a"], "columns": ["a", "a"]}},
            "expected columns with different names, not ['a', 'a']",
        ),
        (
            {"data": {"source": "csv", "inputs": ["a"], "encoding": "utf8000"}},
            "expected an encoding that Python knows, such as utf-8 or latin-1, not ",
        ),
        (
            {"data": {"source": "directories", "inputs": ["a"], "encoding": "hex"}},
            "expected an encoding that Python knows, such as utf-8 or latin-1",
        ),
        (
            {"data": {"source": "directories", "inputs": ["a"], "remove": ["footer"]}},
            "data.remove.0: received 'footer' (str); expected 'headers', ",
        ),
        (
            {"data": {"source": "stack_exchange", "inputs": ["a"], "text_fields": ["text"]}},
            "text_fields.0: received 'text' (str); expected 'title'",
        ),
        (
            {
                "data": {
                    "source": "jsonl",
                    "inputs": ["a"],
                    "text_fields": ["a", "a"],
                    "join_text_fields": False,
                }
            },
            "expected different text_fields, not",
        ),
        (
            {
                "data": {
                    "source": "jsonl",
                    "inputs": ["a"],
                    "text_fields": ["a", "the body"],
                    "join_text_fields": False,
                }
            },
            "name inputs of the model: expected letters, digits and _, not 'the body'",
        ),
        (
            {"data": {"source": "custom", "reader": "module"}},
            "data.reader: received 'module' (str); expected to match pattern",
        ),
        (
            {"data": {"source": "custom", "reader": "m:C", "options": {"a": {}}}},
            "data.options.a: received {} (dict); expected ",
        ),
        (
            {"data": {"source": "jsonl", "inputs": ["a"], "label_threshold": 0}},
            "data.label_threshold: received 0 (int); expected greater than 0",
        ),
        ({"data": "jsonl"}, "data: received 'jsonl' (str); expected a mapping"),
        ({"labels": {"allow": []}}, "labels.allow: received [] (list); expected at least 1 item"),
        (
            {"labels": {"aliases": {"a": 1}}},
            "labels.aliases.a: received 1 (int); expected a valid string",
        ),
        # keys that must agree
        (
            {"train": {"folds": 4, "fold": 4}},
            "expected a fold below folds, not 4 of 4",
        ),
        (
            {
                "splits": {
                    "method": "time",
                    "validation_from": "2024-13-01",
                    "test_from": "2024-01-01",
                }
            },
            "expected times in ISO 8601, such as 2024-01-31",
        ),
        (
            {
                "splits": {
                    "method": "time",
                    "validation_from": "2024-01-01T00:00:00Z",
                    "test_from": "2023-01-01",
                }
            },
            "expected validation_from before test_from, not 2024-01-01T00:00:00Z and 2023-01-01",
        ),
        (
            {"splits": {"method": "random"}},
            "splits.method: received 'random', expected one of 'hash', 'stratified', ",
        ),
        (
            {"labels": {"aliases": {"a": "b", "b": "c"}}},
            "expected aliases of labels that are not aliases themselves, unlike 'b'",
        ),
        (
            {"labels": {"aliases": {"a": "B", "b": "c"}, "fold_case": True}},
            "expected aliases of labels that are not aliases themselves, unlike 'b'",
        ),
        (
            {"splits": {"train": 0.9}},
            "splits: received {'method': 'hash', 'train': 0.9} (dict); expected a sum of 1 with "
            "train above 0, not 0.9 + 0.1 + 0.1",
        ),
        (
            {"splits": {"train": 0, "validation": 0.5, "test": 0.5}},
            "expected a sum of 1 with train above 0, not 0.0 + 0.5 + 0.5",
        ),
        (
            {"train": {"replicas": 2}},
            "train: received {'replicas': 2, 'run_dir': 'out/tiny/run'} (dict); expected "
            "replicas with `strategy: mirrored` only",
        ),
        (
            {"train": {"strategy": "mirrored", "replicas": 3}},
            "expected a batch_size that replicas divide, not 256 and 3",
        ),
        # directories of other storage
        (
            {"train": {"run_dir": "ftp://server/run"}},
            "train.run_dir: received 'ftp://server/run' (str); expected a local path, gs://BUCKET/",
        ),
        ({"export": {"model_dir": "s3:/bucket/model"}}, "export.model_dir: received 's3:/bucket/"),
        ({"export": {"thresholds_from": "az://nn/run"}}, "export.thresholds_from: received 'az"),
        (
            {"tune": {"dir": "gs://bucket/tune"}},
            "tune.dir: received 'gs://bucket/tune' (str); expected a directory of a mounted",
        ),
    ],
)
def test_wrong_key_is_told_with_what_was_received_and_expected(changes, expected):
    message = message_of(MINIMAL | changes)
    assert message.startswith("x.yaml: ")
    assert expected in message
    assert (
        "error" not in message.removeprefix("x.yaml: ").split("\n")[0]
    )  # one wrong key is one line


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_a_renamed_key_is_refused_with_its_new_name(tmp_path, old, new):
    section, _, key = old.partition(".")
    expected = f"{old}: renamed, expected {new}"
    assert message_of(MINIMAL | {section: {key: None}}) == f"x.yaml: {expected}"
    text = "name: tiny\ndata: {source: jsonl, inputs: [a]}\n"
    with pytest.raises(UserError, match=expected):
        from_text(tmp_path, text, overrides=[f"{old}=3"])
    new_section, _, new_key = new.partition(".")
    assert any(
        new_key in kind.model_fields for kind in sections_of(Config.model_fields[new_section])
    )
    assert not any(key in kind.model_fields for kind in sections_of(Config.model_fields[section]))


def test_all_renamed_keys_are_told_at_once():
    message = message_of(MINIMAL | {"text": {"wordpiece": "train"}, "evaluate": {"ranks": [1]}})
    assert message == (
        "x.yaml: 2 errors\n"
        "  text.wordpiece: renamed, expected text.subwords\n"
        "  evaluate.ranks: renamed, expected evaluate.at_k"
    )


def test_the_split_method_of_folds_is_refused_with_what_makes_folds_now(tmp_path):
    message = message_of(MINIMAL | {"splits": {"method": "folds", "folds": 5, "fold": 1}})
    assert message.startswith("x.yaml: splits.method: received 'folds', which no longer exists; ")
    assert "`train.folds` and `train.fold`" in message
    text = "name: tiny\ndata: {source: jsonl, inputs: [a]}\n"
    with pytest.raises(UserError, match="`train.folds` and `train.fold`"):
        from_text(tmp_path, text, overrides=["splits.method=folds"])


def test_a_saved_config_of_an_older_version_is_refused_with_the_remedy(tmp_path):
    file = tmp_path / "config.yaml"
    config = config_from_dict(MINIMAL, what="")
    file.write_text(config.to_yaml(), encoding="utf-8")
    assert load_saved_config(file, remedy="train again") == config
    file.write_text(config.to_yaml().replace("  subwords:", "  wordpiece:"), encoding="utf-8")
    with pytest.raises(UserError) as raised:
        load_saved_config(file, remedy="train again")
    assert str(raised.value) == (
        f"{file} was made by an older version of multihot "
        "(text.wordpiece: renamed, expected text.subwords); train again"
    )


@pytest.mark.parametrize("key", ["name", "data"])
def test_missing_top_level_key_is_told_alone(key):
    assert (
        message_of({k: v for k, v in MINIMAL.items() if k != key})
        == f"x.yaml: {key}: missing; expected a value"
    )


def test_all_wrong_keys_are_told_at_once():
    message = message_of(MINIMAL | {"train": {"epochs": 0, "seed": -1}, "labels": {"topk": 3}})
    assert message.startswith("x.yaml: 3 errors\n")
    assert [line.partition(":")[0].strip() for line in message.splitlines()[1:]] == [
        "labels.topk",
        "train.epochs",
        "train.seed",
    ]


def test_wrong_item_of_a_list_does_not_also_make_the_list_too_short():
    message = message_of(MINIMAL | {"data": {"source": "jsonl", "inputs": [""]}})
    assert message == "x.yaml: data.inputs.0: received '' (str); expected at least 1 character"


def test_long_values_are_cut_in_errors():
    assert len(message_of(MINIMAL | {"train": {"epochs": "9" * 10_000}})) < 200


# --- what decides a dataset ------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "key"),
    [
        leaf
        for leaf in LEAVES
        if leaf
        not in (("data", "source"), ("model", "name"), ("loss", "name"), ("splits", "method"))
    ],
)
def test_dataset_config_holds_a_key_if_and_only_if_it_decides_bytes(section, key):
    default = config_from_dict(MINIMAL | BOW, what="").model_dump(mode="json")
    # Splits sum to 1 together, replicas need their strategy, a fold the number of folds, a file
    # the wish for it, and the dimensions of pairs need pairs.
    companions = {
        "splits": FULL["splits"],
        "train": {
            "replicas": {"strategy": "mirrored"},
            "fold": {"folds": 5},
            "fold_repeat": {"folds": 5},
        }.get(key, {}),
        "model": {"bigram_buckets": 64} if key == "bigram_dim" else {},
        "loss": {k: FULL["loss"][k] for k in ("pos_weight", "pos_weight_file")}
        if key in ("pos_weight", "pos_weight_file")
        else {},
    }.get(section, {})
    changed = copy.deepcopy(default)
    # The full example needs the default tokenizer, which keeps symbols.
    value = "character" if key == "tokenizer" else FULL[section][key]
    changed[section] |= companions | {key: value}
    before, after = (
        config_hash(config_from_dict(raw, what="").dataset_config()) for raw in (default, changed)
    )
    decides_bytes = section in DATASET_SECTIONS and key != "dataset_dir"
    assert (before != after) == decides_bytes


def test_dataset_config_depends_on_the_name_and_the_source():
    hashes = {
        config_hash(config_from_dict(raw, what="").dataset_config())
        for raw in (MINIMAL, MINIMAL | {"name": "b"}, MINIMAL | {"data": DOCSTRINGS})
    }
    assert len(hashes) == 3


def test_dataset_config_is_the_same_after_json():
    values = config_from_dict(FULL, what="").dataset_config()
    assert json.loads(json.dumps(values)) == values
    assert set(values) == DATASET_SECTIONS
    assert "dataset_dir" not in values["output"]


def test_config_hash_ignores_the_order_of_keys_and_nothing_else():
    assert config_hash({"a": 1, "b": {"c": 2, "d": 3}}) == config_hash(
        {"b": {"d": 3, "c": 2}, "a": 1}
    )
    assert config_hash({"a": [1, 2]}) != config_hash({"a": [2, 1]})
    assert config_hash({"a": "1"}) != config_hash({"a": 1})
    # Golden: a hash stands in manifests, so it must outlive this process and this version.
    assert (
        config_hash({"a": [1, 0.5, None, "é"]})
        == "cce84fd6a3a77eb7ddf15c6d5a3e62572e11a4aa5b2716803f1334f3ea6286bb"
    )


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
        assert [set(block) for block in blocks[name]] == [
            set(section.model_fields) for section in sections
        ]
        for block in blocks[name]:
            for key, meaning in block.items():
                assert ("required" in meaning or "default " in meaning) and " -- " in meaning, (
                    f"{name}.{key}: {meaning}"
                )
    assert set(blocks) == set(Config.model_fields) - {"name"}


def test_describe_keys_says_types_and_defaults_as_yaml_has_them():
    text = describe_keys(Config)
    assert "  stop_words: null | list of string | string, default null -- tokens to drop" in text
    assert (
        "  subwords: null | 'train' | list of string | string, default null -- split words into "
        "subwords: `train`: " in text
    )
    assert (
        "  normalize: 'none' | 'lower' | 'nfkc' | 'nfkc_casefold', default \"nfkc_casefold\" -- "
        in text
    )
    assert "  at_k: list of integer, default [1, 3, 5] -- " in text
    assert "  inputs: list of string, required -- " in text
    assert "  keep_unlabeled: true | false, default true -- " in text


def test_sections_cannot_be_changed_after_validation():
    with pytest.raises(ValueError, match="frozen"):
        TextConfig().max_tokens_per_document = 3
    with pytest.raises(ValueError, match="frozen"):
        JsonlData(source="jsonl", inputs=("a",)).inputs = ()


@pytest.mark.parametrize(
    ("splits", "field"),
    [
        ({"method": "column"}, "split_field"),
        (
            {"method": "time", "validation_from": "2020-01-01", "test_from": "2021-01-01"},
            "time_field",
        ),
        ({"method": "time_fractions"}, "time_field"),
    ],
)
def test_splits_that_read_a_field_say_so_where_it_is_not_named(splits, field):
    raw = {"name": "x", "data": {"source": "jsonl", "inputs": ["a"]}, "splits": splits}
    with pytest.raises(
        UserError, match=f"expected data.{field}, which `splits.method: {splits['method']}` reads"
    ):
        config_from_dict(raw, what="x")
    named = config_from_dict(raw | {"data": raw["data"] | {field: "f"}}, what="x")
    assert named.splits.method == splits["method"]


def test_tokens_of_one_document_are_kept_and_ngrams_of_two_unless_the_config_says_otherwise():
    unset, three = VocabularyConfig(), VocabularyConfig(min_document_count=3)
    assert (unset.min_documents_of_token, unset.min_documents_of_ngram) == (1, 2)
    assert (three.min_documents_of_token, three.min_documents_of_ngram) == (3, 3)
