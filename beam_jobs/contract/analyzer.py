"""The analyzer: raw strings -> analyzed strings, as one TensorFlow graph function.

It is the only definition of how text is cleaned and tokenised. The Beam job runs it on batches of
documents and the exported SavedModel runs it on requests.

An analyzed string is its tokens joined by one space. No token is empty or holds white space.
Tokens are words, subwords where `text.subwords` asks for them, or the pieces of an encoder.
"""

import base64
import re
from collections.abc import Callable

import tensorflow as tf

from beam_jobs.contract import english, html_syntax
from beam_jobs.contract.encoder_tokenizer import EncoderTokenizer, SentencePiece
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.ragged import row_ids
from beam_jobs.contract.word_lists import SUFFIX_MARK, UNKNOWN_SUBWORD, AnalyzerSpec

_URL = r"(?i)\b(?:(?:https?|ftp)://|www\.)[^\s<>\"]+"
# C0 and C1 control characters, all that Unicode calls a separator (\p{Z}), since RE2's \s and
# tf.strings.split know ASCII white space only, and U+200B, which parts words in scripts without
# spaces. Not U+0020, which most matches would be; NFKC adds no other separator. \x01 and \x02 are
# then free to mark matches.
_CONTROL_OR_SPACE = (
    r"[\x00-\x1f\x7f\x{80}-\x{a0}\x{1680}\x{2000}-\x{200b}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
)
# Soft hyphen, word joiner and byte order mark say where a line may break: within a word, no matter.
_WITHIN_WORDS = r"[\x{ad}\x{2060}\x{feff}]"
# Folding its case would leave a dot that combines with the i.
_DOTTED_CAPITAL_I = r"\x{130}|I\x{307}"
_FOLDING = ("lower", "nfkc_casefold")
# Emoji are pictographs, or two letters for a flag. Digits in circles are numbers.
_EMOJI = (
    r"[\x{1f1e6}-\x{1f1ff}]{2}"
    r"|[\x{231a}\x{231b}\x{2328}\x{23cf}\x{23e9}-\x{23f3}\x{23f8}-\x{23fa}\x{25b6}\x{25c0}"
    r"\x{25fb}-\x{25fe}\x{2600}-\x{2775}\x{2794}-\x{27bf}\x{2b05}-\x{2b07}\x{2b1b}\x{2b1c}\x{2b50}"
    r"\x{2b55}\x{1f000}-\x{1f02f}\x{1f0a0}-\x{1f0ff}\x{1f170}\x{1f171}\x{1f17e}\x{1f17f}\x{1f18e}"
    r"\x{1f191}-\x{1f19a}\x{1f300}-\x{1faff}]"
)
_MATCH_START, _MATCH_END = "\x01", "\x02"
# A longer word is unknown: BERT's tokenizer takes 200 characters, of three bytes in most scripts.
_MAX_WORD_BYTES = 600
# For an encoder, text stays as its tokenizer knows it: only the marks of matches are removed, and
# line ends, which it takes for spaces, become spaces.
_MARKS = r"[\x00-\x02]"
_LINE_END_OR_TAB = r"[\t\n\r]"
_MAX_CHARACTER_BYTES = 4
_REMOVED_BY_BERT = r"[\x{fffd}\p{C}]"


