"""Usenet and mail posts without headers, footers and quotes, as fetch_20newsgroups removes them.

What these hold (who wrote, from where, in answer to what) predicts the class better than the text
does, but only in this data:
https://scikit-learn.org/stable/datasets/real_world.html#newsgroups-dataset
"""

import re
from collections.abc import Iterable

_QUOTE = re.compile(r"writes in|writes:|wrote:|says:|said:|^In article|^Quoted from|^[|>]")


def without(text: str, parts: Iterable[str]) -> str:
    """A post without the named parts; `headers`, `footers`, `quotes` are removed in this order."""
    for part, remove in (
        ("headers", _without_header),
        ("footers", _without_footer),
        ("quotes", _without_quotes),
    ):
        if part in parts:
            text = remove(text)
    return text


def _without_header(text: str) -> str:
    """What follows the first blank line."""
    return text.partition("\n\n")[2]


def _without_footer(text: str) -> str:
    """What precedes the last line that is blank or all hyphens."""
    lines = text.strip().split("\n")
    last = next((i for i in reversed(range(len(lines))) if not lines[i].strip().strip("-")), 0)
    return "\n".join(lines[:last]) if last else text


def _without_quotes(text: str) -> str:
    """Lines but those that quote, or that say who is quoted."""
    return "\n".join(line for line in text.split("\n") if not _QUOTE.search(line))
