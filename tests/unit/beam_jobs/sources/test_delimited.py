"""CSV and TSV: the fields that the writer meant, and a broken row that costs itself alone."""

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import CsvData
from beam_jobs.sources.delimited import CsvReader
from beam_jobs.sources.documents import BLANK_LINE, UNREADABLE, Document, Reject
from beam_jobs.sources.fields import TOO_LONG


def make(content: bytes | str, folder, *, name: str = "in.csv", **data) -> CsvReader:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return CsvReader(CsvData(source="csv", inputs=(str(folder / name),), **data))


def read(content: bytes | str, folder, **data) -> list[Document | Reject]:
    reader = make(content, folder, **data)
    return [row for file in reader.files() for row in reader.read(file)]


def outline(rows) -> list[tuple]:
    return [
        (row.row, row.reason) if isinstance(row, Reject) else (row.row, row.texts[0], row.labels)
        for row in rows
    ]


FIELD = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=8
) | st.sampled_from(["", ",", '"', "a\nb", "\r\n", '""', "'x'", "\\"])


@given(
    rows=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=8),
    dialect=st.sampled_from(
        [
            {},
            {"delimiter": "\t"},
            {"quote_character": "'"},
            {"double_quote": False, "escape_character": "\\"},
            {"delimiter": ";", "escape_character": "\\", "encoding": "utf-16"},
        ]
    ),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    is_quoted=st.booleans(),
    has_header=st.booleans(),
)
def test_what_pythons_writer_writes_is_read_back_with_the_line_that_each_row_begins_in(
    tmp_path_factory, rows, dialect, line_end, is_quoted, has_header
):
    names = {
        "quote_character": "quotechar",
        "escape_character": "escapechar",
        "double_quote": "doublequote",
        "delimiter": "delimiter",
    }
    options = {names[key]: value for key, value in dialect.items() if key in names}
    # Python's writer does not quote line breaks other than its own; readers take them for one.
    quoting = (
        csv.QUOTE_ALL
        if is_quoted or line_end == "\r" or any("\r" in field for row in rows for field in row)
        else csv.QUOTE_MINIMAL
    )
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=line_end, quoting=quoting, **options)
    first_lines = []
    columns = ("text", "extra", "labels")
    for row in [columns] * has_header + [(*row, "x") for row in rows]:
        first_lines.append(
            len(stream.getvalue().replace("\r\n", "\n").replace("\r", "\n").split("\n"))
        )
        writer.writerow(row)
    content = stream.getvalue().encode(dialect.get("encoding", "utf-8"))
    named = {} if has_header else {"columns": columns}
    received = read(
        content,
        tmp_path_factory.getbasetemp(),
        text_fields=("text", "extra"),
        **named,
        **({"quote_character": '"'} | dialect),
    )
    expected = [
        (line, "\n\n".join(row), ("x",))
        for line, row in zip(first_lines[has_header:], rows, strict=True)
    ]
    assert outline(received) == expected


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ('"never closed,x', "not CSV"),
        ('"a" b,x', "not CSV"),
        ('"closed two lines on,x\nd,x\n"e",x', "not CSV"),
        ("a", "wrong number of fields"),
        ("a,x,y", "wrong number of fields"),
        ("a\0b,x", "NUL character"),
        (b"a\xffb,x", "wrong encoding"),
        (b'"a\nb\xff",x', "wrong encoding"),
        ("a," + "x" * 1001, "label is too long"),
        ('a,"x\ny"', "label is not printable"),
        ("a" * 2000 + ",x", TOO_LONG),
        ('"' + "a\n" * 1000 + '",x', TOO_LONG),
    ],
)
@pytest.mark.parametrize("has_header", [True, False])
def test_a_broken_row_in_the_middle_is_a_reject_and_the_rows_around_it_are_read(
    tmp_path, broken, reason, has_header
):
    broken = broken if isinstance(broken, bytes) else broken.encode()
    content = b"text,labels\n" * has_header + b"first,x\n" + broken + b"\nlast,y\n"
    rows = outline(
        read(
            content,
            tmp_path,
            max_row_bytes=1500,
            **({} if has_header else {"columns": ("text", "labels")}),
        )
    )
    last = content.count(b"\n")
    assert rows[0] == (1 + has_header, "first", ("x",))
    assert rows[1] == (2 + has_header, reason)
    assert rows[-1] == (last, "last", ("y",))
    if b"\nd,x" in broken:
        assert rows[2:-1] == [
            (3 + has_header, "d", ("x",)),
            (4 + has_header, "e", ("x",)),
        ]  # reading went on behind the broken line


