"""The analyzer: each key, golden outputs of each step, and messages of what it cannot do."""

import html
import html.entities
import re
import sys
import unicodedata

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.contract import analyzer as analyzer_module
from beam_jobs.contract import english
from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.text import TextConfig, TokenizerName
from beam_jobs.contract.word_lists import AnalyzerSpec, resolve
from tests.analyzer_specs import CODE_POINTS, OFF, analyze_bytes


def analyze(raw: str, **text) -> str:
    return analyze_bytes([raw.encode()], **text)[0].decode()


# --- each key does something -----------------------------------------------------------

EFFECTS = {  # key: (value that is not its default, text that it changes)
    "strip_html": (False, "<b>bold</b>"),
    "strip_urls": (False, "see http://x.org now"),
    "normalize": ("none", "Word"),
    "case": ("turkic", "I"),
    "strip_accents": (True, "\u00e9"),
    "keep_symbols": (["C++"], "a,C++"),
    "keep_emoji": (True, "a\U0001f600"),
    "expand_contractions": (False, "don't"),
    "keep_characters": (None, "a,b"),
    "token_pattern": ("[a-z]+", "ab12cd"),
    "tokenizer": ("character", "ab"),
    "drop_tokens_with_digits": (True, "a1 b"),
    "stop_words": ("english", "the cat"),
    "subwords": (["[UNK]", "cat", "##s"], "cats"),
    "max_tokens_per_document": (1, "a b"),
}


@pytest.mark.parametrize("key", TextConfig.model_fields)
def test_every_key_changes_the_output_of_some_text(key):
    value, raw = EFFECTS[key]
    others = OFF | ({"normalize": "lower"} if key == "case" else {})
    default = {name: other for name, other in others.items() if name != key}
    assert analyze(raw, **others | {key: value}) != analyze(raw, **default)


def test_every_choice_of_a_key_differs_from_every_other():
    raw = "\u00c9A \uff21 \u00df \u6771\u4eac\u30bf.x"
    keys = {
        "normalize": TextConfig.model_fields["normalize"].annotation,
        "tokenizer": TokenizerName,
    }
    for key, annotation in keys.items():
        choices = annotation.__args__
        assert len({analyze(raw, **OFF | {key: choice}) for choice in choices}) == len(choices)


# --- golden outputs --------------------------------------------------------------------

PIECES = {
    "subwords": (
        "[UNK]",
        "un",
        "##aff",
        "##able",
        "ab",
        "abc",
        "##abc",
        "##d",
        "##dx",
        "##ce",
        "##c",
        "\u00e9",
        "##\u6771",
    )
}
HTML, URLS, CONTRACTIONS = (
    OFF | {key: True} for key in ("strip_html", "strip_urls", "expand_contractions")
)


