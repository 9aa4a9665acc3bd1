"""Columns that the directories of a path name, as Hive and Spark write them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import CsvData, JsonlData, ParquetData
from beam_jobs.sources import registry
from beam_jobs.sources.input_files import partition_of

KINDS = {"parquet": ParquetData, "jsonl": JsonlData, "csv": CsvData}
ROW = {"text": "some text", "labels": "x;y"}


def write(source: str, row: dict, path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if source == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif source == "jsonl":
        path.write_text(json.dumps(row))
    else:
        path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")


def read(source: str, folder, **data) -> list:
    data = {"label_delimiter": ";"} | data
    inputs = (f"{folder}/**/*.{source}",)
    reader = registry.make_reader(KINDS[source](source=source, inputs=inputs, **data))
    return [row for file in reader.files() for row in reader.read(file)]


@pytest.mark.parametrize("source", KINDS)
def test_the_directories_of_a_path_are_columns(tmp_path, source):
    for split, lang in (("dev", "de%2FAT"), ("train", "__HIVE_DEFAULT_PARTITION__")):
        write(source, ROW, tmp_path / f"split={split}/lang={lang}/part-0.{source}")
    dev, train = read(
        source, tmp_path, split_field="split", metadata_fields=("lang",), id_field="split"
    )
    assert (dev.split, dev.metadata, dev.id) == ("dev", ("de/AT",), "dev")
    assert (train.split, train.metadata, train.id) == ("train", ("",), "train")
    assert dev.texts == ("some text",) and dev.labels == ("x", "y")


@pytest.mark.parametrize("source", KINDS)
def test_a_label_may_be_a_directory(tmp_path, source):
    write(source, ROW, tmp_path / f"topic=food/part-0.{source}")
    (document,) = read(source, tmp_path, labels_field="topic")
    assert document.labels == ("food",)


@pytest.mark.parametrize("source", KINDS)
def test_a_column_of_the_file_itself_comes_first(tmp_path, source):
    write(source, ROW | {"lang": "fr"}, tmp_path / f"lang=de/part-0.{source}")
    (document,) = read(source, tmp_path, metadata_fields=("lang",))
    assert document.metadata == ("fr",)


@pytest.mark.parametrize("source", KINDS)
def test_a_missing_column_is_told_with_those_of_the_path(tmp_path, source):
    write(source, ROW, tmp_path / f"lang=de/part-0.{source}")
    with pytest.raises(UserError, match="no column 'year'; .*'text', 'labels', 'lang'"):
        read(source, tmp_path, split_field="year")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/year=2020/month=01/a.parquet", (("year", "2020"), ("month", "01"))),
        ("/data/year=2020/year=2021/a", (("year", "2021"),)),
        ("/data/a=b=c/d", (("a", "b=c"),)),
        ("/data/=x/key=/d=1.csv", (("key", ""),)),
        ("gs://bucket/na%20me=a%20b/x", (("na me", "a b"),)),
    ],
)
def test_what_a_path_says(path, expected):
    assert partition_of(path) == expected
