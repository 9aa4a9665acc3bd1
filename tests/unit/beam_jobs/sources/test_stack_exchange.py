"""Stack Exchange: questions with both forms of tags, and broken posts."""

from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.sections.data import StackExchangeData
from beam_jobs.sources import input_files
from beam_jobs.sources.documents import UNREADABLE, Document, Reject
from beam_jobs.sources.fields import TOO_LONG
from beam_jobs.sources.stack_exchange import StackExchangeReader

HEAD = '\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
TAIL = "</posts>"


def row(**attributes) -> str:
    values = {
        "Id": "1",
        "PostTypeId": "1",
        "Title": "A title",
        "Body": "<p>A body</p>",
        "Tags": "<x><y-z>",
    } | attributes
    return (
        "  <row "
        + " ".join(
            f"{key}={quoteattr(value)}" for key, value in values.items() if value is not None
        )
        + " />\n"
    )


def make(content: bytes | str, folder, **data) -> StackExchangeReader:
    (folder / "Posts.xml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return StackExchangeReader(
        StackExchangeData(source="stack_exchange", inputs=(str(folder / "Posts.xml"),), **data)
    )


def read(content: bytes | str, folder, **data) -> list[Document | Reject]:
    reader = make(content, folder, **data)
    return [row for file in reader.files() for row in reader.read(file)]


@pytest.mark.parametrize(
    ("tags", "labels"),
    [
        ("<x>", ("x",)),
        ("<c++><.net>", ("c++", ".net")),
        ("|x|", ("x",)),
        ("|c#|y-z|", ("c#", "y-z")),
        ("", ()),
        (None, ()),
    ],
)
def test_both_forms_of_tags_are_labels(tmp_path, tags, labels):
    (document,) = read(HEAD + row(Tags=tags) + TAIL, tmp_path)
    assert document.labels == labels


def test_questions_alone_are_documents_with_title_and_body(tmp_path):
    content = (
        HEAD
        + row(Id="4")
        + row(Id="5", PostTypeId="2", Title=None, Tags=None)
        + row(Id="6", PostTypeId="4", Title=None)
        + row(Id="7")
        + TAIL
    )
    rows = read(content, tmp_path)
    assert [(r.id, r.row) for r in rows] == [
        (f"{tmp_path}/Posts.xml:4", 3),
        (f"{tmp_path}/Posts.xml:7", 6),
    ]
    assert rows[0].texts[0] == "A title\n\n<p>A body</p>"
    (dated,) = read(HEAD + row(CreationDate="2014-01-21T20:26:05.383") + TAIL, tmp_path)
    assert (dated.time, rows[0].time) == ("2014-01-21T20:26:05.383", None)
    assert [r.texts[0] for r in read(content, tmp_path, text_fields=("title",))] == ["A title"] * 2
    assert [r.texts[0] for r in read(content, tmp_path, text_fields=("body", "title"))] == [
        "<p>A body</p>\n\nA title"
    ] * 2
    apart = read(
        content.replace('Id="7"', 'Id="7" Score="12"'),
        tmp_path,
        join_text_fields=False,
        metadata_fields=("Score",),
    )
    assert [(r.texts, r.metadata) for r in apart] == [
        (("A title", "<p>A body</p>"), score) for score in (("",), ("12",))
    ]


