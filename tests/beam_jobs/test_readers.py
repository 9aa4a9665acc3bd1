"""The JSONL reader: what becomes a document, what becomes a reject and why, and which files are found."""

import bz2
import gzip
import json
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs import readers
from beam_jobs.contract.config import JsonlData
from beam_jobs.contract.errors import UserError
from beam_jobs.documents import MAX_REJECT_CONTENT, UNREADABLE, Document, Reject
from beam_jobs.inputs import InputFile
from beam_jobs.readers import MAX_WEIGHT, PART_BYTES, JsonlReader

EXTENSIONS = {gzip: "gz", bz2: "bz2", lzma: "xz"}
GOOD = b'{"text": "a", "labels": ["x"]}'


def read(content: bytes, folder, **data) -> list[Document | Reject]:
    path = folder / "in.jsonl"
    path.write_bytes(content)
    reader = JsonlReader(JsonlData(source="jsonl", inputs=(str(path),), **data))
    return [row for file in reader.files() for row in reader.read(file)]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"text": "a"', "not JSON", "delimiter"),
        (b'{"text": "\xff", "labels": []}', "not UTF-8", "0xff"),
        (b'["a"]', "not an object", "list"),
        (b"null", "not an object", "NoneType"),
        (b'{"labels": []}', "no text", "'text' is missing or null; the row has 'labels'"),
        (b'{"text": null, "labels": []}', "no text", "missing or null"),
        (b'{"text": 3, "labels": []}', "text is no string", "text: received 3"),
        (b'{"text": "a"}', "no labels", "'labels' is missing"),
        (b'{"text": "a", "labels": "x"}', "labels are no list", "label_delimiter"),
        (b'{"text": "a", "labels": {"x": 1}}', "labels are no list", "received {'x': 1}"),
        (b'{"text": "a", "labels": ["x", 1]}', "label is no string", "['x', 1]"),
        (b'{"text": "a", "labels": [" "]}', "label is no string", "not empty"),
        (b'{"text": "a", "labels": ["x\\ny"]}', "label is not printable", "line breaks"),
        (b'{"text": "a", "labels": ["\\ud800"]}', "label is not printable", "ud800"),
        (b"9" * 5000, "not JSON", "4300"),
        (b"[" * 200_000 + b"]" * 200_000, "not JSON", "recursion"),
        (b"\x00", "not JSON", "Expecting value"),
    ],
)
def test_a_wrong_row_is_a_reject_that_tells_file_row_and_reason(tmp_path, line, reason, detail):
    first, rejected, last = read(GOOD + b"\n" + line + b"\r\n" + GOOD, tmp_path)
    assert (first.text, first.row, last.row) == ("a", 1, 3)
    assert isinstance(rejected, Reject)
    assert (rejected.source, rejected.row, rejected.reason) == (str(tmp_path / "in.jsonl"), 2, reason)
    assert detail in rejected.detail
    assert rejected.content == line[:MAX_REJECT_CONTENT].decode("utf-8", "replace")


@pytest.mark.parametrize("value", [b"-1", b"NaN", b"Infinity", b'"1"', b"true", b"null", b"1e39", b"1" + b"0" * 400, None])
def test_a_weight_that_no_float32_of_0_or_more_holds_is_a_reject(tmp_path, value):
    weight = b"" if value is None else b', "w": ' + value
    (row,) = read(b'{"text": "a", "labels": []' + weight + b"}", tmp_path, weight_field="w")
    assert (row.reason, row.row) == ("no weight", 1)
    assert row.detail.startswith("w: received ")


@pytest.mark.parametrize(("value", "weight"), [(b"0", 0.0), (b"2", 2.0), (b"0.25", 0.25), (repr(MAX_WEIGHT).encode(), MAX_WEIGHT)])
def test_a_weight_is_read_as_a_float(tmp_path, value, weight):
    (row,) = read(b'{"text": "a", "labels": [], "w": ' + value + b"}", tmp_path, weight_field="w")
    assert row.weight == weight and isinstance(row.weight, float)


@pytest.mark.parametrize("value", [None, b"null", b'""', b"true", b"1.5", b"[1]"])
def test_a_missing_or_odd_id_is_a_reject(tmp_path, value):
    name = b"" if value is None else b', "key": ' + value
    (row,) = read(b'{"text": "a", "labels": []' + name + b"}", tmp_path, id_field="key")
    assert (row.reason, row.row) == ("no id", 1)


@pytest.mark.parametrize(("value", "expected"), [(b'"k"', "k"), (b"7", "7"), (b"1" * 4000, "1" * 4000)])
def test_an_id_is_a_string_or_an_integer(tmp_path, value, expected):
    (row,) = read(b'{"text": "a", "labels": [], "key": ' + value + b"}", tmp_path, id_field="key")
    assert row.id == expected


def test_without_an_id_field_the_id_is_file_and_row(tmp_path):
    assert [row.id for row in read(GOOD + b"\n\n" + GOOD, tmp_path)] == [f"{tmp_path}/in.jsonl:1", f"{tmp_path}/in.jsonl:3"]


def test_blank_lines_are_skipped_and_still_count_as_rows(tmp_path):
    assert [row.row for row in read(b"\n \t\r\n" + GOOD + b"\n\n" + GOOD + b"\n", tmp_path)] == [3, 5]
    assert read(b"", tmp_path) == read(b"\n\n", tmp_path) == []


def test_several_text_fields_are_joined_by_a_blank_line_in_the_configs_order(tmp_path):
    (row,) = read(b'{"body": "b", "title": "t", "labels": []}', tmp_path, text_fields=("title", "body"))
    assert row.text == "t\n\nb"
    (row,) = read(b'{"title": "t", "labels": []}', tmp_path, text_fields=("title", "body"))
    assert row.reason == "no text" and "'body'" in row.detail