def test_a_rejects_content_is_the_raw_row(tmp_path):
    rows = read('text,labels\n"a, ""b""\n1",x,extra\r\n"open,x\n', tmp_path)
    assert [row.content for row in rows] == ['"a, ""b""\n1",x,extra', '"open,x']
    assert rows[0].detail == "received 3, expected 2: text, labels"


def test_a_quote_that_never_ends_costs_one_row_however_many_follow(tmp_path):
    rows = read('text,labels\n"open,x\n' + "a,y\n" * 5000, tmp_path)
    assert outline(rows)[0] == (2, "not CSV") and len(rows) == 5001


def test_a_very_long_row_is_one_reject(tmp_path):
    content = (
        b"text,labels\na,x\n" + b"b" * 20_000_000 + b',x\n"' + b"c " * 10_000_000 + b'",x\nd,y\n'
    )
    assert outline(read(content, tmp_path, max_row_bytes=1 << 20)) == [
        (2, "a", ("x",)),
        (3, TOO_LONG),
        (4, TOO_LONG),
        (5, "d", ("y",)),
    ]


def test_each_blank_line_is_a_counted_reject(tmp_path):
    assert outline(read("\n\r\ntext,labels\n\na,x\r\n\r\nb,y\n\n", tmp_path)) == [
        (1, BLANK_LINE),
        (2, BLANK_LINE),
        (4, BLANK_LINE),
        (5, "a", ("x",)),
        (6, BLANK_LINE),
        (7, "b", ("y",)),
        (8, BLANK_LINE),
    ]
    assert outline(read("\n\n", tmp_path)) == [(1, BLANK_LINE), (2, BLANK_LINE)]
    assert outline(read("\na,x\n", tmp_path, columns=("text", "labels"))) == [
        (1, BLANK_LINE),
        (2, "a", ("x",)),
    ]
    assert outline(read('text\n""\n\n', tmp_path, labels_field=None)) == [
        (2, "", ()),
        (3, BLANK_LINE),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    assert outline(read(b"\xef\xbb\xbftext,labels\na,x", tmp_path)) == [(2, "a", ("x",))]


def test_the_declared_encoding_is_used(tmp_path):
    assert outline(
        read("text,labels\ncaf\u00e9,x".encode("latin-1"), tmp_path, encoding="latin-1")
    ) == [(2, "caf\u00e9", ("x",))]
    assert outline(read("text,labels\n\u65e5,x".encode("utf-16"), tmp_path, encoding="utf-16")) == [
        (2, "\u65e5", ("x",))
    ]


def test_without_quoting_quotes_are_text(tmp_path):
    content = '"a\tx\n"b"\ty\n'
    rows = read(content, tmp_path, columns=("text", "labels"), delimiter="\t", quote_character=None)
    assert outline(rows) == [(1, '"a', ("x",)), (2, '"b"', ("y",))]


def test_quotes_in_tab_delimited_files_are_text_unless_they_are_asked_for(tmp_path):
    content = 'text\tlabels\n"bread\tfood\nmeow"\tcats\nfive " inches\tfood\n'
    rows = read(content, tmp_path, delimiter="\t")
    assert outline(rows) == [
        (2, '"bread', ("food",)),
        (3, 'meow"', ("cats",)),
        (4, 'five " inches', ("food",)),
    ]
    asked = read('text\tlabels\n"a\tb"\tx\n', tmp_path, delimiter="\t", quote_character='"')
    assert outline(asked) == [(2, "a\tb", ("x",))]


def test_rows_whose_lines_would_be_rows_without_quotes_are_marked(tmp_path):
    rows = read('text,labels\n"bread,food\nsalt",food\n"soup\nmeow",cats\n', tmp_path)
    assert [(row.row, row.may_be_rows) for row in rows] == [(2, True), (4, False)]


def test_labels_are_one_or_delimited_and_may_hold_commas(tmp_path):
    content = 'text,labels\na,"x, y"\nb, \nc,x\n'
    assert [row.labels for row in read(content, tmp_path)] == [("x, y",), (), ("x",)]
    assert [row.labels for row in read(content, tmp_path, label_delimiter=",")] == [
        ("x", "y"),
        (),
        ("x",),
    ]


def test_label_columns_hold_0_or_1_true_or_false_or_numbers(tmp_path):
    content = (
        "text,x,y,z\na,1,0,\nb,0.5,0.49,true\nc,False,1e0,TRUE\nd,-1,yes,0\ne,nan,0,0\nf, 1 ,0,0\n"
    )
    columns = {"label_columns": ("z", "x", "y")}
    rows = read(content, tmp_path, **columns)
    assert outline(rows) == [
        (2, "a", ("x",)),
        (3, "b", ("z", "x")),
        (4, "c", ("z", "y")),
        (5, "label is not a number"),
        (6, "label is not a number"),
        (7, "f", ("x",)),
    ]
    assert rows[3].detail == "y: received 'yes', expected 0, 1 or a number between"
    assert [row.labels for row in read(content, tmp_path, label_threshold=0.49, **columns)[:3]] == [
        ("x",),
        ("z", "x", "y"),
        ("z", "y"),
    ]


def test_ids_and_weights_are_read_from_their_columns(tmp_path):
    rows = read(
        "id,text,labels,w\nk,a,x,0.25\n,b,x,1\nl,c,x,\nm,d,x,-1\nn,e,x,heavy\n",
        tmp_path,
        id_field="id",
        weight_field="w",
    )
    assert [(row.id, row.weight) for row in rows[:1]] == [("k", 0.25)]
    assert [row.reason for row in rows[1:]] == ["no id", "no weight", "no weight", "no weight"]


@pytest.mark.parametrize(
    ("content", "data", "message"),
    [
        (
            "a,b\n1,2",
            {},
            "data.text_fields: .*in.csv has no column 'text'; the columns found are 'a', 'b'",
        ),
        ("text;labels\n1;2", {}, "data.text_fields: .*; the columns found are 'text;labels'"),
        ("text,b\n1,2", {}, "data.labels_field: .* has no column 'labels'"),
        ("text,x\n1,2", {"label_columns": ("x", "y")}, "data.label_columns: .* has no column 'y'"),
        ("text,labels\n", {"id_field": "id"}, "data.id_field: .* has no column 'id'"),
        ("text,labels\n", {"weight_field": "w"}, "data.weight_field: .* has no column 'w'"),
        (
            "text,labels\n",
            {"columns": ("a", "labels")},
            "data.text_fields: data.columns has no column 'text'",
        ),
        (
            "\n'text','labels'\na,b\n",
            {"columns": ("text", "labels"), "quote_character": "'"},
            "in.csv: its first row equals data.columns, so it is a header",
        ),
        (
            'text,"Late\ndelivery"\na,1\n',
            {"label_columns": ("Late\ndelivery",)},
            "data.label_columns: received 'Late.*expected names of labels",
        ),
        ("text,text,labels\n", {}, "in.csv: received several columns 'text', expected one"),
        (
            'text,"labels\n',
            {},
            "in.csv: its first row, which should name the columns, is wrong: not CSV",
        ),
        (b"te\xffxt,labels\n", {}, "is wrong: wrong encoding: received the byte 0xff"),
        ("x" * 100, {"max_row_bytes": 50}, "is wrong: row too long"),
    ],
)
def test_a_wrong_header_is_the_users_error_before_any_work(tmp_path, content, data, message):
    with pytest.raises(UserError, match=message):
        make(content, tmp_path, **data).files()


def test_every_files_header_is_looked_at_and_columns_may_stand_in_another_order(tmp_path):
    make("text,labels\na,x", tmp_path, name="a.csv")
    make("", tmp_path, name="b.csv")
    make("labels,more,text\ny,1,c", tmp_path, name="c.csv")
    reader = CsvReader(CsvData(source="csv", inputs=(f"{tmp_path}/*.csv",)))
    assert outline(row for file in reader.files() for row in reader.read(file)) == [
        (2, "a", ("x",)),
        (2, "c", ("y",)),
    ]
    make("text\na", tmp_path, name="d.csv")
    with pytest.raises(UserError, match="d.csv has no column 'labels'"):
        reader.files()


@pytest.mark.parametrize("content", [b"", b"text,labels\n", b"\xef\xbb\xbf"])
def test_an_empty_file_holds_no_documents(tmp_path, content):
    columns = {"columns": ("text", "labels")} if content == b"\xef\xbb\xbf" else {}
    assert read(content, tmp_path, **columns) == []


def test_a_compressed_file_that_is_cut_off_ends_in_a_reject_after_what_could_be_read(tmp_path):
    content = gzip.compress(
        b"text,labels\n" + b"".join(b"text %d,x\n" % (i * 7919 % 10007) for i in range(20_000))
    )
    rows = read(content[: len(content) // 2], tmp_path, name="in.csv.gz")
    last = rows.pop()
    assert last.reason == UNREADABLE and last.row > len(rows) > 1000
    assert not any(isinstance(row, Reject) for row in rows)


def test_half_a_character_at_the_end_is_a_reject(tmp_path):
    rows = read("text,labels\na,x\nb,x\n".encode("utf-16")[:-1], tmp_path, encoding="utf-16")
    assert isinstance(rows[-1], Reject)


def test_labels_of_columns_are_composed(tmp_path):
    column = "cafe\u0301"
    (row,) = read(f"text,{column}\na,1\n", tmp_path, label_columns=(column,))
    assert row.labels == ("caf\u00e9",)