@given(
    body=st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"])
        | st.sampled_from("\n\t<>&\"'")
    )
)
def test_any_body_comes_through_as_an_xml_parser_reads_it(tmp_path_factory, body):
    line = row(Body=body).replace("\n", "&#xA;")[:-5] + "\n"
    (document,) = read(HEAD + line + TAIL, tmp_path_factory.getbasetemp(), text_fields=("body",))
    assert document.texts[0] == ElementTree.fromstring(line).get("Body")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('  <row Id="2" PostTypeId="1" Title="cut', "not XML"),
        ('  <row Id="2" PostTypeId="1" Body="a & b" />', "not XML"),
        ("no row", "not XML"),
        ('  <row Id="2" PostTypeId="1" Body="\0" />', "not XML"),
        (b'  <row Id="2" PostTypeId="1" Title="\xff" />', "not UTF-8"),
        ('  <comment Id="2" Text="a" />', "not a post"),
        ('  <row Id="2" Text="a" />', "not a post"),
        ('  <row PostTypeId="1" Title="a" Body="b" />', "no id"),
        ('  <row Id="2" PostTypeId="1" Title="a" />', "no text"),
        (row(Tags="<a\tb>").rstrip().replace("\t", "&#9;"), "label is not printable"),
        (row(Tags=f"<{'x' * 10_000}>").rstrip(), "label is too long"),
        (row(Body="x" * 20_000_000).rstrip(), TOO_LONG),
    ],
)
def test_a_broken_post_in_the_middle_is_a_reject_and_those_around_it_are_read(
    tmp_path, line, reason
):
    line = line if isinstance(line, bytes) else line.encode()
    first, reject, last = read(
        HEAD.encode() + row().encode() + line + b"\n" + row(Id="3").encode() + TAIL.encode(),
        tmp_path,
    )
    assert (first.row, reject.row, reject.reason, last.row) == (3, 4, reason, 5)
    assert reject.source == f"{tmp_path}/Posts.xml" and line.decode(
        "utf-8", "replace"
    ).strip().startswith(reject.content)


def test_a_file_that_ends_before_its_end_is_a_reject(tmp_path):
    rows = read(HEAD + row() + row(Id="2")[:40], tmp_path)
    assert [getattr(r, "reason", None) for r in rows] == [None, "not XML", UNREADABLE]
    assert [getattr(r, "reason", None) for r in read(HEAD + row(), tmp_path)] == [None, UNREADABLE]
    assert read(b"", tmp_path) == []


@pytest.mark.parametrize("end", [TAIL, "", row(Id="9", Body="b" * 500)[:-9]])
def test_an_end_is_noticed_once_in_whatever_range_its_line_begins(tmp_path, end):
    reader = make(HEAD + row() * 3 + end, tmp_path)
    (file,) = reader.files()
    pieces = [
        piece for part in input_files.parts([file], part_bytes=1, range_bytes=150) for piece in part
    ]
    assert len(pieces) > 2
    assert [row for piece in pieces for row in reader.read(piece)] == list(reader.read(file))


def test_entities_of_a_documents_own_are_refused(tmp_path):
    content = (
        '<!DOCTYPE posts [<!ENTITY a "aaaa">]>\n<posts>\n'
        + row().replace("A title", "&a;&a;")
        + TAIL
    )
    assert {r.reason for r in read(content.replace("&amp;a;", "&a;"), tmp_path)} == {"not XML"}


@given(types=st.lists(st.sampled_from("12x"), max_size=20), range_bytes=st.integers(1, 400))
def test_ranges_hold_together_what_the_whole_file_holds(tmp_path_factory, types, range_bytes):
    content = (
        HEAD
        + "".join(row(Id=f"{i}", PostTypeId=kind) for i, kind in enumerate(types))
        + TAIL
        + "\n"
    )
    reader = make(content, tmp_path_factory.getbasetemp())
    (file,) = reader.files()
    pieces = [
        piece
        for part in input_files.parts([file], part_bytes=1, range_bytes=range_bytes)
        for piece in part
    ]
    assert [r for piece in pieces for r in reader.read(piece)] == list(reader.read(file))
    assert sum(kind == "1" for kind in types) == len(list(reader.read(file)))


@pytest.mark.parametrize(
    "reference", ["&#x0E;", "&#1;", "&#0;", "&#xFFFF;", "&#xd800;", "&#x110000;", "&#99999999;"]
)
def test_references_to_forbidden_characters_are_dropped_and_the_question_is_read(
    tmp_path, reference
):
    line = f'  <row Id="2" PostTypeId="1" Body="a{reference} &amp;#1; &#233;" Tags="&lt;t&gt;" />\n'
    (document,) = read(HEAD + line + TAIL, tmp_path, text_fields=("body",))
    assert (document.texts, document.labels) == (("a &#1; é",), ("t",))
