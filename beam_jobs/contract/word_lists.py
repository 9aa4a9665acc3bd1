"""Word lists of the analyzer: from what the config names to the stop words and the pieces themselves."""

from collections.abc import Sequence
from pathlib import Path

from beam_jobs.contract import english
from beam_jobs.contract.dataset_config import TextConfig
from beam_jobs.contract.errors import UserError

UNKNOWN_PIECE = "[UNK]"  # what a word becomes that the pieces cannot spell
SUFFIX_MARK = "##"  # stands before a piece that continues a word


def resolve(text: TextConfig) -> TextConfig:
    """The specification with its stop words and its pieces written out, so that it depends on no file; `train` stays.

    Raises:
      UserError: a file cannot be read, or the pieces cannot be those of a tokenizer.
    """
    words, pieces = text.stop_words, text.subwords
    if words == "english":
        words = english.STOP_WORDS
    elif isinstance(words, str):
        expected = "Expected `english`, a list, or a UTF-8 file with one word a line"
        words = tuple(
            line.strip()
            for line in _read("stop_words", words, expected).splitlines()
            if line.strip()
        )
    if pieces is not None and pieces != "train":
        where = "in the list"
        if isinstance(pieces, str):
            where = f"in {pieces}"
            content = _read(
                "subwords",
                pieces,
                "Expected `train`, a list, or a UTF-8 file with one piece a line, such as BERT's vocab.txt",
            )
            # Not splitlines(): vocabularies of many languages have pieces that it takes for line ends.
            pieces = tuple(content.removesuffix("\n").split("\n"))
        _check_pieces(pieces, where)
    return text.model_copy(
        update={"stop_words": tuple(sorted(set(words))) if words else None, "subwords": pieces}
    )


def _read(key: str, path: str, expected: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"text.{key}: cannot read {path!r}: {error}. {expected}") from None


def _check_pieces(pieces: Sequence[str], where: str) -> None:
    """Raises UserError unless the pieces are different, without white space, and hold the one for unknown words."""
    seen: set[str] = set()
    for number, piece in enumerate(pieces, start=1):
        if piece.split() != [piece]:
            raise UserError(
                f"text.subwords: received {piece!r} as piece {number:,} {where}, expected pieces without white space, and no empty one"
            )
        if piece in seen:
            raise UserError(
                f"text.subwords: received {piece!r} a second time as piece {number:,} {where}, expected each piece once"
            )
        seen.add(piece)
    if UNKNOWN_PIECE not in seen:
        raise UserError(
            f"text.subwords: received {len(pieces):,} pieces {where} without {UNKNOWN_PIECE}, expected it among them: it stands for words that "
            "the others cannot spell; add it"
        )