@pytest.mark.parametrize(
    ("text", "raw", "expected"),
    [
        # everything
        (
            {},
            "<p>It&rsquo;s the CAF\u00c9&#39;s <i>menu</i>: don&#x27;t miss www.menu.fr/a?b=c "
            "!</p>",
            "it the caf\u00e9 menu do not miss",
        ),
        ({}, "", ""),
        ({}, " \t\r\n\u3000", ""),
        # invalid UTF-8 and control characters
        (OFF, "a\x00b\x07c\x1fd\x7fe\x85f\x9fg\th", "a b c d e f g h"),
        (OFF, "a\u00a0b\u2028c\u2029d\u3000e\u1680f\u202fg", "a b c d e f g"),
        # zero width: what parts words, what does not, and what joins characters
        (OFF, "a\u200bb", "a b"),
        ({}, "a\u200bb", "a b"),
        (OFF, "\ufeffa\u2060b\u00adc", "abc"),
        (OFF | {"normalize": "lower", "keep_characters": "a-z"}, "co\u00adop", "coop"),
        (OFF, "\u0645\u06cc\u200c\u062e a\u200db", "\u0645\u06cc\u200c\u062e a\u200db"),
        ({}, "\u0645\u06cc\u200c\u062e a\u200db", "\u0645\u06cc\u062e ab"),
        # HTML
        (HTML, "a<br/>b<p class='x'>c</p>d</p >e", "a b c d e"),
        (HTML, "a<!-- b <i> -- > c -->d<!--\n-->e<!---->f", "a d e f"),
        (HTML, "a<script type='x'>if (a<b) {}\n</script >b<STYLE>p{}</Style>c", "a b c"),
        (HTML, "a<scripture>b</scripture>c", "a<scripture>b</scripture>c"),
        (HTML, "<!DOCTYPE html><?xml version='1'?><![CDATA[x]]>a", "a"),
        (HTML, "<!doctype html>a<![if !IE]>b", "a b"),
        (HTML, "#include <stdio.h> printf", "#include <stdio.h> printf"),
        (HTML, "vector<int> v; map<string, list<T>> m", "vector<int> v; map<string, list<T>> m"),
        (HTML, "if a<b and c>d then", "if a<b and c>d then"),
        (HTML, "1<b && a>2, a<!b and c>d", "1<b && a>2, a<!b and c>d"),
        (
            HTML,
            "Jane <jane@example.org> <a@b.c> <http://x.y>",
            "Jane <jane@example.org> <a@b.c> <http://x.y>",
        ),
        (HTML, "a<my-tag>b</my-tag>c</int>d", "a<my-tag>b</my-tag>c</int>d"),
        (HTML, "a<IMG alt='x > y' src=z/>b<input disabled>c<a\nhref = q download>d", "a b c d"),
        (HTML, 'a<font color="red"size=2>b<td nowrap width=10%>c<a href="x"">d', "a b c d"),
        (HTML, 'a<a href=http://x/?a=1&b=2>b<p data-x aria-label="y" / >c<b/>d', "a b c d"),
        (
            HTML,
            "a<center>b<blink>c</marquee>d<svg viewBox='0 0 1 1'>e<h1 class>f",
            "a b c d e<h1 class>f",
        ),
        (HTML, "1 < 2 and 3 > 2, a <b and c, x <- y <3", "1 < 2 and 3 > 2, a <b and c, x <- y <3"),
        (HTML, "a<!-- never closed b", "a<!-- never closed b"),
        (HTML, "a<script>never closed", "a never closed"),
        (
            HTML,
            "&lt;b&gt; &quot;x&quot; &apos;y&#39; a&nbsp;b &#xA0;&#x3c;&#62; &hellip;&mdash;",
            "<b> \"x\" 'y' a b <> \u2026\u2014",
        ),
        (HTML, "&amp;lt; &amp;amp; &#38;gt; &amp;#39;", "&lt; &amp; &gt; &#39;"),
        (HTML, "&amp;eacute; &amp;#233;", "&eacute; &#233;"),
        (HTML, "&unknown; AT&T R&D & &; &#; &#x; &#xg;", "&unknown; AT&T R&D & &; &#; &#x; &#xg;"),
        (
            HTML,
            "caf&eacute; &Eacute; &euro; &fjlig; &NotEqualTilde;",
            "caf\u00e9 \u00c9 \u20ac fj \u2242\u0338",
        ),
        # without a semicolon
        (
            HTML,
            "&lt &copy, &eacute &euro x?a=1&copy=2&lt3 &notit; &#233 &#xe9s",
            "< \u00a9, \u00e9 &euro x?a=1&copy=2&lt3 &notit; \u00e9 \u00e9s",
        ),
        # numbers: of windows-1252, of no character, large, with zeros, of what parts words
        (
            HTML,
            "&#128;&#x93;&#150; &#0; &#xD800; &#x110000; &#99999999999999999999;",
            "\u20ac\u201c\u2013 \ufffd \ufffd \ufffd \ufffd",
        ),
        (HTML, "&#000000000065;&#x0000000041;&#X1F600;&#1114111;", "AA\U0001f600\U0010ffff"),
        (HTML, "a&#1;b&#129;c&#8203;d&ZeroWidthSpace;e&Tab;f&shy;g&#x2060;h", "a b c d e fgh"),
        ({}, "&Idot;&#304;x I&#775;y", "iix iy"),
        # URLs
        (URLS, "see https://a.b/c?d=e#f, or (ftp://x.y) www.z.org/q now", "see or ( now"),
        (URLS, "HTTP://A.B WWW.C.D x", "x"),
        (URLS, '<a href="http://a.b/c">d</a>', '<a href=" ">d</a>'),
        (URLS, "http://a.b\u3000word\u00a0two\u2028three", "word two three"),
        (URLS, "awww.x http:/a", "awww.x http:/a"),
        # normalisation
        (
            OFF | {"normalize": "none"},
            "\ufb01 \u2460 \u00c5 A\u030a",
            "\ufb01 \u2460 \u00c5 A\u030a",
        ),
        (
            OFF | {"normalize": "lower"},
            "\u00c9T\u00c9 \u0391\u03a3 STRASSE \u00df \uff21",
            "\u00e9t\u00e9 \u03b1\u03c2 strasse \u00df \uff41",
        ),
        (
            OFF | {"normalize": "nfkc"},
            "\ufb01 \u2460 \u212b A\u030a \uff21\uff07 x\u00b2",
            "fi 1 \u00c5 \u00c5 A' x2",
        ),
        (
            OFF | {"normalize": "nfkc_casefold"},
            "STRASSE \u00df \u0391\u03a3\u03c2 \ufb01 \u212a",
            "strasse ss \u03b1\u03c3\u03c3 fi k",
        ),
        (OFF | {"normalize": "nfkc_casefold"}, "\u0345 \u1fb3", "\u03b9 \u03b1\u03b9"),
        ({}, "\u0130STANBUL I\u0307X ISPARTA", "istanbul ix isparta"),
        (OFF | {"normalize": "lower"}, "\u0130 I", "i i"),
        (OFF | {"normalize": "nfkc"}, "\u0130 I", "\u0130 I"),
        (
            {"case": "turkic"},
            "\u0130STANBUL I\u0307X ISPARTA <I>\u0131</I>",
            "istanbul ix \u0131sparta \u0131",
        ),
        (OFF | {"case": "turkic", "normalize": "lower"}, "\u0130I", "i\u0131"),
        (
            {"strip_accents": True},
            "\u00c9lan na\u00efve e\u0301 \u0130 \u00f8",
            "elan naive e i \u00f8",
        ),
        (OFF | {"strip_accents": True}, "\u00c9\uac00", "E\u1100\u1161"),
        # what is kept whole
        (
            {"keep_symbols": ("C++", "C#", ".NET", "AT&T", "C")},
            "I use C++11, (c#) and ASP.NET; .network ABC++ AT&amp;T c",
            "i use c++ 11 c# and asp .net network abc at&t c",
        ),
        (OFF | {"keep_symbols": ("C++",)}, "a,C++,b c++", "a, C++ ,b c++"),
        ({"keep_symbols": ("C++",), "token_pattern": "[a-z]{2,}"}, "a bc c++ d", "bc c++"),
        ({"keep_symbols": ("\u0130I",), "case": "turkic"}, "\u0130I", "i\u0131"),
        (
            {"keep_emoji": True},
            "ok\U0001f600\U0001f621! \u2764\ufe0f \U0001f1e9\U0001f1ea \U0001f468\u200d\U0001f469 "
            "\u2192",
            "ok \U0001f600 \U0001f621 \u2764 \U0001f1e9\U0001f1ea \U0001f468 \U0001f469",
        ),
        # contractions
        (
            CONTRACTIONS,
            "can't won't shan't don't let's",
            "can not will not shall not do not let us",
        ),
        (CONTRACTIONS, "Can\u2019t Won\u2019t ISN\u02bcT I\u2019m", "Can not Will not IS not i am"),
        (CONTRACTIONS, "I'd've they're we'll it's Jo's", "I would have they are we will it Jo"),
        (CONTRACTIONS, "can't can't, don't. isn't", "can not can not, do not. is not"),
        (
            CONTRACTIONS,
            "'d\u00e9j\u00e0' 's\u00fc\u00df' 'sure' aujourd'hui n'tx",
            "'d\u00e9j\u00e0' 's\u00fc\u00df' 'sure' aujourd'hui n'tx",
        ),
        # characters kept
        (OFF | {"keep_characters": r"\p{L}"}, "a1-b_\u00e9\u6771!c", "a b \u00e9\u6771 c"),
        (OFF | {"keep_characters": "a-z-"}, "well-known [x] Y\\s", "well-known x s"),
        (OFF | {"keep_characters": r"a\]\[\\^"}, "]a[b\\^", "]a[ \\^"),
        (OFF | {"keep_characters": "[:alpha:]#"}, "c# 4", "c#"),
        (OFF | {"keep_characters": "^a"}, "a^b", "a^"),
        # token patterns
        (OFF | {"token_pattern": "[a-z]{2,}"}, "ab c de1fgh I", "ab de fgh"),
        (OFF | {"token_pattern": "(a|b)(c)?"}, "acb xbc a", "ac b bc a"),
        (OFF | {"token_pattern": "x|y"}, "axbyc", "x y"),
        (OFF | {"token_pattern": "a b"}, "a b a  b ab", "a b"),
        (OFF | {"token_pattern": "a*"}, "baab", "aa"),
        (OFF | {"token_pattern": r"^\w+|\w+$"}, "one two three", "one three"),
        (OFF | {"token_pattern": "nothing"}, "a b", ""),
        # tokenizers
        (OFF | {"tokenizer": "whitespace"}, "don't,  stop", "don't, stop"),
        (
            OFF | {"tokenizer": "unicode_script"},
            "don't,  stop \u6771\u4eac\u30bf\u30ef x\u03b1",
            "don ' t , stop \u6771\u4eac \u30bf\u30ef x \u03b1",
        ),
        (OFF | {"tokenizer": "character"}, "ab \u6771\u00e9 e\u0301", "a b \u6771 \u00e9 e \u0301"),
        # tokens dropped
        (OFF | {"stop_words": ("b", "\u00e9")}, "a b c \u00e9 B bb", "a c B bb"),
        (OFF | {"stop_words": "english"}, "the cat is on The mat and itself", "cat The mat"),
        (OFF | {"stop_words": ()}, "the cat", "the cat"),
        (OFF | {"stop_words": ("a",), "tokenizer": "character"}, "abad", "b d"),
        (OFF | {"drop_tokens_with_digits": True}, "a1 b 2 c\u0663 \u00b2 d", "b \u00b2 d"),
        (
            OFF
            | {"drop_tokens_with_digits": True, "stop_words": ("b",), "max_tokens_per_document": 2},
            "1 b c d e",
            "c d",
        ),
        (OFF | {"max_tokens_per_document": 2}, "a b c", "a b"),
        (OFF | {"max_tokens_per_document": 2}, "a", "a"),
        # pieces
        (OFF | PIECES, "unaffable", "un ##aff ##able"),
        (
            OFF | PIECES,
            "un able affable unable",
            "un [UNK] [UNK] un ##able",
        ),  # `able` only goes on with a word
        (
            OFF | PIECES,
            "unaff unaffx affunable",
            "un ##aff [UNK] [UNK]",
        ),  # a word is spelled whole or not at all
        (OFF | PIECES, "Unable", "[UNK]"),
        (
            OFF | PIECES,
            "ab abc abcd abcdx",
            "ab abc abc ##d abc ##dx",
        ),  # the longest piece first ...
        (OFF | PIECES, "abce", "[UNK]"),  # ... though another way would spell this one
        (OFF | PIECES, "\u00e9\u6771 \u6771", "\u00e9 ##\u6771 [UNK]"),
        (OFF | PIECES, "[UNK] ##able", "[UNK] ##able"),
        (OFF | PIECES, "abc" * 200, "abc" + " ##abc" * 199),
        (OFF | PIECES, "abc" * 200 + "d", "[UNK]"),  # more than 600 bytes
        (OFF | PIECES, "", ""),
        (OFF | PIECES | {"stop_words": ("unable",)}, "unable un able", "un [UNK]"),
        (
            OFF | PIECES | {"max_tokens_per_document": 4},
            "un unaffable un un",
            "un un ##aff ##able",
        ),  # so many pieces ...
        (
            OFF | PIECES | {"max_tokens_per_document": 2},
            "un un un unable",
            "un un",
        ),  # ... of so many words
        (PIECES, "Un<b>able</b>, UNAFFABLE!", "un [UNK] un ##aff ##able"),
    ],
)
def test_output_is_golden(text, raw, expected):
    assert analyze(raw, **text) == expected


