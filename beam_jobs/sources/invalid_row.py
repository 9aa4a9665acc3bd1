"""Why a row is no document, and what every label must be."""

import unicodedata
from collections.abc import Iterable
from typing import Any

from beam_jobs.contract.errors import shown
from beam_jobs.contract.validation import canonical_label
from beam_jobs.sources.documents import MAX_REJECT_CONTENT, Reject

MAX_LABEL_CHARACTERS = 1000
_NOT_IN_A_LINE = {"Cc", "Cs", "Zl", "Zp"}


class InvalidRow(Exception):
    """A row that is not a document.

    The reason is a fixed phrase, the detail says what was received and what was expected.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def reject(self, source: str, row: int, content: str) -> Reject:
        return Reject(source, row, self.reason, self.detail, content[:MAX_REJECT_CONTENT])


def is_line(text: str) -> bool:
    """Whether a text has no control characters, line breaks or half surrogate pairs; spaces,
    joiners and marks of direction are parts of names.
    """
    return not any(unicodedata.category(character) in _NOT_IN_A_LINE for character in text)


def checked_labels(labels: Iterable[str], field: str, received: Any) -> tuple[str, ...]:
    """Labels without surrounding white space, in NFC.

    Args:
      labels: names.
      field: where they come from.
      received: what was there, for the error.

    Raises:
      InvalidRow: one cannot be a line of a file.
    """
    stripped = tuple(map(canonical_label, labels))
    for label in stripped:
        if not (label.isprintable() or is_line(label)):
            raise InvalidRow(
                "label is not printable",
                f"{field}: received {shown(received)}, expected labels without control "
                "characters, line breaks or half surrogate pairs",
            )
        if len(label) > MAX_LABEL_CHARACTERS:
            raise InvalidRow(
                "label is too long",
                f"{field}: received {shown(received)}, expected labels of at most "
                f"{MAX_LABEL_CHARACTERS:,} characters",
            )
    return stripped
