"""The analyzer's specification: the config's section `text` with what it names written out."""

from collections.abc import Sequence
from typing import Literal

from beam_jobs.contract import english, places
from beam_jobs.contract.encoder_tokenizer import EncoderTokenizer, read_tokenizer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.first_bytes import hint_of
from beam_jobs.contract.sections.text import TextConfig, TokenizerName

UNKNOWN_SUBWORD = "[UNK]"  # what a word becomes that the subwords cannot spell
SUFFIX_MARK = "##"  # the beginning of a subword that continues a word


class AnalyzerSpec(TextConfig):
    """Everything that decides what the analyzer does; it depends on no file.

    `subwords` is `train` only until the preprocessing job has learned them: the manifest has them.
    """

    tokenizer: TokenizerName | EncoderTokenizer = "whitespace"
    stop_words: None | tuple[str, ...] = None
    subwords: None | Literal["train"] | tuple[str, ...] = None

    @property
    def encoder_tokenizer(self) -> EncoderTokenizer | None:
        """The tokenizer of a pretrained encoder; None: the tokens are no encoder's."""
        return None if isinstance(self.tokenizer, str) else self.tokenizer

    @property
    def without_subwords(self) -> "AnalyzerSpec":
        """The specification without its last step, from words to subwords."""
        return self.model_copy(update={"subwords": None})


def resolve(text: TextConfig) -> AnalyzerSpec:
    """What the config's section means: stop words, subwords and the tokenizer of an encoder are
    read from where it names them.

    Raises:
      UserError: a file cannot be read, or what it holds is not what the key expects.
    """
    if text.encoder_directory is not None:
        return AnalyzerSpec(
            strip_html=text.strip_html,
            strip_urls=text.strip_urls,
            normalize="none",
            expand_contractions=False,
            keep_characters=None,
            tokenizer=read_tokenizer(text.encoder_directory),
            max_tokens_per_document=text.max_tokens_per_document,
        )
    resolved = {"stop_words": _stop_words(text.stop_words), "subwords": _subwords(text.subwords)}
    return AnalyzerSpec(**text.model_dump() | resolved)


def _stop_words(value: None | str | Sequence[str]) -> tuple[str, ...] | None:
    if value == "english":
        value = english.STOP_WORDS
    elif isinstance(value, str):
        expected = "Expected `english`, a list, or a UTF-8 file with one word per line"
        lines = _read("stop_words", value, expected).splitlines()
        value = [line.strip() for line in lines if line.strip()]
    return tuple(sorted(set(value))) if value else None


def _subwords(value: None | str | Sequence[str]) -> None | str | tuple[str, ...]:
    if value is None or value == "train":
        return value
    where = "in the list"
    if isinstance(value, str):
        where = f"in {value}"
        expected = (
            "Expected `train`, a list, or a UTF-8 file with one subword per line, such as BERT's "
            "vocab.txt"
        )
        content = _read("subwords", value, expected)
        # Not splitlines(): vocabularies of many languages have some that it takes for line ends.
        value = content.removesuffix("\n").split("\n")
    _check_subwords(value, where)
    return tuple(value)


def _read(key: str, path: str, expected: str) -> str:
    try:
        return places.read_text(path, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"text.{key}: cannot read {path!r}: {error}{hint_of(path)}. {expected}"
        ) from None


def _check_subwords(subwords: Sequence[str], where: str) -> None:
    """Raises UserError unless the subwords are different, without white space, and one is [UNK]."""
    seen: set[str] = set()
    for number, subword in enumerate(subwords, start=1):
        if subword.split() != [subword]:
            raise UserError(
                f"text.subwords: received {subword!r} as subword {number:,} {where}, expected "
                "subwords without white space, and no empty one"
            )
        if subword in seen:
            raise UserError(
                f"text.subwords: received {subword!r} a second time as subword {number:,} {where}, "
                "expected each subword once"
            )
        seen.add(subword)
    if UNKNOWN_SUBWORD not in seen:
        raise UserError(
            f"text.subwords: received {len(subwords):,} subwords {where} without "
            f"{UNKNOWN_SUBWORD}, expected it among them, for words that the others cannot spell; "
            "add it"
        )
