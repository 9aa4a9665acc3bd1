"""The analyzer: raw strings -> analyzed strings, as one TensorFlow graph function.

It is the only definition of how text is cleaned and tokenised. The Beam job runs it on batches of
documents and the exported SavedModel runs it on requests.

An analyzed string is its tokens joined by one space. No token is empty or holds white space.
Tokens are words, or subwords where `text.subwords` asks for them.
"""

import re
from collections.abc import Callable

import tensorflow as tf

from beam_jobs.contract import english
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.word_lists import SUFFIX_MARK, UNKNOWN_SUBWORD, AnalyzerSpec

# Only tags that close are removed: in "a <b and c" nothing is known to be a tag.
_HTML_TAG = r"</?[A-Za-z][^<>]*>|<![A-Za-z\[][^<>]*>|<\?[^<>]*\?>"
_HTML_BLOCKS = (
    r"(?s)<!--.*?-->",
    r"(?is)<script\b[^<>]*>.*?</script\s*>",
    r"(?is)<style\b[^<>]*>.*?</style\s*>",
)
# `&amp;` is last, so that "&amp;lt;" becomes "&lt;" and not "<".
_HTML_ENTITIES = (
    (r"&(?:nbsp|#160|#[xX][aA]0);", " "),
    (r"&(?:lt|#0*60|#[xX]0*3[cC]);", "<"),
    (r"&(?:gt|#0*62|#[xX]0*3[eE]);", ">"),
    (r"&(?:quot|#0*34|#[xX]0*22);", '"'),
    (r"&(?:apos|rsquo|lsquo|#0*39|#[xX]0*27|#0*821[67]|#[xX]201[89]);", "'"),
    (r"&(?:ldquo|rdquo|#0*822[01]|#[xX]201[cCdD]);", '"'),
    (r"&(?:mdash|ndash|#0*821[12]|#[xX]201[34]);", "-"),
    (r"&(?:hellip|#0*8230|#[xX]2026);", "..."),
    (r"&(?:amp|#0*38|#[xX]0*26);", "&"),
)
_URL = r"(?i)\b(?:(?:https?|ftp)://|www\.)[^\s<>\"]+"
# C0 and C1 control characters, and all that Unicode calls a separator (\p{Z}), since RE2's \s and
# tf.strings.split know ASCII white space only. Not U+0020, which most matches would be; NFKC adds
# no other separator. \x01 and \x02 are then free to mark matches of token_pattern.
_CONTROL_OR_SPACE = (
    r"[\x00-\x1f\x7f\x{80}-\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
)
_MATCH_START, _MATCH_END = "\x01", "\x02"
# A longer word is unknown: BERT's tokenizer takes 200 characters, of three bytes in most scripts.
_MAX_WORD_BYTES = 600


class Analyzer(tf.Module):
    """The compiled analyzer of one specification.

    Calling it maps a string tensor [batch] to a string tensor [batch] of analyzed strings. Invalid
    UTF-8 becomes U+FFFD and control characters become spaces, whatever the specification.

    Attributes:
      spec: the specification.

    Raises:
      UserError: a pattern of the specification is not a valid RE2 pattern.
    """

    def __init__(self, spec: AnalyzerSpec):
        super().__init__(name="analyzer")
        if not isinstance(spec, AnalyzerSpec):
            raise TypeError(
                f"received {type(spec).__name__}, expected an AnalyzerSpec: resolve the config "
                "first"
            )
        self.spec = spec
        if self.spec.keep_characters is not None:
            _check_pattern(
                "keep_characters", self.spec.keep_characters, _all_but(self.spec.keep_characters)
            )
            if "]" in re.sub(r"(?s)\\.|\[:\^?\w+:\]", "", self.spec.keep_characters):
                received = repr(self.spec.keep_characters)
                raise UserError(
                    f"text.keep_characters: received {received}, expected a bracket as `\\]`: a "
                    "bare one ends the class"
                )
        if self.spec.token_pattern is not None:
            _check_pattern(
                "token_pattern", self.spec.token_pattern, f"(?:{self.spec.token_pattern})"
            )
        if self.spec.stop_words:
            words = tf.constant(self.spec.stop_words)
            self._stop_words = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(words, tf.ones_like(words, tf.int64)),
                default_value=0,
            )
        self._to_subwords = None if self.spec.subwords is None else SubwordTokenizer(self.spec)
        self._function = tf.function(
            self._analyze, input_signature=[tf.TensorSpec([None], tf.string)]
        )

    def __call__(self, raw: tf.Tensor) -> tf.Tensor:
        return self._function(raw)

    def _analyze(self, raw: tf.Tensor) -> tf.Tensor:
        text = self.spec
        strings = _change_where(
            ~tf.strings.regex_full_match(raw, r"[\x00-\x7f]*"), raw, _valid_utf8
        )
        strings = tf.strings.regex_replace(strings, _CONTROL_OR_SPACE, " ")
        if text.strip_html:
            strings = _change_where(_has(strings, "[<&]"), strings, _strip_html)
        if text.strip_urls:
            strings = tf.strings.regex_replace(strings, _URL, " ")
        strings = _normalize(strings, text.normalize)
        if text.expand_contractions:
            strings = _change_where(
                _has(strings, english.APOSTROPHE), strings, _expand_contractions
            )
        if text.keep_characters is not None:
            strings = tf.strings.regex_replace(strings, _all_but(text.keep_characters), " ")
        if text.token_pattern is not None:
            strings = _keep_matches(strings, text.token_pattern)
        tokens = _first(
            self._drop(_tokenize(strings, text.tokenizer)), text.max_tokens_per_document
        )
        return _join(tokens) if self._to_subwords is None else self._to_subwords(tokens)

    def _drop(self, tokens: tf.RaggedTensor) -> tf.RaggedTensor:
        keep = []
        if self.spec.drop_tokens_with_digits:
            keep.append(
                tf.logical_not(tf.strings.regex_full_match(tokens.flat_values, r"(?s).*\p{Nd}.*"))
            )
        if self.spec.stop_words:
            keep.append(tf.equal(self._stop_words.lookup(tokens.flat_values), 0))
        if not keep:
            return tokens
        return tf.ragged.boolean_mask(
            tokens, tokens.with_flat_values(tf.reduce_all(tf.stack(keep), axis=0))
        )


