"""Which files are found, what recognises them, and how they are shared out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs import inputs
from beam_jobs.contract.errors import UserError
from beam_jobs.inputs import PART_BYTES, RANGE_BYTES, InputFile

GOOD = b'{"text": "a", "labels": ["x"]}'


def test_globs_find_each_file_once_in_the_order_of_names(tmp_path, monkeypatch):
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    files = inputs.match_files(["*.jsonl", "./a.jsonl", "sub/*", str(tmp_path / "b.jsonl")])
    assert [file.name for file in files] == ["a.jsonl", "b.jsonl", "sub/c.jsonl"]
    assert [file.path for file in files] == [str(tmp_path / file.name) for file in files]  # found from any working directory
    assert {file.bytes for file in files} == {len(GOOD)}


def test_files_outside_the_working_directory_are_named_as_the_config_names_them(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jsonl").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path / "project")
    (relative,) = inputs.match_files(["../data/*.jsonl"])
    (absolute,) = inputs.match_files([f"{tmp_path}/data/*.jsonl"])
    assert (relative.name, absolute.name) == ("../data/a.jsonl", f"{tmp_path}/data/a.jsonl")
    assert relative.path == absolute.path


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nothing-*.jsonl", "no file matches 'nothing-\\*.jsonl'"),
        ("/nowhere/at/all.jsonl", "no file matches"),
        (".", "is a directory; expected files, such as './\\*.jsonl'"),
        ("hdfs://host/x.jsonl", "cannot look for 'hdfs://host/x.jsonl'"),
        ("nosuch://x", "cannot look for 'nosuch://x'"),
    ],
)
def test_a_pattern_without_files_is_the_users_error(tmp_path, monkeypatch, pattern, message):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"data.inputs: .*{message}"):
        inputs.match_files(["a.jsonl", pattern])


def test_the_input_hash_sees_names_and_sizes_and_no_place():
    a, b = InputFile("a", "/x/a", 1), InputFile("b", "/x/b", 2)
    assert inputs.input_hash([a, b]) == inputs.input_hash([InputFile("a", "/y/a", 1), InputFile("b", "/y/b", 2)])
    others = [[a], [b, a], [InputFile("c", "/x/a", 1), b], [InputFile("a", "/x/a", 3), b], [InputFile("a\udcff", "/x/a", 1), b]]
    hashes = {inputs.input_hash(files) for files in [[a, b], *others]}
    assert len(hashes) == len(others) + 1


@given(st.lists(st.integers(0, 2 * PART_BYTES)))
def test_parts_hold_every_file_once_in_order_and_none_is_much_larger_than_its_last_file(sizes):
    files = [InputFile(str(i), str(i), size) for i, size in enumerate(sizes)]
    parts = inputs.parts(files)
    assert [file for part in parts for file in part] == files
    assert all(part for part in parts)
    for part in parts:
        assert sum(file.bytes for file in part[:-1]) < PART_BYTES
    for part in parts[:-1]:
        assert sum(file.bytes for file in part) >= PART_BYTES


@given(sizes=st.lists(st.integers(0, 5 * RANGE_BYTES)))
def test_large_files_are_cut_into_ranges_that_cover_them_and_small_ones_and_those_of_other_formats_are_not(sizes):
    files = [InputFile(str(i), str(i), size, unit="row group" if i % 2 else None) for i, size in enumerate(sizes)]
    pieces = [piece for part in inputs.parts(files) for piece in part]
    for file in files:
        own = [piece for piece in pieces if piece.name == file.name]
        assert [piece.start for piece in own] == [0, *(piece.end for piece in own[:-1])] and own[-1].end is None
        assert sum(piece.bytes for piece in own) == file.bytes
        assert (len(own) > 1) == (file.unit is not None and file.bytes > 1.5 * RANGE_BYTES)
        assert len(own) == 1 or max(piece.bytes for piece in own) <= 1.5 * RANGE_BYTES