names = st.sampled_from(sorted(html.entities.html5)).map(lambda name: f"&{name}")
numbers = st.one_of(
    st.integers(0, 0x11FFFF).map(lambda number: f"&#{number};"),
    st.integers(0, 0x11FFFF).map(lambda number: f"&#x{number:X};"),
    st.integers(0, 1 << 90).map(lambda number: f"&#X{number:08x}"),
)


def _unescape(raw: str) -> list[str]:
    """By html.unescape, but numbers that it removes are the characters that the standard says."""
    decoded = re.sub(
        "&#(?:[xX]([0-9a-fA-F]+)|([0-9]+));?",
        lambda match: (
            match[0]
            if html.unescape(match[0])
            else chr(int(match[1], 16) if match[1] else int(match[2]))
        ),
        raw,
    )
    parting = ("Cc", "Zs", "Zl", "Zp")
    characters = (
        " " if c == "\u200b" or unicodedata.category(c) in parting else c
        for c in html.unescape(decoded)
        if c not in "\u00ad\u2060\ufeff"
    )
    return "".join(characters).split()


@given(
    parts=st.lists(st.one_of(names, numbers, st.sampled_from(["a", "b7_", "&", ";"])), max_size=8)
)
def test_character_references_are_those_of_html(parts):
    raw = " ".join(parts)  # so that those without a semicolon end
    assert analyze(raw, **HTML).split() == _unescape(raw)