class SubwordTokenizer(tf.Module):
    """The analyzer's last step: words -> analyzed strings of their subwords (WordPiece).

    Maps a ragged string tensor [batch, None] to a string tensor [batch]. A word becomes the longest
    subword that it begins with, then the longest one, marked by `##`, that continues it, and so on;
    a word that cannot be spelled so becomes `[UNK]` (the algorithm is that of Song et al. 2021).

    Args:
      text: the specification, of which `subwords` and `max_tokens_per_document` are used.
    """

    def __init__(self, text: AnalyzerSpec):
        super().__init__(name="subword_tokenizer")
        if text.subwords == "train":
            raise ValueError(
                "received text.subwords `train`, expected subwords: the preprocessing job learns "
                "them and writes them in the manifest"
            )
        import tensorflow_text as tf_text

        self._max_tokens = text.max_tokens_per_document
        self._tokenizer = tf_text.FastWordpieceTokenizer(
            list(text.subwords),
            suffix_indicator=SUFFIX_MARK,
            unknown_token=UNKNOWN_SUBWORD,
            max_bytes_per_word=_MAX_WORD_BYTES,
            token_out_type=tf.string,
            no_pretokenization=True,
        )

    def __call__(self, words: tf.RaggedTensor) -> tf.Tensor:
        return _join(_first(self._tokenizer.tokenize(words).merge_dims(1, 2), self._max_tokens))


def _first(tokens: tf.RaggedTensor, count: int | None) -> tf.RaggedTensor:
    return tokens if count is None else tokens[:, :count]


def _join(tokens: tf.RaggedTensor) -> tf.Tensor:
    return tf.strings.reduce_join(tokens, axis=-1, separator=" ")


def _has(strings: tf.Tensor, pattern: str) -> tf.Tensor:
    return tf.strings.regex_full_match(strings, rf"(?s).*{pattern}.*")


def _change_where(
    is_wanted: tf.Tensor, strings: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Changes only the strings that need it: finding them costs a fraction of the change."""
    rows = tf.where(is_wanted)
    return tf.tensor_scatter_nd_update(strings, rows, change(tf.gather_nd(strings, rows)))


def _valid_utf8(strings: tf.Tensor) -> tf.Tensor:
    return tf.strings.unicode_transcode(strings, "UTF-8", "UTF-8", errors="replace")


def _expand_contractions(strings: tf.Tensor) -> tf.Tensor:
    for pattern, replacement in english.CONTRACTIONS:
        strings = tf.strings.regex_replace(strings, pattern, replacement)
    return strings


def _strip_html(strings: tf.Tensor) -> tf.Tensor:
    for block in _HTML_BLOCKS:
        strings = tf.strings.regex_replace(strings, block, " ")
    strings = tf.strings.regex_replace(strings, _HTML_TAG, " ")
    for pattern, replacement in _HTML_ENTITIES:
        strings = tf.strings.regex_replace(strings, pattern, replacement)
    return strings


def _normalize(strings: tf.Tensor, how: str) -> tf.Tensor:
    if how == "lower":
        strings = tf.strings.lower(strings, encoding="utf-8")
    elif how.startswith("nfkc"):
        import tensorflow_text as tf_text

        strings = tf_text.normalize_utf8(strings, "NFKC")
        if how == "nfkc_casefold":
            # Case folding can undo NFKC (U+0345 for one), so it is normalised again.
            strings = tf_text.normalize_utf8(tf_text.case_fold_utf8(strings), "NFKC")
    return strings


def _keep_matches(strings: tf.Tensor, pattern: str) -> tf.Tensor:
    marked = tf.strings.regex_replace(strings, f"(?:{pattern})", rf"{_MATCH_START}\0{_MATCH_END}")
    between = rf"(?:^|{_MATCH_END})[^{_MATCH_START}]*(?:{_MATCH_START}|$)"
    return tf.strings.regex_replace(marked, between, " ")


def _tokenize(strings: tf.Tensor, tokenizer: str) -> tf.RaggedTensor:
    if tokenizer == "unicode_script":
        import tensorflow_text as tf_text

        return tf_text.UnicodeScriptTokenizer().tokenize(strings)
    if tokenizer == "character":
        strings = tf.strings.regex_replace(strings, " ", "")
        return tf.strings.unicode_split(strings, "UTF-8")
    return tf.strings.split(strings)


def _all_but(keep_characters: str) -> str:
    # The space comes first: after a trailing hyphen, as in `a-z-`, it would end a range.
    return rf"[^\s{keep_characters}]"


def _check_pattern(key: str, value: str, pattern: str) -> None:
    try:
        tf.strings.regex_replace([""], pattern, "")
    except tf.errors.InvalidArgumentError as error:
        reason = error.message.rpartition("error: ")[2].partition(" [Op")[0]
        raise UserError(
            f"text.{key}: received {value!r}, expected an RE2 pattern: {reason}"
        ) from None
