"""Text files with a document a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import FasttextData, LinesData
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.input_files import parts
from beam_jobs.sources.lines import FasttextReader, LinesReader


def read(content: bytes, folder, *, range_bytes=1 << 20, **data) -> list[Document | Reject]:
    (folder / "in.txt").write_bytes(content)
    reader = LinesReader(LinesData(inputs=(str(folder / "in.txt"),), **data))
    files = [file for part in parts(reader.files(), range_bytes=range_bytes) for file in part]
    return [row for file in files for row in reader.read(file)]


def test_every_line_is_a_document_or_a_reject(tmp_path):
    content = b"\xef\xbb\xbfone\r\n\n  \n\xff\n" + b"x" * 30 + b"\nlast"
    rows = read(content, tmp_path, max_row_bytes=20)
    assert [(row.row, row.texts) for row in rows if isinstance(row, Document)] == [
        (1, ("one",)),
        (2, ("",)),
        (3, ("  ",)),
        (6, ("last",)),
    ]
    assert [(row.row, row.reason) for row in rows if isinstance(row, Reject)] == [
        (4, "not UTF-8"),
        (5, "row too long"),
    ]
    assert rows[0].id.endswith("in.txt:1")
    assert read(b"", tmp_path) == [] and len(read(b"\n", tmp_path)) == 1


def test_ranges_read_each_line_once(tmp_path):
    content = b"".join(b"word%d\n" % (i * 7919) + b"\n" * (i % 3) for i in range(200))
    whole = read(content, tmp_path)
    assert len(whole) == content.count(b"\n")
    assert read(content, tmp_path, range_bytes=100) == whole


def read_fasttext(
    content: bytes, folder, *, range_bytes=1 << 20, **data
) -> list[Document | Reject]:
    (folder / "in.txt").write_bytes(content)
    inputs = (str(folder / "in.txt"),)
    reader = FasttextReader(FasttextData(source="fasttext", inputs=inputs, **data))
    files = [file for part in parts(reader.files(), range_bytes=range_bytes) for file in part]
    return [row for file in files for row in reader.read(file)]


@pytest.mark.parametrize(
    ("line", "labels", "text"),
    [
        ("__label__cars wheel brake", ("cars",), "wheel brake"),
        (
            "__label__cats __label__food kitten  purr , bread",
            ("cats", "food"),
            "kitten  purr , bread",
        ),
        ("no label", (), "no label"),
        ("words __label__late more", ("late",), "words more"),
        ("words __label__last", ("last",), "words"),
        ("\t__label__a\t__label__b\ttext", ("a", "b"), "text"),
        ("__label__l'\u00e9t\u00e9\u00a0x text", ("l'\u00e9t\u00e9\u00a0x",), "text"),
        ("not__label__one", (), "not__label__one"),
        ("__label__x", ("x",), ""),
    ],
)
def test_words_with_fasttexts_prefix_are_labels(tmp_path, line, labels, text):
    (row,) = read_fasttext(f"\ufeff{line}\r\n".encode(), tmp_path)
    assert (row.labels, row.texts, row.id) == (labels, (text,), f"{tmp_path}/in.txt:1")


def test_the_prefix_of_fasttexts_labels_may_be_another(tmp_path):
    (row,) = read_fasttext(b"#a #b __label__c d", tmp_path, label_prefix="#")
    assert (row.labels, row.texts) == (("a", "b"), ("__label__c d",))


def test_lines_of_fasttext_that_cannot_be_documents_are_counted_rejects(tmp_path):
    content = b"__label__ x\n\n__label__a,__label__b x\n\xff\n" + b"x" * 40 + b"\n__label__a y"
    *rejects, last = read_fasttext(content, tmp_path, max_row_bytes=30)
    assert [(row.row, row.reason) for row in rejects] == [
        (1, "label is empty"),
        (2, "blank line"),
        (3, "labels are joined"),
        (4, "not UTF-8"),
        (5, "row too long"),
    ]
    assert (last.labels, last.texts, last.row) == (("a",), ("y",), 6)


WORDS = st.sampled_from(
    ["__label__a", "__label__", "word", "\u3000", "__label__\u2028", "\0", "x\x0b"]
)


@given(st.lists(st.lists(WORDS, max_size=5).map(" ".join), max_size=6), st.integers(1, 50))
def test_every_line_of_fasttext_is_a_document_or_a_reject(tmp_path_factory, lines, range_bytes):
    content = "".join(f"{line}\n" for line in lines).encode()
    rows = read_fasttext(content, tmp_path_factory.getbasetemp(), range_bytes=range_bytes)
    assert [row.row for row in rows] == list(range(1, len(lines) + 1))
    assert all("__label__" not in row.texts[0].split() for row in rows if hasattr(row, "texts"))


def test_text_that_begins_with_fasttexts_labels_is_refused_with_the_source_that_reads_it(tmp_path):
    message = "its lines begin with labels, such as '__label__a x', .* --source fasttext"
    with pytest.raises(UserError, match=message):
        read(b"__label__a x\n\n__label__b y\n", tmp_path)
    with pytest.raises(UserError, match=message):  # a document may have no labels
        read(b"__label__a x\n__label__b y\nnone\n", tmp_path)
    assert len(read(b"__label__a x\ny\n", tmp_path)) == 2