class Analyzer(tf.Module):
    """The compiled analyzer of one specification.

    Calling it maps a string tensor [batch] to a string tensor [batch] of analyzed strings. Invalid
    UTF-8 becomes U+FFFD, control characters and U+200B become spaces, and soft hyphens, U+2060 and
    U+FEFF are removed, whatever the specification, unless the tokenizer is an encoder's, which
    decides itself what becomes of all but U+0000 to U+0002. The joiners U+200C and U+200D stay,
    unless `nfkc_casefold` removes them, as Unicode's NFKC_Casefold does, or `keep_characters`.

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
        if self.spec.strip_html:
            self._references = References()
        self._kept = _kept_tokens(self.spec)
        self._to_subwords = None if self.spec.subwords is None else SubwordTokenizer(self.spec)
        own = self.spec.encoder_tokenizer
        self._to_pieces = None if own is None else EncoderPieces(own)
        self._function = tf.function(
            self._analyze,
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,  # to read the code takes longer than a thousand documents
        )

    def __call__(self, raw: tf.Tensor) -> tf.Tensor:
        return self._function(raw)

    def _analyze(self, raw: tf.Tensor) -> tf.Tensor:
        text = self.spec
        strings = self._clean(raw)
        if text.strip_html:
            strings = _change_where(_has(strings, "[<&]"), strings, self._strip_html)
        if text.strip_urls:
            strings = tf.strings.regex_replace(strings, _URL, " ")
        if self._to_pieces is not None:
            return _join(_first(self._to_pieces(strings), text.max_tokens_per_document))
        strings = _normalize(strings, text)
        if text.expand_contractions:
            strings = _change_where(
                _has(strings, english.APOSTROPHE), strings, _expand_contractions
            )
        if self._kept is not None:
            strings = _part_tokens(strings, self._kept, text.keep_characters)
        elif text.keep_characters is not None:
            strings = tf.strings.regex_replace(strings, _all_but(text.keep_characters), " ")
        if text.token_pattern is not None:
            alternatives = [self._kept, f"(?:{text.token_pattern})"]
            strings = _keep_matches(strings, "|".join(filter(None, alternatives)))
        tokens = _first(
            self._drop(_tokenize(strings, text.tokenizer)), text.max_tokens_per_document
        )
        return _join(tokens) if self._to_subwords is None else self._to_subwords(tokens)

    def _clean(self, strings: tf.Tensor) -> tf.Tensor:
        if self._to_pieces is not None:
            strings = _change_where(_is_not_ascii(strings), strings, _valid_utf8)
            strings = tf.strings.regex_replace(strings, _MARKS, "")
            return tf.strings.regex_replace(strings, _LINE_END_OR_TAB, " ")
        strings = _change_where(_is_not_ascii(strings), strings, self._clean_characters)
        return tf.strings.regex_replace(strings, _CONTROL_OR_SPACE, " ")

    def _clean_characters(self, strings: tf.Tensor) -> tf.Tensor:
        """What is done to characters beyond ASCII only."""
        strings = tf.strings.regex_replace(_valid_utf8(strings), _WITHIN_WORDS, "")
        if self.spec.normalize in _FOLDING:
            strings = tf.strings.regex_replace(strings, _DOTTED_CAPITAL_I, "i")
        return strings

    def _strip_html(self, strings: tf.Tensor) -> tf.Tensor:
        for pattern in (*html_syntax.BLOCKS, html_syntax.TAG):
            strings = tf.strings.regex_replace(strings, pattern, " ")
        return _change_where(_has(strings, "&"), strings, self._decode_references)

    def _decode_references(self, strings: tf.Tensor) -> tf.Tensor:
        return self._clean(self._references(strings))

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


class References(tf.Module):
    """Decodes HTML's character references, each once: `&amp;eacute;` becomes `&eacute;`.

    Maps a string tensor [batch] without \\x01 to one. A number that is no character becomes U+FFFD.
    """

    def __init__(self):
        super().__init__(name="references")
        references = html_syntax.NAMED_REFERENCES
        self._characters = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(references)), tf.constant(list(references.values()))
            ),
            default_value="",
        )

    def __call__(self, strings: tf.Tensor) -> tf.Tensor:
        parted = tf.strings.regex_replace(
            strings, html_syntax.REFERENCE, rf"{_MATCH_START}\0{_MATCH_START}"
        )
        # Text between references holds none, so each part may be looked up.
        parts = tf.strings.split(parted, _MATCH_START)
        characters = self._characters.lookup(parts.flat_values)
        decoded = tf.where(characters == "", parts.flat_values, characters)
        numbers = tf.where(tf.strings.regex_full_match(decoded, html_syntax.NUMERIC_REFERENCE))
        decoded = tf.tensor_scatter_nd_update(
            decoded, numbers, _decode_numbers(tf.gather_nd(decoded, numbers))
        )
        return _join(parts.with_flat_values(decoded), separator="")


def _decode_numbers(references: tf.Tensor) -> tf.Tensor:
    """Numeric references [count] -> their characters, by the HTML standard's rules."""
    is_hex = tf.strings.regex_full_match(references, "&#[xX].*")
    base = tf.where(is_hex, tf.constant(16, tf.int64), tf.constant(10, tf.int64))
    digits = tf.strings.regex_replace(references, "^&#[xX]?0*|;$", "")
    # U+10FFFF has 7 decimal digits.
    codes = tf.cast(tf.io.decode_raw(digits, tf.uint8, fixed_length=7), tf.int64)
    values = tf.where(codes >= ord("A"), (codes & 7) + 9, codes - ord("0"))
    number = tf.zeros_like(base)
    for i in range(7):
        number = tf.where(codes[:, i] > 0, number * base + values[:, i], number)
    is_surrogate = (number >= 0xD800) & (number <= 0xDFFF)
    is_wrong = (tf.strings.length(digits) > 7) | (number > 0x10FFFF) | (number == 0) | is_surrogate
    number = tf.where(is_wrong, tf.constant(html_syntax.REPLACEMENT_CHARACTER, tf.int64), number)
    windows = tf.constant(html_syntax.WINDOWS_1252, tf.int64)
    is_windows = (number >= 0x80) & (number < 0xA0)
    number = tf.where(
        is_windows, tf.gather(windows, tf.where(is_windows, number - 0x80, 0)), number
    )
    return tf.strings.unicode_encode(tf.cast(number, tf.int32)[:, tf.newaxis], "UTF-8")


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


