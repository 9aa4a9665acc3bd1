"""Zip archives of several files: each member is read as a file."""

import gzip
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import (
    CsvData,
    DirectoriesData,
    JsonlData,
    LinesData,
    ParquetData,
)
from beam_jobs.preprocessing.splits import check_file_patterns, source_split
from beam_jobs.sources import registry
from beam_jobs.sources.documents import UNREADABLE
from beam_jobs.sources.input_files import input_hash


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", "")
        archive.writestr("__MACOSX/in", "x")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def rows_of(source: str, texts: list[str]) -> bytes:
    if source == "jsonl":
        return "".join(
            json.dumps({"text": text, "labels": ["x"]}) + "\n" for text in texts
        ).encode()
    if source == "csv":
        return ("text,labels\n" + "".join(f"{text},x\n" for text in texts)).encode()
    return "".join(f"{text}\n" for text in texts).encode()


KINDS = {"jsonl": JsonlData, "csv": CsvData, "lines": LinesData}


def read(source: str, *inputs) -> list[tuple]:
    reader = registry.make_reader(KINDS[source](source=source, inputs=tuple(map(str, inputs))))
    rows = [row for file in reader.files() for row in reader.read(file)]
    return [(Path(row.source.replace(".zip/", ".zip:")).name, row.row, *row.texts) for row in rows]


@pytest.mark.parametrize("source", KINDS)
def test_each_member_is_a_file_named_after_the_archive(tmp_path, source):
    path = write_zip(
        tmp_path / "a.zip",
        {
            "b/dev.x": rows_of(source, ["third é"]),
            "a.x": rows_of(source, ["first", "second"]),
            "b/test.x.gz": gzip.compress(rows_of(source, ["fourth"])),
            "b/utf16.x": rows_of(source, ["fifth é"]).decode().encode("utf-16"),
            ".DS_Store": b"\0",
        },
    )
    first = 2 if source == "csv" else 1
    assert [(row[0].rsplit("/", 1)[-1], *row[1:]) for row in read(source, path)] == [
        ("a.zip:a.x", first, "first"),
        ("a.zip:a.x", first + 1, "second"),
        ("dev.x", first, "third é"),
        ("test.x.gz", first, "fourth"),
        ("utf16.x", first, "fifth é"),
    ]


@pytest.mark.parametrize("source", KINDS)
def test_an_archive_of_one_file_has_its_own_name(tmp_path, source):
    path = write_zip(tmp_path / "a.zip", {"b/rows.x": rows_of(source, ["one"])})
    assert [row[0] for row in read(source, path)] == ["a.zip"]
    assert [row[0] for row in read(source, f"{path}/rows.x")] == ["rows.x"]


def test_members_are_chosen_by_name_or_pattern(tmp_path):
    path = write_zip(
        tmp_path / "a.zip",
        {
            "train.csv": rows_of("csv", ["one"]),
            "more/test.csv": rows_of("csv", ["two"]),
            "README.md": b"words",
        },
    )
    assert [row[2] for row in read("csv", f"{path}/train.csv")] == ["one"]
    assert [row[2] for row in read("csv", f"{path}/test.csv")] == ["two"]
    assert [row[2] for row in read("csv", f"{path}/*.csv")] == ["two", "one"]
    assert [row[2] for row in read("csv", f"{tmp_path}/*.zip/more/*")] == ["two"]
    assert len(read("csv", f"{path}/train.csv", f"{path}/test.csv")) == 2
    message = r"a.zip: received a zip archive of 3 files, expected one that matches 'dev.csv'; it "
    with pytest.raises(UserError, match=message + "holds train.csv, more/test.csv, README.md"):
        read("csv", f"{path}/dev.csv")
    with pytest.raises(UserError, match="a.zip/README.md has no column 'text'"):
        read("csv", path)


def test_the_split_may_be_by_member(tmp_path):
    rows = {f"{name}.jsonl": rows_of("jsonl", [name]) for name in ("train", "dev", "test")}
    path = write_zip(tmp_path / "a.zip", rows)
    data = {"source": "jsonl", "inputs": [str(path)]}
    splits = {"method": "files", "validation": ["dev.jsonl"], "test": ["test.jsonl"]}
    config = config_from_dict({"name": "zip", "data": data, "splits": splits}, what="test")
    reader = registry.make_reader(config.data)
    files = reader.files()
    check_file_patterns(config.splits, [file.name for file in files])
    documents = [row for file in files for row in reader.read(file)]
    assert {row.texts[0]: source_split(row, config.splits) for row in documents} == {
        "train": 0,
        "dev": 1,
        "test": 2,
    }


def test_directories_of_members_are_columns_and_partitions(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"lang=de/a.jsonl": rows_of("jsonl", ["one"]), "b": b""})
    data = JsonlData(source="jsonl", inputs=(str(path),), metadata_fields=("lang",))
    reader = registry.make_reader(data)
    (row,) = [row for file in reader.files() for row in reader.read(file)]
    assert row.metadata == ("de",)