def test_every_name_of_html_is_decoded():
    raw = " x ".join(f"&{name}" for name in html.entities.html5)
    assert analyze(raw, **HTML).split() == _unescape(raw)


@given(
    documents=st.lists(st.lists(st.sampled_from(["a", "\u00e9t\u00e9", "x" * 40])), max_size=8),
    separator=st.sampled_from([" ", "\n\t "]),
)
def test_a_batch_is_the_tokens_of_each_of_its_documents(documents, separator):
    raw = [separator.join(tokens).encode() for tokens in documents]
    assert analyze_bytes(raw, **OFF) == [" ".join(tokens).encode() for tokens in documents]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"case": "turkic", "normalize": "nfkc"}, "expected normalize lower or nfkc_casefold"),
        ({"keep_emoji": True, "tokenizer": "character"}, "expected tokenizer whitespace"),
        ({"keep_symbols": ("a b",)}, "keep_symbols"),
    ],
)
def test_settings_that_do_not_fit_are_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        TextConfig(**text)


def test_a_symbol_that_normalisation_leaves_nothing_of_is_an_error():
    with pytest.raises(UserError, match="text.keep_symbols: received '.u200d', which"):
        Analyzer(resolve(TextConfig(keep_symbols=("\u200d",))))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a\xffb", "a\ufffdb"),  # no UTF-8 at all
        (b"a\xe2\x82", "a\ufffd"),  # truncated
        (b"\xe2\x82a", "\ufffda"),
        (b"\xc0\xaf", "\ufffd\ufffd"),  # overlong slash
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # a surrogate
        (b"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"),  # above U+10FFFF
    ],
)
def test_invalid_utf8_becomes_replacement_characters(raw, expected):
    assert analyze_bytes([raw], **OFF)[0].decode() == expected