class EncoderPieces(tf.Module):
    """The tokenizer of a pretrained encoder, without the pieces around a document.

    Maps a string tensor [batch] of valid UTF-8 to its pieces, a ragged string tensor [batch, None].
    What no piece spells is the tokenizer's `unknown` in WordPiece, and itself in SentencePiece.

    WordPiece cleans, strips accents and lowers the case in the order of Hugging Face's tokenizers:
    `lower_case_nfd_strip_accents` of TensorFlow Text (2.21) folds the case after NFKC, so that
    `ß`, `ﬁ` and `½` become pieces that the encoder was not trained with.
    """

    def __init__(self, tokenizer: EncoderTokenizer):
        import tensorflow_text as tf_text

        super().__init__(name="encoder_pieces")
        self._options = tokenizer
        if isinstance(tokenizer, SentencePiece):
            try:
                self._tokenizer = tf_text.SentencepieceTokenizer(
                    model=base64.b64decode(tokenizer.model), out_type=tf.string
                )
            except tf.errors.OpError:
                raise UserError(
                    "text.tokenizer: received a file that is no model of SentencePiece; expected "
                    "the encoder's own, as whole as it was published"
                ) from None
        else:
            self._tokenizer = tf_text.FastBertTokenizer(
                list(tokenizer.pieces),
                suffix_indicator=SUFFIX_MARK,
                unknown_token=tokenizer.unknown,
                max_bytes_per_word=_MAX_CHARACTER_BYTES * tokenizer.max_word_characters,
                token_out_type=tf.string,
                lower_case_nfd_strip_accents=False,
            )

    def __call__(self, strings: tf.Tensor) -> tf.RaggedTensor:
        options = self._options
        if isinstance(options, SentencePiece):
            for old, new in options.replacements:
                strings = tf.strings.regex_replace(strings, re.escape(old), new)
        else:
            strings = _change_where(_has(strings, _REMOVED_BY_BERT), strings, _clean_as_bert)
        if options.strip_accents:
            strings = _change_where(_is_not_ascii(strings), strings, _strip_accents)
        if options.lower_case:
            # By itself; at the end of a word, tf.strings.lower would make it U+03C2.
            strings = tf.strings.regex_replace(strings, "\u03a3", "\u03c3")
            strings = tf.strings.lower(strings, encoding="utf-8")
        return self._tokenizer.tokenize(strings)