def test_labels_are_stripped_and_null_means_none(tmp_path):
    rows = read(b'{"text": "a", "labels": [" x ", "y\\n"]}\n{"text": "a", "labels": null}\n{"text": "a", "labels": []}', tmp_path)
    assert [row.labels for row in rows] == [("x", "y"), (), ()]


def test_a_label_delimiter_splits_one_string(tmp_path):
    lines = [{"text": "a", "labels": labels} for labels in ("x; y;;z ", "", " ", "x y", ["x"], "a\nb;c", None)]
    rows = read(b"\n".join(json.dumps(line).encode() for line in lines), tmp_path, label_delimiter=";")
    assert [row.labels for row in rows[:4]] == [("x", "y", "z"), (), (), ("x y",)]
    assert [getattr(row, "reason", None) for row in rows[4:]] == ["labels are no string", "label is not printable", None]


@given(text=st.text(st.characters(codec=None), max_size=40))
def test_any_text_comes_through_json_as_it_is(tmp_path_factory, text):
    (row,) = read(json.dumps({"text": text, "labels": []}).encode(), tmp_path_factory.getbasetemp())
    assert row.text == text


def test_lone_surrogates_and_nul_are_text(tmp_path):
    rows = read(b'{"text": "\\ud83d x \\u0000", "labels": []}', tmp_path)
    assert [row.text for row in rows] == ["\ud83d x \0"]


@pytest.mark.parametrize("codec", [gzip, bz2, lzma])
def test_compressed_files_are_opened_by_their_extension(tmp_path, codec):
    lines = [json.dumps({"text": f"t{i}", "labels": []}).encode() for i in range(5000)]
    rows = read_compressed(codec.compress(b"\n".join(lines)), codec, tmp_path)
    assert [(row.text, row.row) for row in rows] == [(f"t{i}", i + 1) for i in range(5000)]


@pytest.mark.parametrize("codec", [gzip, bz2, lzma])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_file_ends_in_a_reject_after_what_could_be_read(tmp_path, codec, damage):
    lines = [json.dumps({"text": f"t{i * i * 7919 % 1_000_003}", "labels": []}).encode() for i in range(100_000)]
    content = codec.compress(b"\n".join(lines))
    half = len(content) // 2
    rows = read_compressed(content[:half] if damage == "cut" else content[:half] + bytes(100) + content[half + 100 :], codec, tmp_path)
    last = rows.pop()
    assert (last.reason, last.source) == (UNREADABLE, str(tmp_path / f"in.{EXTENSIONS[codec]}"))
    assert 0 < len(rows) < 100_000 and last.row > rows[-1].row


def read_compressed(content: bytes, codec, folder) -> list[Document | Reject]:
    path = folder / f"in.{EXTENSIONS[codec]}"
    path.write_bytes(content)
    reader = JsonlReader(JsonlData(source="jsonl", inputs=(str(path),)))
    return [row for file in reader.files() for row in reader.read(file)]


def test_a_file_that_has_gone_is_a_reject_and_no_crash(tmp_path):
    reader = JsonlReader(JsonlData(source="jsonl", inputs=("x",)))
    (reject,) = reader.read(InputFile("gone", str(tmp_path / "gone"), 1))
    assert (reject.source, reject.row, reject.reason) == ("gone", 1, UNREADABLE)


def test_globs_find_each_file_once_in_the_order_of_names(tmp_path, monkeypatch):
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    files = readers.match_files(["*.jsonl", "./a.jsonl", "sub/*", str(tmp_path / "b.jsonl")])
    assert [file.name for file in files] == ["a.jsonl", "b.jsonl", "sub/c.jsonl"]
    assert [file.path for file in files] == [str(tmp_path / file.name) for file in files]  # found from any working directory
    assert {file.bytes for file in files} == {len(GOOD)}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nothing-*.jsonl", "no file matches 'nothing-\\*.jsonl'"),
        ("/nowhere/at/all.jsonl", "no file matches"),
        (".", "is a directory; expected files, such as './\\*.jsonl'"),
        ("hdfs://host/x.jsonl", "cannot look for 'hdfs://host/x.jsonl'"),
        ("nosuch://x", "cannot look for 'nosuch://x'"),
    ],
)
def test_a_pattern_without_files_is_the_users_error(tmp_path, monkeypatch, pattern, message):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"data.inputs: .*{message}"):
        readers.match_files(["a.jsonl", pattern])


def test_the_input_hash_sees_names_and_sizes_and_no_place():
    a, b = InputFile("a", "/x/a", 1), InputFile("b", "/x/b", 2)
    assert readers.input_hash([a, b]) == readers.input_hash([InputFile("a", "/y/a", 1), InputFile("b", "/y/b", 2)])
    others = [[a], [b, a], [InputFile("c", "/x/a", 1), b], [InputFile("a", "/x/a", 3), b], [InputFile("a\udcff", "/x/a", 1), b]]
    hashes = {readers.input_hash(files) for files in [[a, b], *others]}
    assert len(hashes) == len(others) + 1


@given(st.lists(st.integers(0, 2 * PART_BYTES)))
def test_parts_hold_every_file_once_in_order_and_none_is_much_larger_than_its_last_file(sizes):
    files = [InputFile(str(i), str(i), size) for i, size in enumerate(sizes)]
    parts = readers.parts(files)
    assert [file for part in parts for file in part] == files
    assert all(part for part in parts)
    for part in parts:
        assert sum(file.bytes for file in part[:-1]) < PART_BYTES
    for part in parts[:-1]:
        assert sum(file.bytes for file in part) >= PART_BYTES
