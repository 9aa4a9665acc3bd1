"""What readers yield: documents, and rejects with the reason why they are not documents."""

import dataclasses

MAX_REJECT_CONTENT = 64 << 10  # 64 KiB of a reject's raw content are kept
# The reason of a reject for the rest of a file: how much is lost is unknown, so the job stops.
UNREADABLE = "unreadable file"
BLANK_LINE = "blank line"  # of a file of rows; counted, but no reason to stop the job


@dataclasses.dataclass(frozen=True)
class Document:
    """One raw input.

    Attributes:
      id: its name; need not be unique, as documents are distinguished by their text.
      texts: raw text of each text field; any strings, even ones that are not valid Unicode.
      labels: label names, in any order.
      weight: its weight in the loss, 0 or more.
      source: the file that it is in.
      row: the line or record of the file, from 1.
      split: its split, by the source's own name; None: the source does not say.
      time: when it was written, in ISO 8601; None: the source does not say.
      metadata: the value of each metadata field.
      may_be_rows: it spans lines of which each would be a row if its quotes were text.
    """

    id: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    weight: float
    source: str
    row: int
    split: str | None = None
    time: str | None = None
    metadata: tuple[str, ...] = ()
    may_be_rows: bool = False


@dataclasses.dataclass(frozen=True)
class Reject:
    """An input that could not be used.

    Attributes:
      source: the file that it is in.
      row: the line or record of the file, from 1; 0: the file as a whole.
      reason: a fixed phrase, by which rejects are counted.
      detail: what was received and what was expected.
      content: the raw content, cut at MAX_REJECT_CONTENT characters.
    """

    source: str
    row: int
    reason: str
    detail: str
    content: str