def test_what_becomes_a_space_is_u200b_and_controls_and_separators_but_the_space_itself():
    matched = tf.strings.regex_full_match(CODE_POINTS, analyzer_module._CONTROL_OR_SPACE).numpy()
    expected = [
        c == "\u200b" or (c != " " and unicodedata.category(c) in ("Cc", "Zs", "Zl", "Zp"))
        for c in CODE_POINTS
    ]
    assert matched.tolist() == expected


# --- stop words and patterns -----------------------------------------------------------


def test_stop_words_of_a_file_are_those_of_a_list_and_need_the_file_only_once(tmp_path):
    file = tmp_path / "stop.txt"
    file.write_bytes("\ufeffthe\r\n  \u00e9t\u00e9 \n\n\nthe\n".encode())
    resolved = resolve(TextConfig(stop_words=str(file)))
    assert resolved == AnalyzerSpec(stop_words=("the", "\u00e9t\u00e9"))
    file.unlink()
    assert resolve(resolved) == resolved


def test_a_config_whose_word_lists_are_not_read_is_no_specification():
    with pytest.raises(TypeError, match="received TextConfig, expected an AnalyzerSpec"):
        Analyzer(TextConfig(stop_words="english"))


def test_a_specification_is_rebuilt_from_its_json():
    spec = resolve(TextConfig(stop_words="english", subwords=("[UNK]", "a", "##b")))
    again = AnalyzerSpec.model_validate_json(spec.model_dump_json())
    assert again == spec and again.without_subwords == resolve(TextConfig(stop_words="english"))


