"""The JSONL reader: documents, rejects and their reasons, in whole files and in ranges."""

import bz2
import gzip
import json
import lzma
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import JsonlData
from beam_jobs.sources import input_files
from beam_jobs.sources.documents import (
    BLANK_LINE,
    MAX_REJECT_CONTENT,
    UNREADABLE,
    Document,
    Reject,
)
from beam_jobs.sources.fields import MAX_WEIGHT, TOO_LONG
from beam_jobs.sources.input_files import InputFile
from beam_jobs.sources.jsonl import JsonlReader

EXTENSIONS = {gzip: "gz", bz2: "bz2", lzma: "xz", zstandard: "zst"}
GOOD = b'{"text": "a", "labels": ["x"]}'


def read(content: bytes, folder, **data) -> list[Document | Reject]:
    path = folder / "in.jsonl"
    path.write_bytes(content)
    reader = JsonlReader(JsonlData(source="jsonl", inputs=(str(path),), **data))
    return [
        row
        for file in input_files.match_files([str(path)], unit="line")
        for row in reader.read(file)
    ]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"text": "a"', "not JSON", "delimiter"),
        (b'{"text": "\xff", "labels": []}', "not UTF-8", "0xff"),
        (b'["a"]', "not an object", "list"),
        (b"null", "not an object", "NoneType"),
        (b'{"labels": []}', "no text", "'text' is missing or null; the row has 'labels'"),
        (b'{"text": null, "labels": []}', "no text", "missing or null"),
        (b'{"text": 3, "labels": []}', "text is not a string", "text: received 3"),
        (b'{"text": "a"}', "no labels", "or data.missing_labels: none, where a missing"),
        (b'{"text": "a", "text": "b", "labels": []}', "key is there twice", "received 'text'"),
        (b'{"text": "a", "labels": [], "x": {"y": 1, "y": 1}}', "key is there twice", "'y' twice"),
        (b'{"text": "a", "labels": ["x\\u2028y"]}', "label is not printable", "line breaks"),
        (b'{"text": "a", "labels": "x"}', "labels are not a list", "label_delimiter"),
        (b'{"text": "a", "labels": {"x": 1}}', "labels are not a list", "received {'x': 1}"),
        (b'{"text": "a", "labels": ["x", 1]}', "label is not a string", "['x', 1]"),
        (b'{"text": "a", "labels": [" "]}', "label is not a string", "not empty"),
        (b'{"text": "a", "labels": ["x\\ny"]}', "label is not printable", "line breaks"),
        (b'{"text": "a", "labels": ["\\ud800"]}', "label is not printable", "ud800"),
        (b"9" * 5000, "not JSON", "4300"),
        (b"[" * 200_000 + b"]" * 200_000, "not JSON", "recursion"),
        (b"\x00", "not JSON", "Expecting value"),
    ],
)
def test_a_wrong_row_is_a_reject_that_tells_file_row_and_reason(tmp_path, line, reason, detail):
    first, rejected, last = read(GOOD + b"\n" + line + b"\r\n" + GOOD, tmp_path)
    assert (first.texts[0], first.row, last.row) == ("a", 1, 3)
    assert isinstance(rejected, Reject)
    assert (rejected.source, rejected.row, rejected.reason) == (
        str(tmp_path / "in.jsonl"),
        2,
        reason,
    )
    assert detail in rejected.detail
    assert rejected.content == line[:MAX_REJECT_CONTENT].decode("utf-8", "replace")


@pytest.mark.parametrize(
    "value",
    [b"-1", b"NaN", b"Infinity", b'"1"', b"true", b"null", b"1e39", b"1" + b"0" * 400, None],
)
def test_a_weight_that_no_float32_of_0_or_more_holds_is_a_reject(tmp_path, value):
    weight = b"" if value is None else b', "w": ' + value
    (row,) = read(b'{"text": "a", "labels": []' + weight + b"}", tmp_path, weight_field="w")
    assert (row.reason, row.row) == ("no weight", 1)
    assert row.detail.startswith("w: received ")


@pytest.mark.parametrize(
    ("value", "weight"),
    [(b"0", 0.0), (b"2", 2.0), (b"0.25", 0.25), (repr(MAX_WEIGHT).encode(), MAX_WEIGHT)],
)
def test_a_weight_is_read_as_a_float(tmp_path, value, weight):
    (row,) = read(b'{"text": "a", "labels": [], "w": ' + value + b"}", tmp_path, weight_field="w")
    assert row.weight == weight and isinstance(row.weight, float)


