"""Values that were written into a string, as JSON or as Python or NumPy print them."""

import ast
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_jobs.sources import written_values

NAMES = st.lists(st.text(max_size=8), max_size=5)
SCORES = st.dictionaries(st.text(max_size=8), st.floats(-1e6, 1e6), max_size=5)
PIECES = st.sampled_from(
    ["[", "]", "(", ")", "{", "}", ",", ":", "'", '"', "\\", "\\x", "\\u12", "a", "1", ".5", "-"]
    + ["True", "None", "nan", " ", "\n", "set()", "u'", "b'", "1e9", "..."]
)


@settings(max_examples=150)
@given(NAMES | SCORES | st.lists(st.integers() | st.booleans() | st.none(), max_size=5))
def test_what_python_and_json_write_is_read_back(value):
    assert written_values.parse(repr(value)) == value
    assert written_values.parse(json.dumps(value)) == value
    assert written_values.parse(json.dumps(value, ensure_ascii=False)) == value


@settings(max_examples=150)
@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30))
@example("[" * 200_000)
@example("[" * 200_000 + "]" * 200_000)
@example("{" * 5000 + "1:" * 5000)
@example("9" * 5000)
@example("-" * 100_000 + "1")
@example("'" + "\\" * 100_001)
def test_any_text_is_a_value_or_a_value_error(text):
    try:
        value = written_values.parse(text)
    except ValueError:
        return
    try:
        expected = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return
    if isinstance(value, list) and isinstance(expected, list):  # NumPy's lists aside
        assert value == expected or "," not in text or len(value) > len(expected)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['cars']", ["cars"]),
        ("('a', 'b')", ["a", "b"]),
        ("('a',)", ["a"]),
        ("{'a'}", ["a"]),
        ("set()", []),
        ("frozenset()", []),
        ("[u'a', b'b']", ["a", "b"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("[0. 1. 1.]", [0.0, 1.0, 1.0]),
        ("[0 1 1]", [0, 1, 1]),
        ("['it\\'s', \"l'\\u00e9t\\xe9\"]", ["it's", "l'\u00e9t\u00e9"]),
        ('["\\ud83d\\ude00"]', ["\U0001f600"]),
        ("{'a': 0.5, 'b': True}", {"a": 0.5, "b": True}),
        ("{'a': ['b']}", {"a": ["b"]}),
        ("None", None),
        ("3", 3),
    ],
)
def test_lists_tuples_sets_and_objects_are_read(text, value):
    assert written_values.parse(text) == value


def test_numpy_prints_no_commas_and_its_items_are_not_joined():
    names = ["cars", "it's", 'a "b"', ""]
    assert written_values.parse(str(np.array(names))) == names
    assert written_values.parse(str(np.arange(100))) == list(range(100))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cars",
        "[cars]",
        "['a'",
        "['a']]",
        "['a'] b",
        "{'a': 1, 'a': 2}",
        "{'a': 1, 'b'}",
        "[1..2]",
    ]
    + ["__import__('os')", "open('x')", "[x for x in y]", "['a' + 'b']", "[...]", "{1: 2}", "1-2"],
)
def test_what_is_no_value_is_refused(text):
    with pytest.raises(ValueError):
        written_values.parse(text)


@pytest.mark.parametrize(
    ("text", "is_written"),
    [
        ("['a']", True),
        ('["a", "b"]', True),
        ("[]", True),
        ("{}", True),
        ("set()", True),
        ("{'a': 1}", True),
        ("('a', 'b')", True),
        ("[1]", True),
        ("[meta]", False),
        ("(2019)", False),
        ("('a')", False),
        ("a", False),
        ("[a, b]", False),
        ("{a}", False),
        ("[[1], [2]]", False),
    ],
)
def test_names_in_brackets_are_no_lists(text, is_written):
    assert written_values.is_written(text) == is_written
