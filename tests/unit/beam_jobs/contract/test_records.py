"""Records: bytes that depend on nothing but the values, and parsing that gives the values back."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.records import RecordSpec

ROOT = Path(__file__).parents[4]
RECORD = {
    "id": b"doc-1",
    "labels": [0, 3, 300],
    "text": "caf\u00e9 au lait".encode(),
    "weight": 0.5,
}
# The protobuf wire format by hand, keys in order:
# Example.features {map entry {key, value {bytes_list 1 | float_list 2 | int64_list 3}}}.
GOLDEN = (
    b"\x0a\x54"
    b"\x0a\x0f\x0a\x02id\x12\x09\x0a\x07\x0a\x05doc-1"
    b"\x0a\x12\x0a\x06labels\x12\x08\x1a\x06\x0a\x04\x00\x03\xac\x02"
    b"\x0a\x19\x0a\x04text\x12\x11\x0a\x0f\x0a\x0dcaf\xc3\xa9 au lait"
    b"\x0a\x12\x0a\x06weight\x12\x08\x12\x06\x0a\x04\x00\x00\x00\x3f"
)

SPEC = RecordSpec()
records = st.fixed_dictionaries(
    {
        "id": st.binary(),
        "text": st.binary() | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode),
        "labels": st.lists(st.integers(0, 2**63 - 1)).map(sorted),
    },
    optional={"weight": st.floats(min_value=0, width=32, allow_infinity=False)},
)


def test_encoded_bytes_are_golden_and_read_by_tensorflow():
    assert SPEC.encode(RECORD) == GOLDEN
    feature = tf.train.Example.FromString(GOLDEN).features.feature
    assert set(feature) == set(RECORD)
    assert list(feature["id"].bytes_list.value) == [b"doc-1"]
    assert list(feature["labels"].int64_list.value) == [0, 3, 300]
    assert list(feature["text"].bytes_list.value) == [RECORD["text"]]
    assert list(feature["weight"].float_list.value) == [0.5]


@given(batch=st.lists(records, min_size=1, max_size=5))
def test_parsing_gives_back_what_was_encoded(batch):
    parsed = SPEC.parse_batch(tf.constant([SPEC.encode(record) for record in batch]))
    assert parsed["id"].numpy().tolist() == [record["id"] for record in batch]
    assert parsed["text"].numpy().tolist() == [record["text"] for record in batch]
    assert parsed["labels"].to_list() == [record["labels"] for record in batch]
    assert parsed["weight"].numpy().tolist() == [record.get("weight", 1.0) for record in batch]


def test_parsed_types_are_those_of_the_spec_also_without_any_label_and_in_a_graph():
    batch = tf.constant([SPEC.encode({"id": b"", "text": b"", "labels": []})] * 2)
    for parse in (SPEC.parse_batch, tf.function(SPEC.parse_batch)):
        parsed = parse(batch)
        assert parsed["labels"].to_list() == [[], []]
        assert (parsed["labels"].dtype, parsed["labels"].row_splits.dtype) == (tf.int64, tf.int64)
        assert (parsed["text"].dtype, parsed["weight"].dtype) == (tf.string, tf.float32)
        assert parsed["text"].shape == parsed["weight"].shape == (2,)


def test_numpy_values_encode_as_python_values_do():
    assert (
        SPEC.encode(RECORD | {"labels": np.array([0, 3, 300]), "weight": np.float32(0.5)}) == GOLDEN
    )


def test_weight_is_written_only_when_given():
    without = {name: value for name, value in RECORD.items() if name != "weight"}
    assert b"weight" not in SPEC.encode(without)
    assert len(SPEC.encode(without)) < len(SPEC.encode(without | {"weight": 1.0}))


@pytest.mark.parametrize("names", [("text",), ("labels", "weight"), ("weight",)])
def test_parsing_a_subset_gives_that_subset_only(names):
    everything = SPEC.parse_batch(tf.constant([GOLDEN]))
    parsed = SPEC.parse_batch(tf.constant([GOLDEN]), names)
    assert set(parsed) == set(SPEC.parsing_spec(names)) == set(names)
    for name in names:
        tf.debugging.assert_equal(parsed[name], everything[name])


@pytest.mark.parametrize(
    ("record", "received"),
    [
        (
            RECORD | {"labesl": []},
            r"received the features \['id', 'labels', 'labesl', 'text', 'weight'\]",
        ),
        ({"id": b"", "text": b""}, r"received the features \['id', 'text'\]"),
        ({}, r"received the features \[\]"),
    ],
)
def test_unknown_and_missing_features_are_refused(record, received):
    with pytest.raises(
        ValueError, match=received + r", expected \['id', 'labels', 'text', 'weight'\]"
    ):
        SPEC.encode(record)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", "caf\u00e9"),
        ("text", None),
        ("labels", [0.5]),
        ("labels", 3),
        ("labels", [2**63]),
        ("weight", b"1"),
    ],
)
def test_values_of_a_wrong_type_are_refused(name, value):
    with pytest.raises((TypeError, ValueError)):
        SPEC.encode(RECORD | {name: value})


def test_record_without_a_required_feature_is_refused_when_parsed():
    example = tf.train.Example.FromString(GOLDEN)
    del example.features.feature["text"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="text"):
        SPEC.parse_batch(tf.constant([example.SerializeToString()]))


def test_several_texts_and_metadata_stand_in_features_of_their_own():
    spec = RecordSpec(("title", "body"), ("section",))
    assert spec.text_names == ("text/title", "text/body") and spec.metadata_names == (
        "metadata/section",
    )
    record = {
        "id": b"1",
        "labels": [2],
        "text/title": b"a",
        "text/body": b"b c",
        "metadata/section": b"x",
    }
    feature = tf.train.Example.FromString(spec.encode(record)).features.feature
    assert {name: feature[name].bytes_list.value[0] for name in feature if name != "labels"} == {
        k: v for k, v in record.items() if k != "labels"
    }
    assert SPEC.text_names == ("text",) and RecordSpec(("title",)).text_names == ("text/title",)
    with pytest.raises(
        ValueError,
        match=r"expected \['id', 'labels', 'metadata/section', 'text/body', 'text/title', "
        r"'weight'\]",
    ):
        spec.encode(RECORD)
