"""Columns as a table that fits the terminal, in characters that any of them can show."""

import shutil
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from beam_jobs.inspection.columns import Column

_EXAMPLES = 3
_MIN_WIDTH, _USUAL_WIDTH = 40, 100
_MAX_NAME, _MAX_EXAMPLE = 30, 60


def terminal_width() -> int:
    """Characters of a line; of no terminal, a usual number."""
    return max(_MIN_WIDTH, shutil.get_terminal_size((_USUAL_WIDTH, 24)).columns)


def one_line(text: str) -> str:
    """Text without line breaks, control characters and half surrogate pairs."""
    if text.isascii() and text.isprintable():
        return text
    text = " ".join(text.split())
    return "".join(
        character
        if character.isprintable() or character in "\u200c\u200d"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def cut(text: str, width: int) -> str:
    """At most `width` cells of a text, with dots where it is longer."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 3, 1)).rstrip() + "..."[: max(width - 1, 0)]


def table(columns: Sequence[Column], *, width: int, most: int) -> list[str]:
    """A line for each column: name, type, share filled, distinct values and examples."""
    heads = ("column", "type", "filled", "distinct")
    rows = [
        (
            cut(one_line(column.name), _MAX_NAME),
            column.kind,
            _percent(column),
            f"{column.distinct:,}",
        )
        for column in columns[:most]
    ]
    widths = [max(cell_len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = []
    for row, column in zip((heads, *rows), (None, *columns[:most]), strict=True):
        name, kind, filled, distinct = row
        line = "  ".join(
            [
                set_cell_size(name, widths[0]),
                kind.ljust(widths[1]),
                filled.rjust(widths[2]),
                distinct.rjust(widths[3]),
            ]
        )
        rest = width - cell_len(line) - 2
        examples = "examples" if column is None else _examples(column, rest)
        lines.append(cut(f"{line}  {examples}", width).rstrip())
    if len(columns) > most:
        lines.append(f"and {len(columns) - most:,} more columns")
    return lines


def _percent(column: Column) -> str:
    """Rounded, but 100% only where all rows have a value, and 0% only where none has."""
    if 0.995 <= column.filled < 1:
        return ">99%"
    return "<1%" if 0 < column.filled < 0.005 else f"{column.filled:.0%}"


def _examples(column: Column, width: int) -> str:
    found = [one_line(text[: 4 * _MAX_EXAMPLE]) for text in list(column.counts)[:_EXAMPLES]]
    each = max(12, min(_MAX_EXAMPLE, (width - 3 * (_EXAMPLES - 1)) // _EXAMPLES))
    if sum(map(cell_len, found)) + 3 * (len(found) - 1) <= width:
        return " | ".join(found)
    return " | ".join(cut(text, each) for text in found)
