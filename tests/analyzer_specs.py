"""Specifications of analyzers that between them take every step, and what each makes of texts."""

import functools
import json
import sys
import unicodedata

import tensorflow as tf

from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.sections.text import TextConfig
from beam_jobs.contract.word_lists import resolve

# Every step is off: a test turns on what it is about.
OFF = {
    "strip_html": False,
    "strip_urls": False,
    "normalize": "none",
    "expand_contractions": False,
    "keep_characters": None,
    "max_tokens_per_document": None,
}

CODE_POINTS = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF]


SPECS = {
    "default": {},
    "off": OFF,
    "lower": {"normalize": "lower", "stop_words": ("the", "word"), "max_tokens_per_document": 9},
    "nfkc": OFF | {"normalize": "nfkc", "strip_html": True},
    "scripts": {
        "tokenizer": "unicode_script",
        "keep_characters": None,
        "stop_words": "english",
        "drop_tokens_with_digits": True,
    },
    "characters": {
        "tokenizer": "character",
        "normalize": "lower",
        "keep_characters": None,
        "max_tokens_per_document": 30,
    },
    "symbols": {
        "normalize": "lower",
        "case": "turkic",
        "keep_symbols": ("C++", "<", "word"),
        "keep_emoji": True,
    },
    "accents": {"strip_accents": True},
    "matches": {"token_pattern": r"\p{L}(\p{L}|\d)*|\W", "keep_characters": None},
    "pieces": {
        "normalize": "lower",
        "keep_characters": None,
        "subwords": ("[UNK]", *"aetx<", "the", "##e", "##x", "##he", "##<", "##d"),
        "max_tokens_per_document": 40,
    },
}


@functools.cache
def _analyzer(key: str) -> Analyzer:
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads(key).items()
    }
    return Analyzer(resolve(TextConfig(**values)))


def analyze_bytes(texts: list[bytes], **text) -> list[bytes]:
    return (
        _analyzer(json.dumps(text))(tf.constant(texts, tf.string, shape=[len(texts)]))
        .numpy()
        .tolist()
    )


@functools.cache
def _controls_and_spaces() -> frozenset[str]:
    """All control and white space characters but the space itself."""
    characters = map(chr, range(sys.maxunicode + 1))
    return frozenset(
        c for c in characters if c != " " and (c.isspace() or unicodedata.category(c) == "Cc")
    )


def check_invariants(output: bytes, max_tokens: int | None) -> None:
    string = output.decode("utf-8")
    assert _controls_and_spaces().isdisjoint(string)
    tokens = string.split(" ") if string else []
    assert "" not in tokens  # so no double, leading or trailing space
    assert max_tokens is None or len(tokens) <= max_tokens