@pytest.mark.parametrize("value", [None, b"null", b'""', b"true", b"1.5", b"[1]"])
def test_a_missing_or_odd_id_is_a_reject(tmp_path, value):
    name = b"" if value is None else b', "key": ' + value
    (row,) = read(b'{"text": "a", "labels": []' + name + b"}", tmp_path, id_field="key")
    assert (row.reason, row.row) == ("no id", 1)


@pytest.mark.parametrize(
    ("value", "expected"), [(b'"k"', "k"), (b"7", "7"), (b"1" * 4000, "1" * 4000)]
)
def test_an_id_is_a_string_or_an_integer(tmp_path, value, expected):
    (row,) = read(b'{"text": "a", "labels": [], "key": ' + value + b"}", tmp_path, id_field="key")
    assert row.id == expected


def test_without_an_id_field_the_id_is_file_and_row(tmp_path):
    first, _, last = read(GOOD + b"\n\n" + GOOD, tmp_path)
    assert (first.id, last.id) == (f"{tmp_path}/in.jsonl:1", f"{tmp_path}/in.jsonl:3")


def test_each_blank_line_is_a_counted_reject(tmp_path):
    rows = read(b"\n \t\r\n" + GOOD + b"\n\n" + GOOD + b"\n", tmp_path)
    assert [(row.row, getattr(row, "reason", None)) for row in rows] == [
        (1, BLANK_LINE),
        (2, BLANK_LINE),
        (3, None),
        (4, BLANK_LINE),
        (5, None),
    ]
    assert read(b"", tmp_path) == []
    assert [row.row for row in read(b"\n\n", tmp_path)] == [1, 2]


def test_several_text_fields_are_joined_by_a_blank_line_in_the_configs_order(tmp_path):
    (row,) = read(
        b'{"body": "b", "title": "t", "labels": []}', tmp_path, text_fields=("title", "body")
    )
    assert row.texts[0] == "t\n\nb"
    (row,) = read(b'{"title": "t", "labels": []}', tmp_path, text_fields=("title", "body"))
    assert row.reason == "no text" and "'body'" in row.detail


def test_text_fields_stay_apart_on_request_and_metadata_comes_with_them(tmp_path):
    apart = {
        "text_fields": ("title", "body"),
        "join_text_fields": False,
        "metadata_fields": ("section", "year"),
    }
    rows = read(
        b'{"body": "b", "title": "", "labels": [], "section": "x", "year": 7}\n{"body": "", '
        b'"title": "t", "labels": []}',
        tmp_path,
        **apart,
    )
    assert [(row.texts, row.metadata) for row in rows] == [
        (("", "b"), ("x", "7")),
        (("t", ""), ("", "")),
    ]


def test_labels_are_stripped_and_null_means_none(tmp_path):
    rows = read(
        b'{"text": "a", "labels": [" x ", "y\\n"]}\n{"text": "a", "labels": null}\n{"text": '
        b'"a", "labels": []}',
        tmp_path,
    )
    assert [row.labels for row in rows] == [("x", "y"), (), ()]


def test_a_label_delimiter_splits_one_string(tmp_path):
    lines = [
        {"text": "a", "labels": labels}
        for labels in ("x; y;;z ", "", " ", "x y", ["x"], "a\nb;c", None)
    ]
    rows = read(
        b"\n".join(json.dumps(line).encode() for line in lines), tmp_path, label_delimiter=";"
    )
    assert [row.labels for row in rows[:4]] == [("x", "y", "z"), (), (), ("x y",)]
    assert [getattr(row, "reason", None) for row in rows[4:]] == [
        "labels are not a string",
        "label is not printable",
        None,
    ]


@given(text=st.text(st.characters(codec=None), max_size=40))
def test_any_text_comes_through_json_as_it_is(tmp_path_factory, text):
    (row,) = read(json.dumps({"text": text, "labels": []}).encode(), tmp_path_factory.getbasetemp())
    assert row.texts[0] == text


def test_lone_surrogates_and_nul_are_text(tmp_path):
    rows = read(b'{"text": "\\ud83d x \\u0000", "labels": []}', tmp_path)
    assert [row.texts[0] for row in rows] == ["\ud83d x \0"]