def test_directories_within_an_archive_are_labels(tmp_path):
    path = write_zip(
        tmp_path / "news.zip",
        {"news/sport/1": b"a ball", "news/food/2": "caf\xe9".encode("latin-1"), "loose": b"x"},
    )
    data = DirectoriesData(source="directories", inputs=(str(path),), encoding="latin-1")
    reader = registry.make_reader(data)
    (loose, food, sport) = [row for file in reader.files() for row in reader.read(file)]
    assert (food.id, food.labels, food.texts) == ("news/food/2", ("food",), ("café",))
    assert (sport.labels, sport.source) == (("sport",), f"{path}/news/sport/1")
    assert loose.reason == "no labels"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "received a zip archive of 0 files, expected files; it holds none"),
        (
            {"[Content_Types].xml": b"<x/>", "xl/workbook.xml": b"<x/>"},
            "received a spreadsheet or a document, .*save it as CSV",
        ),
    ],
)
@pytest.mark.parametrize("source", KINDS)
def test_an_archive_without_files_of_text_is_refused_before_any_work(
    tmp_path, source, files, message
):
    path = write_zip(tmp_path / "in.zip", files)
    with pytest.raises(UserError, match=f"in.zip: {message}"):
        read(source, path)


def test_an_archive_with_a_password_is_refused(tmp_path):
    path = write_zip(tmp_path / "in.zip", {"a.csv": b"text,labels\na,x\n"})
    content = bytearray(path.read_bytes())
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        at = content.rindex(mark) + (6 if mark == b"PK\x03\x04" else 8)
        content[at] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="received a zip archive with a password, .*unpack it"):
        read("csv", path)


def test_an_archive_within_an_archive_is_no_text(tmp_path):
    inner = write_zip(tmp_path / "inner.zip", {"a": b"text", "b": b"text"}).read_bytes()
    path = write_zip(tmp_path / "outer.zip", {"inner.zip": inner, "b.txt": b"words\n"})
    reader = registry.make_reader(LinesData(inputs=(str(path),)))
    document, wrong = [row for file in reader.files() for row in reader.read(file)]
    assert document.texts == ("words",)
    assert wrong.reason == UNREADABLE and "a zip archive within a zip archive" in wrong.detail


def test_a_file_that_is_no_archive_has_no_members(tmp_path):
    (tmp_path / "a.zip").write_text("text\nwords\n")
    with pytest.raises(UserError, match="a.zip: received a file that is no zip archive, expected"):
        read("lines", tmp_path / "a.zip/b.txt")


def test_a_damaged_member_ends_in_a_reject_and_the_others_are_read(tmp_path):
    path = write_zip(
        tmp_path / "a.zip",
        {"a.txt": bytes(range(32, 127)) * 50 + b"\n", "b.txt": b"words\n"},
    )
    content = bytearray(path.read_bytes())
    at = content.index(b"a.txt") + 20
    content[at : at + 20] = bytes(20)
    path.write_bytes(content)
    reader = registry.make_reader(LinesData(inputs=(str(path),)))
    rows = [row for file in reader.files() for row in reader.read(file)]
    assert getattr(rows[0], "reason", None) == UNREADABLE and rows[-1].texts == ("words",)


@pytest.mark.parametrize("pack", ["zip", "gzip"])
def test_parquet_that_is_packed_is_told_to_be_unpacked(tmp_path, pack):
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"], "labels": [["x"]]}), table)
    path = tmp_path / "a.parquet.packed"
    if pack == "zip":
        write_zip(path, {"a.parquet": table.getvalue()})
    else:
        path.write_bytes(gzip.compress(table.getvalue()))
    data = ParquetData(source="parquet", inputs=(str(path),))
    with pytest.raises(UserError, match=f"not a whole Parquet file: .*those of a {pack} file, so"):
        registry.make_reader(data).files()


def test_an_archive_is_recognised_by_the_contents_and_names_of_its_members(tmp_path):
    def hashed(files) -> str:
        path = write_zip(tmp_path / "a.zip", files)
        return input_hash(registry.make_reader(LinesData(inputs=(str(path),))).files())

    first = hashed({"a": b"1", "b": b"2"})
    assert first == hashed({"a": b"1", "b": b"2"}) != hashed({"a": b"1", "c": b"2"})
    assert first != hashed({"a": b"3", "b": b"2"})


def test_an_archive_of_an_unknown_version_is_unreadable(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.txt": b"words\n", "b.txt": b"words\n"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 255
    path.write_bytes(content)
    for data in (
        LinesData(inputs=(str(path),)),
        DirectoriesData(source="directories", inputs=(str(path),)),
    ):
        reader = registry.make_reader(data)
        (wrong,) = [row for file in reader.files() for row in reader.read(file)]
        assert wrong.reason == UNREADABLE and "zip file version 25.5" in wrong.detail
