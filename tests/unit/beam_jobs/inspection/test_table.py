"""The table of columns: what is in it, and that it fits the terminal."""

from rich.cells import cell_len

from beam_jobs.inspection.columns import columns_of
from beam_jobs.inspection.table import cut, one_line, table

ROWS = [
    {"id": i, "text": f"word {i} " * 30, "tags": ["a", "b"], "語": "漢字" * 40, "n": 1.5, "x": None}
    for i in range(9)
]


def test_a_line_for_each_column_that_fits_the_width():
    for width in (40, 80, 200):
        lines = table(columns_of(ROWS), width=width, most=9)
        assert len(lines) == 7 and all(cell_len(line) <= width for line in lines)
    assert lines[0].split() == ["column", "type", "filled", "distinct", "examples"]
    assert lines[3].split()[:7] == ["tags", "list", "of", "strings", "100%", "1", '["a",']
    assert lines[6].split() == ["x", "empty", "0%", "0"]
    assert table(columns_of(ROWS), width=80, most=2)[-1] == "and 4 more columns"


def test_shares_are_rounded_but_not_to_all_or_none():
    rows = [{"a": 1 if i else None, "b": None if i else 1} for i in range(1000)]
    lines = table(columns_of(rows), width=80, most=9)
    assert lines[1].split()[2] == ">99%" and lines[2].split()[2] == "<1%"


def test_control_characters_are_escaped():
    assert one_line("a\tb\nc") == "a b c"
    assert one_line("\x1b[31m\ud800") == "\\x1b[31m\\ud800"
    assert cut("abcdef", 5) == "ab..." and cut("abc", 5) == "abc"


def test_nested_fields_are_columns_by_their_paths():
    rows = [{"a": {"b": {"c": 7}}, "l": [{"n": "x"}, {"n": "y"}]}, {"a": None}]
    columns = {column.name: column for column in columns_of(rows)}
    assert list(columns) == ["a.b.c", "l.n"]
    assert columns["a.b.c"].filled == 0.5 and columns["l.n"].values == [["x", "y"]]
    assert columns["l.n"].num_absent == 1
