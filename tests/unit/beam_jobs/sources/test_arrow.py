"""Arrow IPC files and streams, and the folders of them that Hugging Face's `datasets` saves."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pytest

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import ArrowData
from beam_jobs.preprocessing.splits import check_file_patterns, source_split
from beam_jobs.sources.arrow import ArrowReader
from beam_jobs.sources.documents import UNREADABLE
from beam_jobs.sources.parquet import BATCH_ROWS


def table_of(texts: list[str], **columns) -> pa.Table:
    return pa.table({"text": texts, "labels": [["x"]] * len(texts)} | columns)


def content_of(table: pa.Table, *, stream: bool = True, rows: int | None = None) -> bytes:
    sink = io.BytesIO()
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def save(folder: Path, *tables: pa.Table, split: str | None = None, **state) -> Path:
    """A folder as `Dataset.save_to_disk` writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        (folder / name).write_bytes(content_of(table, rows=100))
    state = {"_data_files": [{"filename": name} for name in names], "_split": split} | state
    (folder / "state.json").write_text(json.dumps(state | {"_fingerprint": "f"}))
    (folder / "dataset_info.json").write_text('{"features": {}}')
    (folder / "cache-0123456789.arrow").write_bytes(b"the library's own, of no dataset")
    return folder


def reader_of(*inputs, **data) -> ArrowReader:
    return ArrowReader(ArrowData(source="arrow", inputs=tuple(map(str, inputs)), **data))


def read(*inputs, **data) -> list:
    reader = reader_of(*inputs, **data)
    return [row for file in reader.files() for row in reader.read(file)]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("rows", [None, 7])
def test_rows_are_documents_numbered_from_1_over_batches(tmp_path, stream, rows):
    count = 3 * BATCH_ROWS + 7
    table = table_of([f"text {i}" for i in range(count)], key=range(count), other=[b"x"] * count)
    (tmp_path / "in.arrow").write_bytes(content_of(table, stream=stream, rows=rows))
    assert [
        (row.row, row.id, row.texts[0]) for row in read(tmp_path / "in.arrow", id_field="key")
    ] == [(i + 1, str(i), f"text {i}") for i in range(count)]


def test_a_saved_dataset_is_read_by_its_folder_and_says_its_split(tmp_path):
    save(tmp_path / "saved", table_of(["a", "b"]), table_of(["c"]), split="train")
    rows = read(tmp_path / "saved", split_field="split")
    assert [(row.texts[0], row.row, row.split) for row in rows] == [
        ("a", 1, "train"),
        ("b", 2, "train"),
        ("c", 1, "train"),
    ]
    assert rows[2].source == f"{tmp_path}/saved/data-00001-of-00002.arrow"


def save_splits(folder: Path) -> Path:
    for split in ("train", "dev", "test"):
        save(folder / split, table_of([split]), split=split)
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "dev", "test"]}')
    return folder


@pytest.mark.parametrize(
    ("data", "splits"),
    [
        ({"split_field": "split"}, {"method": "column"}),
        ({}, {"method": "files", "validation": ["*/dev/*"], "test": ["*/test/*"]}),
    ],
)
def test_the_splits_of_a_saved_folder_are_those_of_the_documents(tmp_path, data, splits):
    folder = save_splits(tmp_path / "saved")
    data |= {"source": "arrow", "inputs": [str(folder)]}
    config = config_from_dict({"name": "saved", "data": data, "splits": splits}, what="test")
    reader = ArrowReader(config.data)
    files = reader.files()
    check_file_patterns(config.splits, [file.name for file in files])
    rows = [row for file in files for row in reader.read(file)]
    assert {row.texts[0]: source_split(row, config.splits) for row in rows} == {
        "train": 0,
        "dev": 1,
        "test": 2,
    }


def test_a_column_named_split_comes_before_the_folders(tmp_path):
    save(tmp_path / "saved", table_of(["a"], split=["mine"]), split="train")
    (row,) = read(tmp_path / "saved", split_field="split")
    assert row.split == "mine"