@pytest.mark.parametrize("codec", EXTENSIONS)
def test_compressed_files_are_opened_by_their_extension(tmp_path, codec):
    lines = [json.dumps({"text": f"t{i}", "labels": []}).encode() for i in range(5000)]
    rows = read_compressed(compressed(codec, b"\n".join(lines)), codec, tmp_path)
    assert [(row.texts[0], row.row) for row in rows] == [(f"t{i}", i + 1) for i in range(5000)]


@pytest.mark.parametrize("codec", EXTENSIONS)
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_file_ends_in_a_reject_after_what_could_be_read(tmp_path, codec, damage):
    lines = [
        json.dumps({"text": f"t{i * i * 7919 % 1_000_003}", "labels": []}).encode()
        for i in range(20_000)
    ]
    content = compressed(codec, b"\n".join(lines))
    half = len(content) // 2
    rows = read_compressed(
        content[:half] if damage == "cut" else content[:half] + bytes(100) + content[half + 100 :],
        codec,
        tmp_path,
    )
    last = rows.pop()
    assert (last.reason, last.source) == (UNREADABLE, str(tmp_path / f"in.{EXTENSIONS[codec]}"))
    assert 0 < len(rows) < 20_000 and last.row > rows[-1].row


def compressed(codec, content: bytes) -> bytes:
    """Compressed in small blocks, quickly."""
    if codec is zstandard:
        return b"".join(
            zstandard.compress(content[at : at + 50_000], 1)
            for at in range(0, len(content), 50_000)
        )
    return codec.compress(content, **{"preset" if codec is lzma else "compresslevel": 1})


def read_compressed(content: bytes, codec, folder) -> list[Document | Reject]:
    path = folder / f"in.{EXTENSIONS[codec]}"
    path.write_bytes(content)
    reader = JsonlReader(JsonlData(source="jsonl", inputs=(str(path),)))
    (file,) = reader.files()
    assert file.unit is None  # it can only be read as a whole
    return list(reader.read(file))


def test_a_file_that_has_gone_is_a_reject_and_no_crash(tmp_path):
    reader = JsonlReader(JsonlData(source="jsonl", inputs=("x",)))
    (reject,) = reader.read(InputFile("gone", str(tmp_path / "gone"), 1))
    assert (reject.source, reject.row, reject.reason) == ("gone", 1, UNREADABLE)


@pytest.mark.parametrize("codec", EXTENSIONS)
def test_an_empty_file_holds_no_documents_whether_it_is_compressed_or_not(tmp_path, codec):
    assert read_compressed(compressed(codec, b""), codec, tmp_path) == []
    assert read(b"", tmp_path) == []


def test_a_compressed_file_with_the_wrong_extension_is_one_reject(tmp_path):
    (reject,) = read_compressed(GOOD, gzip, tmp_path)
    assert (reject.reason, reject.row) == (UNREADABLE, 1) and "BadGzipFile" in reject.detail


def test_a_very_long_row_is_a_reject_and_is_never_held_in_memory(tmp_path):
    limit = 1 << 20
    long = b'{"text": "' + b"x" * 20_000_000 + b'", "labels": []}'
    (tmp_path / "in.jsonl").write_bytes(GOOD + b"\n" + long + b"\n" + GOOD)
    reader = JsonlReader(
        JsonlData(source="jsonl", inputs=(str(tmp_path / "in.jsonl"),), max_row_bytes=limit)
    )
    tracemalloc.start()
    rows = [row for file in reader.files() for row in reader.read(file)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(row.row, getattr(row, "reason", None)) for row in rows] == [
        (1, None),
        (2, TOO_LONG),
        (3, None),
    ]
    assert (
        rows[1].detail == "longer than data.max_row_bytes = 1,048,576"
        and len(rows[1].content) == MAX_REJECT_CONTENT
    )
    assert peak < 10 * limit


@pytest.mark.parametrize(("length", "is_long"), [(len(GOOD), False), (len(GOOD) - 1, True)])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_longest_row_is_the_longest_that_max_row_bytes_allows(tmp_path, length, is_long, end):
    rows = read(GOOD + end, tmp_path, max_row_bytes=length)
    assert [isinstance(row, Reject) for row in rows] == [is_long]


