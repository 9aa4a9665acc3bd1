"""A wrong document, for every source: a reject with file, row and reason; the others are read."""

import csv
import gzip
import io
import json
import random
import tarfile
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs.contract.config import config_from_dict
from beam_jobs.sources import registry
from beam_jobs.sources.documents import UNREADABLE, Document, Reject
from beam_jobs.sources.fields import TOO_LONG

Row = tuple[str, str, str]  # id, text, label


def write_jsonl(folder: Path, rows: list[Row]) -> dict:
    lines = [
        json.dumps({"id": name, "text": text, "labels": [label]}) for name, text, label in rows
    ]
    (folder / "in.jsonl").write_text("\n".join(lines))
    return {"inputs": [str(folder / "in.jsonl")], "id_field": "id"}


def write_csv(folder: Path, rows: list[Row]) -> dict:
    with open(folder / "in.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("id", "text", "labels"), *rows])
    return {"inputs": [str(folder / "in.csv")], "id_field": "id"}


def write_parquet(folder: Path, rows: list[Row]) -> dict:
    names, texts, labels = zip(*rows, strict=True)
    pq.write_table(
        pa.table({"id": names, "text": texts, "labels": [[label] for label in labels]}),
        folder / "in.parquet",
    )
    return {"inputs": [str(folder / "in.parquet")], "id_field": "id"}


def write_directories(folder: Path, rows: list[Row]) -> dict:
    with tarfile.open(folder / "in.tar", "w") as archive:
        for name, text, label in rows:
            info = tarfile.TarInfo(f"{label}/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return {"inputs": [str(folder / "in.tar")]}


def write_stack_exchange(folder: Path, rows: list[Row]) -> dict:
    def attributes(name, text, label):
        values = {"Id": name, "PostTypeId": "1", "Body": text, "Tags": f"<{label}>"}
        return " ".join(
            f"{key}={quoteattr(value, {chr(10): '&#10;'})}" for key, value in values.items()
        )

    lines = ["<posts>", *(f"<row {attributes(*row)} />" for row in rows), "</posts>"]
    (folder / "Posts.xml").write_text("\n".join(lines), encoding="utf-8")
    return {"inputs": [str(folder / "Posts.xml")], "text_fields": ["body"]}


WRITERS = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
    "directories": write_directories,
    "stack_exchange": write_stack_exchange,
}


def read(source: str, folder: Path, rows: list[Row]) -> list[Document | Reject]:
    config = config_from_dict(
        {"name": "x", "data": {"source": source} | WRITERS[source](folder, rows)}, what="x"
    )
    reader = registry.make_reader(config.data)
    return [row for file in reader.files() for row in reader.read(file)]


@pytest.fixture(params=WRITERS)
def source(request) -> str:
    return request.param


def of_the_middle(
    source: str, folder: Path, text: str = "words", label: str = "fine"
) -> Document | Reject:
    """What is read of a document between two good ones."""
    first, middle, last = read(
        source, folder, [("1", "first", "fine"), ("2", text, label), ("3", "last", "fine")]
    )
    assert (first.texts, first.labels, last.texts, last.labels) == (
        ("first",),
        ("fine",),
        ("last",),
        ("fine",),
    )
    assert first.row <= middle.row <= last.row and middle.source.startswith(str(folder))
    assert len({(row.source, row.row) for row in (first, middle, last)}) == 3
    return middle


@pytest.mark.parametrize(
    ("label", "reason"), [("a\nb", "label is not printable"), ("x" * 10_000, "label is too long")]
)
def test_a_label_that_cannot_be_one_is_a_reject(source, tmp_path, label, reason):
    reject = of_the_middle(source, tmp_path, label=label)
    assert isinstance(reject, Reject) and reject.reason == reason


@pytest.mark.parametrize("label", ["food, drink", "l'été", "x" * 1000, '"quoted"'])
def test_a_label_may_hold_commas_quotes_and_a_thousand_characters(source, tmp_path, label):
    assert of_the_middle(source, tmp_path, label=label).labels == (label,)


@pytest.mark.parametrize("text", ["a\0b", "\0"])
def test_a_nul_is_text_where_the_format_can_hold_it_and_a_reject_where_it_cannot(
    source, tmp_path, text
):
    found = of_the_middle(source, tmp_path, text=text)
    if source in ("jsonl", "parquet", "directories"):
        assert found.texts == (text,)
    else:
        assert found.reason == {"csv": "NUL character", "stack_exchange": "not XML"}[source]


def test_a_document_of_100_megabytes_is_a_reject_of_little_content(source, tmp_path):
    reject = of_the_middle(source, tmp_path, text="many words " * 9_100_000)
    assert isinstance(reject, Reject) and reject.reason == TOO_LONG
    assert "max_row_bytes = 16,777,216" in reject.detail and len(reject.content) <= 65_536


def test_documents_with_equal_ids_and_different_texts_are_all_read(source, tmp_path):
    rows = read(
        source, tmp_path, [("same", "one", "x"), ("same", "two", "y"), ("same", "one", "y")]
    )
    assert [(row.texts, row.labels) for row in rows] == [
        (("one",), ("x",)),
        (("two",), ("y",)),
        (("one",), ("y",)),
    ]


@pytest.mark.parametrize("compressed", ["jsonl", "csv", "directories", "stack_exchange"])
def test_a_compressed_file_that_is_cut_off_ends_in_a_reject_after_what_could_be_read(
    compressed, tmp_path
):
    rows = [(f"{i}", f"{random.Random(i).random()} " * 30, "fine") for i in range(2000)]
    data = WRITERS[compressed](tmp_path, rows)
    plain = Path(data["inputs"][0])
    content = gzip.compress(plain.read_bytes())
    plain.with_name(f"{plain.name}.gz").write_bytes(content[: len(content) // 2])
    config = config_from_dict(
        {"name": "x", "data": {"source": compressed} | data | {"inputs": [f"{plain}.gz"]}}, what="x"
    )
    reader = registry.make_reader(config.data)
    *documents, reject = (row for file in reader.files() for row in reader.read(file))
    assert 100 < len(documents) < 1900 and all(isinstance(row, Document) for row in documents)
    assert (reject.source, reject.reason) == (
        f"{plain}.gz",
        UNREADABLE,
    ) and reject.row >= documents[-1].row


@pytest.mark.parametrize("text_file", ["jsonl", "csv", "stack_exchange"])
def test_an_empty_file_holds_no_documents(text_file, tmp_path):
    data = WRITERS[text_file](tmp_path, [("1", "text", "x")])
    Path(data["inputs"][0]).write_bytes(b"")
    reader = registry.make_reader(
        config_from_dict({"name": "x", "data": {"source": text_file} | data}, what="x").data
    )
    assert [row for file in reader.files() for row in reader.read(file)] == []
