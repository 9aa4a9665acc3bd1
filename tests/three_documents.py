"""Documents written for every source, and what is read of one between two others."""

import csv
import io
import json
import tarfile
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs.contract.config import config_from_dict
from beam_jobs.sources import registry
from beam_jobs.sources.documents import Document, Reject

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