def _clean_as_bert(strings: tf.Tensor) -> tf.Tensor:
    return tf.strings.regex_replace(strings, _REMOVED_BY_BERT, "")


def _first(tokens: tf.RaggedTensor, count: int | None) -> tf.RaggedTensor:
    return tokens if count is None else tokens[:, :count]


def _join(tokens: tf.RaggedTensor, separator: str = " ") -> tf.Tensor:
    """[batch, None] -> [batch], the strings of each row with the separator between."""
    return tf.strings.unsorted_segment_join(
        tokens.values, row_ids(tokens), tokens.nrows(), separator=separator
    )


def _has(strings: tf.Tensor, pattern: str) -> tf.Tensor:
    return tf.strings.regex_full_match(strings, rf"(?s).*{pattern}.*")


def _is_not_ascii(strings: tf.Tensor) -> tf.Tensor:
    return ~tf.strings.regex_full_match(strings, r"[\x00-\x7f]*")


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


def _normalize(strings: tf.Tensor, text: AnalyzerSpec) -> tf.Tensor:
    how = text.normalize
    if text.case == "turkic":
        strings = tf.strings.regex_replace(strings, "I", "\u0131")
    if how == "lower":
        strings = tf.strings.lower(strings, encoding="utf-8")
    elif how.startswith("nfkc"):
        import tensorflow_text as tf_text

        strings = tf_text.normalize_utf8(strings, "NFKC")
        if how == "nfkc_casefold":
            # Case folding can undo NFKC (U+0345 for one), so it is normalised again.
            strings = tf_text.normalize_utf8(tf_text.case_fold_utf8(strings), "NFKC")
    if text.strip_accents:
        strings = _change_where(_is_not_ascii(strings), strings, _strip_accents)
    return strings


def _strip_accents(strings: tf.Tensor) -> tf.Tensor:
    import tensorflow_text as tf_text

    return tf.strings.regex_replace(tf_text.normalize_utf8(strings, "NFD"), r"\p{Mn}", "")


def _kept_tokens(text: AnalyzerSpec) -> str | None:
    """The RE2 pattern of tokens that are kept whole, without groups; None if there are none."""
    patterns = []
    if text.keep_symbols:
        # Text is compared after its case is folded, so the terms' is too.
        terms = _normalize(tf.constant(text.keep_symbols), text).numpy().tolist()
        for given, term in zip(text.keep_symbols, terms, strict=True):
            if term.decode().split() != [term.decode()]:
                raise UserError(
                    f"text.keep_symbols: received {given!r}, which text.normalize makes "
                    f"{term.decode()!r}; expected a term without white space after it, not empty"
                )
        # The longest first: the first alternative that matches is taken.
        for term in sorted({term.decode() for term in terms}, key=lambda term: (-len(term), term)):
            start, end = (r"\b" if re.match(r"(?a)\w", end) else "" for end in (term[0], term[-1]))
            patterns.append(f"{start}{re.escape(term)}{end}")
    if text.keep_emoji:
        patterns.append(_EMOJI)
    return "|".join(patterns) or None


def _part_tokens(strings: tf.Tensor, kept: str, keep_characters: str | None) -> tf.Tensor:
    """Puts spaces around what is kept whole, and in place of what is not kept at all."""
    others = "" if keep_characters is None else f"|{_all_but(keep_characters)}"
    return tf.strings.regex_replace(strings, f"({kept}){others}", r" \1 ")


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