def test_english_stop_words_resolve_sorted_and_are_single_lower_case_tokens():
    resolved = resolve(TextConfig(stop_words="english"))
    assert resolved.stop_words == tuple(sorted(english.STOP_WORDS))
    assert len(set(english.STOP_WORDS)) == len(english.STOP_WORDS)
    for word in english.STOP_WORDS:  # the default analyzer leaves each as it is, so each can match
        assert analyze(word) == word


@pytest.mark.parametrize("content", [None, b"caf\xe9\n"])
def test_unreadable_stop_word_file_is_a_user_error(tmp_path, content):
    file = tmp_path / "stop.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        UserError,
        match=r"text\.stop_words: cannot read '.*stop\.txt': .*Expected `english`, a list, or a "
        r"UTF-8 file",
    ):
        Analyzer(resolve(TextConfig(stop_words=str(file))))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("token_pattern", "(", "missing )"),
        ("token_pattern", "a**", "bad repetition operator"),
        ("token_pattern", r"(?=a)", "invalid perl operator"),
        ("token_pattern", r"(a)\1", "invalid escape sequence"),
        ("token_pattern", "\\", "missing )"),
        ("keep_characters", "z-a", "invalid character class range"),
        ("keep_characters", r"\p{Klingon}", "invalid character class range"),
        ("keep_characters", "a\\", "missing ]"),
        ("keep_characters", "a]|[b", r"expected a bracket as `\]`"),
        ("keep_characters", "]", r"expected a bracket as `\]`"),
    ],
)
def test_bad_pattern_is_a_user_error_that_names_its_key_and_the_reason(key, value, reason):
    with pytest.raises(UserError) as raised:
        Analyzer(resolve(TextConfig(**{key: value})))
    assert str(raised.value).startswith(f"text.{key}: received {value!r}, expected a")
    assert reason in str(raised.value)


# --- pieces ----------------------------------------------------------------------------


