"""Fields within fields, by dotted paths, wherever a column is named."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import JsonlData, ParquetData
from beam_jobs.preprocessing.splits import source_split, time_us
from beam_jobs.sources import paths, registry

ROW = {
    "doc": {"id": "k1", "title": "a title", "body": {"text": "a body"}, "weight": 2.5},
    "tags": {"names": ["x", "y"]},
    "meta": {"split": "dev", "time": "2020-01-31", "place": {"town": "Bonn", "codes": [1, 2]}},
}
NAMES = {
    "text_fields": ("doc.title", "doc.body.text"),
    "labels_field": "tags.names",
    "id_field": "doc.id",
    "weight_field": "doc.weight",
    "split_field": "meta.split",
    "time_field": "meta.time",
    "metadata_fields": ("meta.place.town", "meta.place"),
}


def write(source: str, rows: list[dict], folder):
    path = folder / f"rows.{source}"
    if source == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(source: str, rows: list[dict], folder, **data) -> list:
    kind = {"jsonl": JsonlData, "parquet": ParquetData}[source]
    path = write(source, rows, folder)
    reader = registry.make_reader(kind(source=source, inputs=(str(path),), **data))
    return [row for file in reader.files() for row in reader.read(file)]


@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_every_field_may_be_a_path(tmp_path, source):
    (document,) = read(source, [ROW], tmp_path, **NAMES)
    assert document.texts == ("a title\n\na body",)
    assert (document.id, document.labels, document.weight) == ("k1", ("x", "y"), 2.5)
    assert (document.split, document.time) == ("dev", "2020-01-31")
    assert document.metadata == ("Bonn", '{"town": "Bonn", "codes": [1, 2]}')


@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_a_column_whose_own_name_has_the_dot_comes_first(tmp_path, source):
    rows = [{"doc.body": "flat", "doc": {"body": "nested"}, "labels": ["x"]}]
    (document,) = read(source, rows, tmp_path, text_fields=("doc.body",))
    assert document.texts == ("flat",)
    rows = [{"a.b": {"c": "within"}, "a": {"b": {"d": "no"}}, "labels": ["x"]}]
    (document,) = read(source, rows, tmp_path, text_fields=("a.b.c",))
    assert document.texts == ("within",)


@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_a_path_through_a_list_of_objects_is_a_list(tmp_path, source):
    rows = [{"text": "a", "topics": [{"name": "x", "id": 1}, {"name": "y", "id": 2}]}]
    (document,) = read(source, rows, tmp_path, labels_field="topics.name")
    assert document.labels == ("x", "y")


def test_a_row_without_the_path_is_a_reject_and_null_on_the_way_is_null(tmp_path):
    data = {"text_fields": ("doc.body",), "labels_field": "tags.names", "missing_labels": "none"}
    rows = [
        {"doc": {"body": "a"}, "tags": {"names": ["x"]}},
        {"doc": {"other": "a"}, "tags": None},
        {"doc": {"body": "b"}, "tags": None},
        {"doc": {"body": "c"}},
        {"doc": 3, "tags": {}},
    ]
    first, second, third, fourth, fifth = read("jsonl", rows, tmp_path, **data)
    assert (first.labels, third.labels, fourth.labels) == (("x",), (), ())
    assert "field 'doc.body' is missing or null" in second.detail
    assert "field 'doc.body' is missing or null" in fifth.detail


@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_a_wrong_path_is_told_with_the_paths_there_are(tmp_path, source):
    message = r"no column 'doc.boddy'; the columns found are 'doc', 'tags', 'meta', .*'doc.body'"
    with pytest.raises(UserError, match=message) as error:
        read(source, [ROW], tmp_path, text_fields=("doc.boddy",), labels_field="tags.names")
    assert "meta.split" not in str(error.value)


def test_parquet_reads_of_a_struct_only_what_is_named(tmp_path):
    path = write("parquet", [ROW], tmp_path)
    reader = registry.make_reader(
        ParquetData(
            source="parquet",
            inputs=(str(path),),
            text_fields=("doc.body.text",),
            labels_field="tags.names",
        )
    )
    with pq.ParquetFile(path) as parquet:
        assert reader._columns(parquet, parquet.schema_arrow) == ["doc.body.text", "tags.names"]


def test_a_split_and_a_time_may_be_paths(tmp_path):
    config = {
        "name": "paths",
        "data": {"source": "jsonl", "inputs": ["a"], "split_field": "meta.split"},
        "splits": {"method": "column"},
    }
    (document,) = read("jsonl", [ROW], tmp_path, **NAMES)
    assert source_split(document, config_from_dict(config, what="test").splits) == 1
    config["data"]["time_field"], config["splits"] = "meta.time", {"method": "time_fractions"}
    splits = config_from_dict(config, what="test").splits
    assert time_us(document, splits) == 1_580_428_800_000_000


@pytest.mark.parametrize(
    ("values", "path", "expected"),
    [
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a.b": 2, "a": {"b": 1}}, "a.b", 2),
        ({"a": {"b.c": 3}}, "a.b.c", 3),
        ({"a": None}, "a.b", None),
        ({"a": [{"b": 1}, {}, 3]}, "a.b", [1, None, None]),
        ({"a": []}, "a.b", []),
        ({"a": {"b": 1}}, "a.c", paths.MISSING),
        ({"a": 1}, "a.b", paths.MISSING),
        ({}, ".", paths.MISSING),
        ({"": {"": 1}}, ".", 1),
    ],
)
def test_what_a_path_finds(values, path, expected):
    found = paths.find(values, path)
    assert found is expected or found == expected
