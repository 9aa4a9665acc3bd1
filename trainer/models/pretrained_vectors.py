"""Pretrained word vectors from the text files of GloVe, word2vec and fastText."""

import dataclasses
import gzip
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from beam_jobs.contract import first_bytes, places
from beam_jobs.contract.errors import UserError

_MAX_LINES_LISTED = 5
_FIRST_BYTES = 4096
_GZIP = b"\x1f\x8b\x08"
_NUMBERS = {*range(ord(" "), 127), *b"\t\r"}


@dataclasses.dataclass(frozen=True)
class PretrainedVectors:
    """Vectors of a vocabulary's tokens.

    Attributes:
      values: float32 [vocabulary, dim], 0 where there is none.
      found: bool [vocabulary], whether the file has the token.
      broken: (line number from 1, what is wrong) of each line that could not be used.
    """

    values: np.ndarray
    found: np.ndarray
    broken: list[tuple[int, str]]


def load_vectors(path: str, tokens: Sequence[str], *, dim: int) -> PretrainedVectors:
    """Reads the vectors of a vocabulary from a text file.

    Each line is a token and `dim` numbers, separated by spaces, in UTF-8; gzip is unpacked. A
    first line of two integers, as word2vec writes it, is a header. If a token has several lines,
    the first counts. Lines that cannot be used are skipped and listed; of tokens out of the
    vocabulary only the count of numbers is checked.

    Args:
      path: the file.
      tokens: the vocabulary, in the order of the rows.
      dim: numbers in a vector.

    Raises:
      UserError: the file cannot be read, its vectors are not of `dim` numbers, or it has none of
        the tokens.
    """
    rows = {token.encode(): row for row, token in enumerate(tokens)}
    values, found = np.zeros((len(tokens), dim), np.float32), np.zeros(len(tokens), bool)
    broken: list[tuple[int, str]] = []
    lines = 0
    try:
        with _opened(path) as stream:
            for number, line in enumerate(stream, 1):
                token, _, rest = line.rstrip().partition(b" ")
                if number == 1:
                    header = _is_header(token, rest)
                    _check_dim(path, int(rest) if header else len(rest.split()), dim)
                    if header:
                        continue
                row = rows.get(token)
                lines += 1
                if row is None and rest.count(b" ") == dim - 1:
                    continue
                if row is None or not found[row]:
                    vector = _parse(rest.split(), dim)
                    if isinstance(vector, str):
                        broken.append((number, vector))
                    elif vector is not None and row is not None:
                        values[row], found[row] = vector, True
    except (OSError, EOFError) as error:
        raise UserError(
            f"model.pretrained_vectors: cannot read {path}: {error}; expected a text file with a "
            "token and its vector a line"
        ) from None
    if not found.any():
        raise UserError(
            f"model.pretrained_vectors: {path} has none of the {len(tokens):,} tokens of the "
            f"vocabulary in its {lines:,} lines{_broken_lines(broken)}; "
            "expected vectors of the text's language, spelled as the analyzer spells tokens "
            "(config section `text`)"
        )
    return PretrainedVectors(values, found, broken)


def _opened(path: str) -> BinaryIO:
    """The file's text, unpacked; raises UserError if its first bytes are those of something else,
    of which a line may well be as long as a vector.
    """
    local = places.local_file(path)
    with open(local, "rb") as stream:
        first = stream.read(_FIRST_BYTES)
    if first.startswith(_GZIP) or path.endswith(".gz"):
        with gzip.open(local) as stream:
            first = stream.read(_FIRST_BYTES)
        opened = gzip.open(local)
    else:
        opened = open(local, "rb")
    hint = first_bytes.hint(first)
    if _is_binary(first):
        hint = "; it has word2vec's header and binary numbers after it, so write it as text"
    if hint:
        opened.close()
        raise UserError(
            f"model.pretrained_vectors: cannot read {path}{hint}; expected a text file with a "
            "token and its vector a line"
        )
    return opened


def _is_binary(first: bytes) -> bool:
    """Whether a header is followed by a token and floats of four bytes each."""
    header, _, rest = first.partition(b"\n")
    size = header.rpartition(b" ")[2].strip()
    vector = rest.partition(b" ")[2][: 4 * int(size) if size.isdigit() else 0]
    vector = vector.partition(b"\n")[0]
    return _is_header(*header.partition(b" ")[::2]) and not _NUMBERS.issuperset(vector)


def coverage_text(path: str, vectors: PretrainedVectors, document_counts: np.ndarray) -> str:
    """A description of how much of a vocabulary a file covers, and of its broken lines.

    Args:
      path: the file.
      vectors: what was read from it.
      document_counts: int [vocabulary], documents with each token.
    """
    found = int(vectors.found.sum())
    share = document_counts[vectors.found].sum() / max(1, document_counts.sum())

    return (
        f"vectors of {path}: {found:,} of {len(vectors.found):,} tokens "
        f"({found / len(vectors.found):.1%}), "
        f"which are {share:.1%} of the documents' distinct tokens{_broken_lines(vectors.broken)}"
    )


def _is_header(token: bytes, rest: bytes) -> bool:
    return token.isdigit() and rest.strip().isdigit()


def _check_dim(path: str, received: int, dim: int) -> None:
    if received != dim:
        raise UserError(
            f"model.pretrained_vectors: {path} has vectors of {received} numbers by its first "
            f"line, and model.embedding_dim is {dim}; expected the same: "
            f"set model.embedding_dim to {received} if the file is right"
        )


def _parse(fields: Sequence[bytes], dim: int) -> np.ndarray | str | None:
    """The vector, what is wrong, or None for a token with spaces in it, which no vocabulary has."""
    try:
        if len(fields) > dim:
            float(fields[0])
        vector = np.array([float(field) for field in fields[-dim:]], np.float32)
    except ValueError:
        if len(fields) > dim:
            return None
        return "a field is not a number"
    if len(fields) != dim:
        return f"received {len(fields)} numbers, expected {dim}"
    return vector if np.isfinite(vector).all() else "a number is not finite"


def _broken_lines(broken: Sequence[tuple[int, str]]) -> str:
    if not broken:
        return ""
    more = "; ..." if len(broken) > _MAX_LINES_LISTED else ""
    return (
        f"; {len(broken):,} broken lines skipped: "
        + "; ".join(f"line {n}: {why}" for n, why in broken[:_MAX_LINES_LISTED])
        + more
    )