def test_pieces_of_a_file_are_those_of_a_list_and_need_the_file_only_once(tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_bytes("\ufeff[PAD]\n[UNK]\nb\n##\u00e9\na\n".encode())
    resolved = resolve(TextConfig(subwords=str(file)))
    assert resolved == AnalyzerSpec(
        subwords=("[PAD]", "[UNK]", "b", "##\u00e9", "a")
    )  # in their order: a piece's number may be known elsewhere
    file.write_bytes(b"[PAD]\r\n[UNK]\r\nb\r\n##\xc3\xa9\r\na")
    assert resolve(TextConfig(subwords=str(file))) == resolved
    file.unlink()
    assert resolve(resolved) == resolved


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((), "received 0 subwords in the list without [UNK], expected it among them"),
        (("a", "[unk]"), "received 2 subwords in the list without [UNK], expected it among them"),
        (
            ("[UNK]", "a", "a"),
            "received 'a' a second time as subword 3 in the list, expected each subword once",
        ),
        (
            ("[UNK]", ""),
            "received '' as subword 2 in the list, expected subwords without white space, and no "
            "empty one",
        ),
        (
            ("[UNK]", "a b"),
            "received 'a b' as subword 2 in the list, expected subwords without white space",
        ),
        (
            ("[UNK]", "a\u3000"),
            "received 'a\\u3000' as subword 2 in the list, expected subwords without white space",
        ),
    ],
)
def test_pieces_that_cannot_be_a_tokenizers_are_a_user_error(tmp_path, pieces, reason):
    with pytest.raises(UserError) as raised:
        Analyzer(resolve(TextConfig(subwords=pieces)))
    assert str(raised.value).startswith(f"text.subwords: {reason}")
    file = tmp_path / "vocab.txt"
    file.write_text("".join(f"{piece}\n" for piece in pieces))
    if pieces:
        with pytest.raises(UserError) as raised:
            resolve(TextConfig(subwords=str(file)))
        assert str(raised.value).startswith(
            f"text.subwords: {reason.replace('in the list', f'in {file}')}"
        )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"caf\xe9\n", "codec can't decode"),
        (b"", "received '' as subword 1 in"),
        (b"[UNK]\n\na\n", "received '' as subword 2 in"),
    ],
)
def test_a_bad_file_of_pieces_is_a_user_error(tmp_path, content, reason):
    file = tmp_path / "vocab.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=rf"text\.subwords: (?s:.*){reason}"):
        Analyzer(resolve(TextConfig(subwords=str(file))))


def test_pieces_that_are_yet_to_be_learned_make_no_analyzer():
    with pytest.raises(ValueError, match="received text.subwords `train`, expected subwords"):
        Analyzer(AnalyzerSpec(subwords="train"))


@given(
    words=st.lists(st.text("abc#", min_size=1, max_size=9), min_size=1, max_size=8),
    pieces=st.sets(st.text("abc#", min_size=1, max_size=4), min_size=1, max_size=12),
)
@settings(max_examples=25)
def test_pieces_are_those_of_the_definition(words, pieces):
    def spell(word: str) -> list[str]:
        found, start = [], 0
        while start < len(word):
            marked = [
                (end, ("##" if start else "") + word[start:end])
                for end in range(len(word), start, -1)
            ]
            end, piece = next(
                ((end, piece) for end, piece in marked if piece in pieces), (None, None)
            )
            if piece is None:
                return ["[UNK]"]
            found, start = [*found, piece], end
        return found

    text = AnalyzerSpec(**OFF, subwords=("[UNK]", *sorted(pieces)))
    expected = " ".join(piece for word in words for piece in spell(word))
    assert (
        analyzer_module.SubwordTokenizer(text)(tf.ragged.constant([words])).numpy()[0].decode()
        == expected
    )


# --- with and without TensorFlow Text --------------------------------------------------


@pytest.mark.parametrize("normalize", ["none", "lower"])
@pytest.mark.parametrize("tokenizer", ["whitespace", "character"])
def test_core_analyzer_is_built_without_tensorflow_text(monkeypatch, normalize, tokenizer):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)  # an import now raises ImportError
    text = AnalyzerSpec(normalize=normalize, tokenizer=tokenizer)
    assert Analyzer(text)(tf.constant(["a, B"])).numpy() == [
        b"a b" if normalize == "lower" else b"a B"
    ]


@pytest.mark.parametrize(
    "text",
    [
        {"normalize": "nfkc"},
        {"normalize": "none", "tokenizer": "unicode_script"},
        {"normalize": "none", "subwords": ("[UNK]", "a")},
    ],
)
def test_other_analyzers_do_need_tensorflow_text(monkeypatch, text):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(
        Exception, match="import of tensorflow_text halted"
    ):  # TensorFlow wraps the ImportError
        Analyzer(resolve(TextConfig(**text)))(tf.constant(["a"]))
