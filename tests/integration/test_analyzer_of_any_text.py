"""Whole analyzers on any document and every code point: invariants of what they make of them."""

import functools

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.contract import analyzer as analyzer_module
from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.sections.text import TextConfig
from beam_jobs.contract.word_lists import AnalyzerSpec
from tests.analyzer_specs import CODE_POINTS, SPECS, analyze_bytes, check_invariants

FRAGMENTS = [
    *(
        "<b>",
        "</b>",
        "<!--",
        "-->",
        "<script>",
        "</script>",
        "<",
        ">",
        "&amp;",
        "&lt;",
        "&#39;",
        "&nbsp;",
        "http://",
        "www.",
        "don't",
        "\u2019s",
        "I'm",
    ),
    *(
        " ",
        "\u00a0",
        "\u2028",
        "\n",
        "\x00",
        "\x01",
        "\x02",
        "\x85",
        "\ufeff",
        "\u200d",
        "\u0345",
        "\u0301",
        "\u00a8",
        "\ufdfa",
        "\u1e9e",
        "\u0130",
    ),
    *(
        "a",
        "Z",
        "7",
        "\u0663",
        "-",
        "_",
        ".",
        "the",
        "\u6771",
        "\u05d0",
        "\U0001f469\u200d\U0001f467",
        "\U000e0001",
    ),
]


documents = (
    st.text().map(str.encode)
    | st.binary()
    | st.lists(st.sampled_from(FRAGMENTS)).map("".join).map(str.encode)
)


@pytest.mark.parametrize("spec", SPECS)
@given(batch=st.lists(documents, min_size=1, max_size=6))
def test_any_document_becomes_tokens_joined_by_one_space_whatever_its_batch(spec, batch):
    text = SPECS[spec]
    outputs = analyze_bytes(batch, **text)
    for output in outputs:
        check_invariants(output, TextConfig(**text).max_tokens_per_document)
    assert outputs == analyze_bytes(batch[::-1], **text)[::-1]
    assert outputs[:1] == analyze_bytes(batch[:1], **text)


@pytest.mark.parametrize("spec", ["default", "nfkc", "scripts", "characters"])
def test_every_code_point_inside_of_a_word_keeps_the_invariants(spec):
    chunks = [CODE_POINTS[i : i + 1000] for i in range(0, len(CODE_POINTS), 1000)]
    for output in analyze_bytes(
        [" ".join(f"a{c}b" for c in chunk).encode() for chunk in chunks],
        **SPECS[spec] | {"max_tokens_per_document": None},
    ):
        check_invariants(output, None)


@functools.cache
def _on_all_texts() -> Analyzer:
    return Analyzer(AnalyzerSpec())  # traced at its first call


@settings(max_examples=50)
@given(batch=st.lists(documents, min_size=1, max_size=20))
def test_steps_that_pass_over_texts_that_do_not_need_them_give_the_bytes_of_steps_on_all_texts(
    batch,
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            analyzer_module, "_change_where", lambda is_wanted, strings, change: change(strings)
        )
        expected = _on_all_texts()(tf.constant(batch)).numpy().tolist()
    assert analyze_bytes(batch) == expected


def test_empty_batch_gives_an_empty_batch():
    for text in SPECS.values():
        assert analyze_bytes([], **text) == []
