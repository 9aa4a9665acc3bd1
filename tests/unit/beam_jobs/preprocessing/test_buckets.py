"""The intermediate format: keys, columns and files."""

import numpy as np
import pyarrow as pa
import pytest

from beam_jobs.preprocessing.buckets import (
    bucket_path,
    joined,
    order_keys,
    read_table,
    replace_column,
    split_keys,
    tokens_of,
    write_table,
    written_buckets,
)

DIGESTS = [bytes([i]) * 8 + bytes([255 - i]) * 8 for i in (0, 1, 127, 128, 255)]


@pytest.mark.parametrize("digests", [[], DIGESTS])
def test_keys_are_the_big_endian_halves_of_the_digest(digests):
    column = pa.chunked_array(
        [pa.array(digests[:2], pa.binary()), pa.array(digests[2:], pa.binary())]
    )
    assert order_keys(column).tolist() == [int.from_bytes(digest[:8], "big") for digest in digests]
    assert split_keys(column).tolist() == [int.from_bytes(digest[8:], "big") for digest in digests]
    assert np.array_equal(
        np.argsort(order_keys(column), kind="stable"), np.arange(len(digests))
    )  # sorted digests have sorted keys


def test_the_tokens_of_a_document_are_those_of_all_its_texts():
    kind = pa.large_list(pa.large_string())
    texts = pa.chunked_array(
        [pa.array([["a b", "", "c"], ["", "", "d"]], kind), pa.array([["e", "f", ""]], kind)]
    )
    assert joined(texts).to_pylist() == ["a b\n\nc", "\n\nd", "e\nf\n"]
    assert tokens_of(texts).to_pylist() == [["a", "b", "c"], ["d"], ["e", "f"]]
    assert tokens_of(texts[:0]).to_pylist() == []


def test_a_column_is_replaced_where_it_is_and_may_change_its_type():
    table = pa.table({"a": [1, 2], "b": ["x", "y"], "c": [3, 4]})
    replaced = replace_column(table, "b", pa.array([0.5, 1.5]))
    assert replaced.to_pydict() == {"a": [1, 2], "b": [0.5, 1.5], "c": [3, 4]}


def test_a_written_bucket_is_found_by_its_stage_and_a_half_written_one_is_not(tmp_path):
    table = pa.table({"a": [1, 2]})
    path = bucket_path(str(tmp_path), "merged", 3)
    for _ in range(2):  # a retried bundle writes it again
        write_table(path, table)
        assert read_table(path) == table
    (tmp_path / "merged-00004.arrow.tmp").touch()
    write_table(bucket_path(str(tmp_path), "encoded", 3), table)
    assert list(map(str, written_buckets(tmp_path, "merged"))) == [path]
