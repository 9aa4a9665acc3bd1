"""JSON files that are one array of objects."""

import gzip
import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import JsonlData
from beam_jobs.sources import json_array
from beam_jobs.sources.documents import UNREADABLE, Document
from beam_jobs.sources.fields import TOO_LONG
from beam_jobs.sources.input_files import parts
from beam_jobs.sources.jsonl import JsonlReader

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def reader_of(content: bytes, folder, name="in.json", **data) -> JsonlReader:
    (folder / name).write_bytes(content)
    return JsonlReader(JsonlData(source="jsonl", inputs=(str(folder / name),), **data))


def read(content: bytes, folder, **data) -> list:
    reader = reader_of(content, folder, **data)
    return [row for file in reader.files() for row in reader.read(file)]


def outline(rows: list) -> list[tuple]:
    return [
        (row.row, *row.texts) if isinstance(row, Document) else (row.row, row.reason)
        for row in rows
    ]


@pytest.mark.parametrize(
    "content",
    [
        b'[{"text": "a", "labels": []}, {"text": "b]", "labels": ["x"]}]',
        b'\n[\n{"text": "a", "labels": []},\n{"text": "b]", "labels": []}\n]\n',
        b'\xef\xbb\xbf [\n  {\n    "text": "a",\n "labels": []},{"text": "b]", "labels": []}]',
        '[{"text": "a", "labels": []}, {"text": "b]", "labels": []}]'.encode("utf-16"),
        gzip.compress(b'[{"text": "a", "labels": []}, {"text": "b]", "labels": []}]', mtime=0),
        b" " * 5000 + b'[{"text": "a", "labels": []}\n, {"text": "b]", "labels": []}]',
    ],
)
def test_the_objects_of_an_array_are_documents_numbered_from_1(tmp_path, content):
    assert outline(read(content, tmp_path)) == [(1, "a"), (2, "b]")]


@pytest.mark.parametrize("content", [b"[]", b" [ \n ] \n"])
def test_an_empty_array_holds_no_documents(tmp_path, content):
    assert read(content, tmp_path) == []


def test_a_broken_element_is_a_reject_and_the_others_are_read(tmp_path):
    content = (
        b'[{"text": "a", "labels": ["x"]}, {"text" "b"}, 3, [1, 2], , {"text": "a", "text": "b"},\n'
        b'{"text": "\xff", "labels": []}, {"text": "' + b"c" * 300 + b'", "labels": []},\n'
        b'{"text": "d", "labels": "x"}, {"text": "e\\"]", "labels": []},]'
    )
    rows = read(content, tmp_path, max_row_bytes=200)
    assert outline(rows) == [
        (1, "a"),
        (2, "not JSON"),
        (3, "not an object"),
        (4, "not an object"),
        (5, "not JSON"),
        (6, "key is there twice"),
        (7, "not UTF-8"),
        (8, TOO_LONG),
        (9, "labels are not a list"),
        (10, 'e"]'),
        (11, "not JSON"),
    ]
    assert rows[1].content == '{"text" "b"}'


@pytest.mark.parametrize(
    ("content", "row", "detail"),
    [
        (b'[{"text": "a", "labels": []}', 1, "the file ends within its JSON array"),
        (b'[{"text": "a", "labels": []}, {"text": "b', 2, "the file ends within"),
        (b'[\n{"text": "a", "labels": []}]\n[{"text": "b"}]', 2, "goes on after its JSON array"),
        (b"[", 1, "the file ends within"),
        (
            gzip.compress(b'[{"text": "a", "labels": []}, {"text": "b"}]', mtime=0)[:-12],
            1,
            "EOFError",
        ),
    ],
)
def test_an_array_that_is_cut_off_or_goes_on_cannot_be_read_to_its_end(
    tmp_path, content, row, detail
):
    last = read(content, tmp_path)[-1]
    assert (last.row, last.reason) == (row, UNREADABLE) and detail in last.detail


def test_lines_of_which_some_are_arrays_are_lines(tmp_path):
    good = b'{"text": "a", "labels": []}'
    content = b'["x"]\n' + good + b"\n[1]\n"
    assert outline(read(content, tmp_path)) == [
        (1, "not an object"),
        (2, "a"),
        (3, "not an object"),
    ]


def test_an_array_is_read_as_a_whole_and_its_fields_are_checked(tmp_path):
    rows = [{"text": f"text {i}", "labels": []} for i in range(1000)]
    reader = reader_of(json.dumps(rows).encode(), tmp_path)
    (file,) = reader.files()
    ((piece,),) = parts([file], part_bytes=1, range_bytes=100)
    assert [row.texts[0] for row in reader.read(piece)] == [row["text"] for row in rows]
    reader = reader_of(json.dumps(rows).encode(), tmp_path, text_fields=("body",))
    with pytest.raises(UserError, match="no column 'body'; the columns found are 'text', 'labels'"):
        reader.files()


@given(st.lists(VALUE, max_size=6), st.sampled_from([None, 1, "\t"]), st.integers(1, 40))
def test_the_elements_are_those_of_pythons_parser_however_the_file_is_cut(values, indent, block):
    content = json.dumps(values, indent=indent).encode()

    class Pieces(io.BytesIO):
        def read(self, size):
            return super().read(block)

    found = list(json_array.elements(Pieces(content), 1 << 20))
    assert [(number, json.loads(element)) for number, element, _ in found] == list(
        enumerate(values, start=1)
    )
    assert all(is_whole for _, _, is_whole in found)


def test_an_array_takes_little_memory_however_long_it_and_its_elements_are(tmp_path):
    element = b'{"text": "' + b"b" * 100_000 + b'", "labels": []},'
    content = b'[{"text": "' + b"a" * 6_000_000 + b'", "labels": []},' + element * 20 + b"3]"
    reader = reader_of(content, tmp_path, max_row_bytes=1 << 18)
    (file,) = reader.files()
    del content
    tracemalloc.start()
    reasons = [getattr(row, "reason", None) for row in reader.read(file)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reasons == [TOO_LONG, *[None] * 20, "not an object"]
    assert peak < 4 << 20