def test_ids_of_labels_have_the_names_of_the_saved_features(tmp_path):
    features = {"labels": {"feature": {"names": ["cars", "food"], "_type": "ClassLabel"}}}
    features["labels"]["_type"] = "Sequence"
    table = pa.table({"text": ["a", "b"], "labels": [[1], [0, 1]]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    save(tmp_path / "saved", table.replace_schema_metadata(metadata))
    rows = read(tmp_path / "saved", label_format="ids")
    assert [row.labels for row in rows] == [("food",), ("cars", "food")]


def test_fields_within_structs_and_times_are_read_as_from_parquet(tmp_path):
    at = pa.array([1_577_836_800_000_000_123], pa.timestamp("ns"))
    table = pa.table({"doc": [{"body": "a", "tags": ["x"]}], "at": at})
    (tmp_path / "in.arrow").write_bytes(content_of(table))
    data = {"text_fields": ("doc.body",), "labels_field": "doc.tags", "time_field": "at"}
    (row,) = read(tmp_path / "in.arrow", **data)
    assert (row.texts, row.labels, row.time) == (("a",), ("x",), "2020-01-01T00:00:00")


def test_a_missing_column_is_told(tmp_path):
    save(tmp_path / "saved", table_of(["a"]), split="train")
    message = r"data-00000-of-00001.arrow has no column 'body'; the columns found are 'text', "
    with pytest.raises(UserError, match=message + "'labels', 'split'"):
        reader_of(tmp_path / "saved", text_fields=("body",)).files()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text,labels\n",
        content_of(table_of(["a"]))[:-8],  # between two batches
        content_of(table_of(["a"] * 100), rows=10)[:-500],
        content_of(table_of(["a"]), stream=False)[:-20],
    ],
)
def test_a_file_that_is_no_arrow_or_is_cut_off_is_the_users_error_before_any_work(
    tmp_path, content
):
    (tmp_path / "in.arrow").write_bytes(content)
    with pytest.raises(UserError, match=r"in.arrow \([0-9,]+ bytes\) is not a whole Arrow file: "):
        reader_of(tmp_path / "in.arrow").files()


def test_damage_within_a_file_ends_it_in_a_reject(tmp_path):
    sink = io.BytesIO()
    tables = [table_of([f"text {i + j}" for j in range(100)]) for i in (0, 100, 200, 300)]
    with pa.ipc.new_stream(sink, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    content = bytearray(sink.getvalue())
    at = content.index(b"text 300") - 300  # the offsets of its batch, which must not be followed
    content[at : at + 300] = b"\x7f" * 300
    (tmp_path / "in.arrow").write_bytes(content)
    reader = reader_of(tmp_path / "in.arrow")
    rows = [row for file in reader.files() for row in reader.read(file)]
    assert (len(rows), rows[-1].row, rows[-1].reason) == (301, 301, UNREADABLE)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "'.*saved' is a directory; expected files"),
        ({"state.json": "[]"}, "saved/state.json is not as save_to_disk writes it"),
        (
            {"state.json": '{"_data_files": [{"filename": "a.arrow"}]}'},
            "no file matches '.*a.arrow'",
        ),
        ({"dataset_dict.json": "{}"}, "saved/dataset_dict.json is not as save_to_disk writes it"),
        ({"dataset_dict.json": '{"splits": ["train"]}'}, "saved/train' has no state.json"),
        ({"state.json": '{"_indices_data_files": [{}]}'}, "which old versions of datasets wrote"),
    ],
)
def test_a_folder_that_is_not_as_it_was_saved_is_the_users_error(tmp_path, files, message):
    (tmp_path / "saved").mkdir()
    for name, content in files.items():
        (tmp_path / "saved" / name).write_text(content)
    with pytest.raises(UserError, match=message):
        reader_of(tmp_path / "saved").files()