def test_a_byte_order_mark_before_the_first_row_is_no_part_of_it(tmp_path):
    assert [row.texts[0] for row in read(b"\xef\xbb\xbf" + GOOD, tmp_path)] == ["a"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"id_field": "key"},
            "data.id_field: .*in.jsonl has no column 'key'; the columns found are 'text', "
            "'labels', 'tags' in its first 100 rows",
        ),
        ({"text_fields": ("text", "body")}, "data.text_fields: .* has no column 'body'"),
        ({"labels_field": "Labels"}, "data.labels_field: .* has no column 'Labels'"),
        ({"weight_field": "w"}, "data.weight_field: .* has no column 'w'"),
        ({"label_columns": ("x", "labels", "y")}, "data.label_columns: .* has no column 'x', 'y'"),
    ],
)
def test_a_field_that_no_row_has_is_the_users_error_before_any_work(tmp_path, data, message):
    (tmp_path / "in.jsonl").write_bytes(b"broken\n" + GOOD + b'\n{"tags": 1}\n')
    reader = JsonlReader(JsonlData(source="jsonl", inputs=(str(tmp_path / "in.jsonl"),), **data))
    with pytest.raises(UserError, match=message):
        reader.files()


def test_a_field_that_some_rows_have_is_no_error(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "a"}\n' + GOOD)
    assert (
        len(JsonlReader(JsonlData(source="jsonl", inputs=(str(tmp_path / "in.jsonl"),))).files())
        == 1
    )


# --- ranges ----------------------------------------------------------------------------

LONG = b'{"text": "' + b"long " * 20 + b'", "labels": []}'
LINES = st.lists(st.sampled_from([b"", b"\r", b" " * 50, b"{", GOOD, LONG]), max_size=30)


@given(
    lines=LINES,
    ends_in_line_end=st.booleans(),
    range_bytes=st.integers(1, 300),
    max_row_bytes=st.sampled_from([5, 40, 1000]),
)
def test_ranges_of_a_file_hold_together_what_the_whole_file_holds_with_the_same_rows(
    tmp_path_factory, lines, ends_in_line_end, range_bytes, max_row_bytes
):
    path = tmp_path_factory.getbasetemp() / "ranges.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n" * ends_in_line_end)
    reader = JsonlReader(
        JsonlData(source="jsonl", inputs=(str(path),), max_row_bytes=max_row_bytes)
    )
    (file,) = input_files.match_files([str(path)], unit="line")
    pieces = [
        piece
        for part in input_files.parts([file], part_bytes=1, range_bytes=range_bytes)
        for piece in part
    ]
    assert (
        sum(piece.bytes for piece in pieces) == file.bytes
        and max(piece.bytes for piece in pieces) <= 2 * range_bytes
    )
    assert [row for piece in pieces for row in reader.read(piece)] == list(reader.read(file))


def test_an_object_over_several_lines_is_refused_before_any_work(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{\n  "text": "a",\n  "labels": []\n}\n')
    data = JsonlData(source="jsonl", inputs=(str(tmp_path / "a.json"),))
    with pytest.raises(UserError, match="a.json: received a JSON object over several lines, exp"):
        JsonlReader(data).files()


def test_a_missing_label_field_means_no_labels_on_request(tmp_path):
    content = b'{"text": "a"}\n{"text": "b", "labels": ["x"]}\n{"text": "c", "labels": null}'
    rows = read(content, tmp_path, missing_labels="none")
    assert [row.labels for row in rows] == [(), ("x",), ()]
    reader = JsonlReader(
        JsonlData(
            source="jsonl",
            inputs=(str(tmp_path / "in.jsonl"),),
            missing_labels="none",
            labels_field="tags",  # which none of the first rows has
        )
    )
    assert len(reader.files()) == 1


def test_metadata_of_any_type_is_text(tmp_path):
    values = {"a": 4.5, "b": True, "c": None, "d": {"x": ["é", 1]}, "e": 3, "f": "s", "g": [1.0]}
    content = json.dumps({"text": "t", "labels": []} | values).encode()
    (row,) = read(content, tmp_path, metadata_fields=(*values, "absent"))
    assert row.metadata == ("4.5", "true", "", '{"x": ["é", 1]}', "3", "s", "[1.0]", "")


def test_labels_keep_joiners_and_spaces_and_are_composed(tmp_path):
    labels = [
        "New\u00a0York",
        "کتاب\u200cخانه",
        "👨\u200d👩\u200d👧",
        "東京\u3000大阪",
        "cafe\u0301",
    ]
    content = json.dumps({"text": "t", "labels": labels}).encode()
    (row,) = read(content, tmp_path)
    assert row.labels == (*labels[:-1], "caf\u00e9")
