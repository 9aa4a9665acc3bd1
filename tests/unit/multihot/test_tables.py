"""Tables of every kind become the same Parquet file."""

import datetime

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs.contract.errors import UserError
from multihot import tables

COLUMNS = {"body": ["a b", "c"], "tags": [["x", "y"], []]}


class HuggingFace:
    """What `datasets.Dataset` has of it; its rows are chosen by indices that it holds apart."""

    features = {"body": "string"}

    def with_format(self, kind):
        assert kind == "arrow"
        return [pa.table(COLUMNS)] and _Whole()


class _Whole:
    def __getitem__(self, rows):
        assert rows == slice(None)
        return pa.table(COLUMNS)


@pytest.mark.parametrize(
    "table",
    [
        COLUMNS,
        pa.table(COLUMNS),
        pd.DataFrame(COLUMNS, index=[7, 9]),
        HuggingFace(),
    ],
    ids=["columns", "arrow", "pandas", "hugging_face"],
)
def test_tables_of_every_kind_hold_the_same(table):
    assert tables.to_arrow(table).to_pydict() == COLUMNS


def test_splits_become_a_column():
    given = {"train": pd.DataFrame(COLUMNS), "test": pa.table(COLUMNS).slice(0, 1)}
    assert tables.are_tables(given) and not tables.are_tables(COLUMNS)
    assert tables.to_arrow(given).column("split").to_pylist() == ["train", "train", "test"]
    with pytest.raises(UserError, match="tables by split that have a column 'split'"):
        tables.to_arrow({"train": pd.DataFrame({"split": ["a"]})})


@pytest.mark.parametrize(
    "wrong",
    [pd.DataFrame({"body": ["a", 1]}), {"body": ["a"], "tags": []}],
    ids=["types", "lengths"],
)
def test_a_table_that_arrow_refuses_is_one_message(wrong):
    with pytest.raises(UserError, match="the table cannot be read: .*; expected columns of equal"):
        tables.to_arrow(wrong)


def test_lists_of_integers_are_ids():
    table = pa.table({"ids": [[0, 1], []], "names": [["x"], []], "single": [0, 1]})
    assert [tables.holds_ids(table, name) for name in table.column_names] == [True, False, False]


def test_a_missing_column_is_named_beside_those_there_are():
    with pytest.raises(UserError, match="text: received title, expected .* columns body, tags"):
        tables.check_columns(pa.table(COLUMNS), ["title"], "text")


def test_a_file_of_another_table_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "new" / "documents.parquet"
    tables.write(pa.table(COLUMNS), path, replace=False)
    tables.write(pa.table(COLUMNS), path, replace=False)
    other = pa.table({"day": [datetime.date(2024, 1, 31)]})
    with pytest.raises(UserError, match="holds the dataset of other documents; .* overwrite=True"):
        tables.write(other, path, replace=False)
    assert pq.read_table(path).column_names == ["body", "tags"]
    tables.write(other, path, replace=True)
    assert [file.name for file in path.parent.iterdir()] == ["documents.parquet"]
    assert pq.read_table(path).column_names == ["day"]


def test_a_place_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="output_dir: cannot write"):
        tables.write(pa.table(COLUMNS), tmp_path / "file" / "x.parquet", replace=True)
