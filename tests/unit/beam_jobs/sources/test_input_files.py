"""Which files are found, what recognises them, and how they are shared out."""

import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.errors import UserError
from beam_jobs.sources import input_files, streams
from beam_jobs.sources.input_files import PART_BYTES, RANGE_BYTES, InputFile

GOOD = b'{"text": "a", "labels": ["x"]}'


def test_globs_find_each_file_once_in_the_order_of_names(tmp_path, monkeypatch):
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    files = input_files.match_files(["*.jsonl", "./a.jsonl", "sub/*", str(tmp_path / "b.jsonl")])
    assert [file.name for file in files] == ["a.jsonl", "b.jsonl", "sub/c.jsonl"]
    assert [file.path for file in files] == [
        str(tmp_path / file.name) for file in files
    ]  # found from any working directory
    assert {file.bytes for file in files} == {len(GOOD)}


def test_files_outside_the_working_directory_are_named_as_the_config_names_them(
    tmp_path, monkeypatch
):
    (tmp_path / "project").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jsonl").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path / "project")
    (relative,) = input_files.match_files(["../data/*.jsonl"])
    (absolute,) = input_files.match_files([f"{tmp_path}/data/*.jsonl"])
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
        input_files.match_files(["a.jsonl", pattern])


def made_input(folder, files: dict[str, bytes]) -> list[InputFile]:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [InputFile(name, str(folder / name), len(content)) for name, content in files.items()]


def test_the_input_hash_sees_names_and_contents_and_neither_place_nor_time(tmp_path):
    files = made_input(tmp_path / "x", {"a": b"1" * 3_000_000, "b": b"22"})
    copied = made_input(tmp_path / "y", {"a": b"1" * 3_000_000, "b": b"22"})
    os.utime(copied[0].path, (0, 0))
    expected = input_files.input_hash(files)
    assert input_files.input_hash(copied) == expected
    changed = made_input(
        tmp_path / "z", {"a": b"1" * 2_999_999 + b"2", "b": b"22"}
    )  # of the same size, in its last byte
    renamed = dataclasses.replace(files[0], name="c")
    others = [
        files[:1],
        files[::-1],
        changed,
        [renamed, files[1]],
        [dataclasses.replace(files[0], name="a\udcff"), files[1]],
    ]
    hashes = {input_files.input_hash(other) for other in others}
    assert len(hashes) == len(others) and expected not in hashes


def test_the_input_hash_of_what_is_no_file_is_of_its_name_and_size():
    hashes = {
        input_files.input_hash([InputFile(name, "", size)])
        for name, size in (("table", 1), ("table", 2), ("other", 1))
    }
    assert len(hashes) == 3


def test_an_input_file_that_may_not_be_read_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="data.inputs: cannot read gone: No such file"):
        input_files.input_hash([InputFile("gone", str(tmp_path / "gone"), 1)])


@pytest.mark.parametrize(
    ("name", "at_least"),
    [("a.jsonl", 1), ("a.jsonl.GZ", 2), ("a.bz2", 2), ("a.xz", 2), ("a.zst", 2), ("a.tgz", 2)],
)
def test_compressed_files_count_as_the_text_that_is_in_them(tmp_path, name, at_least):
    (tmp_path / name).write_bytes(bytes(1000))
    (file,) = input_files.match_files([str(tmp_path / name)])
    assert file.bytes == 1000 and file.plain_bytes >= at_least * 1000
    assert file.plain_bytes == 1000 or at_least > 1
    assert (len(input_files.parts([file] * 8, part_bytes=4000)) > 2) == (at_least > 1)


def test_the_extensions_that_count_as_compressed_are_those_that_are_decompressed():
    assert set(input_files.COMPRESSED) == set(streams._OPENERS)


@given(st.lists(st.integers(0, 2 * PART_BYTES)))
def test_parts_hold_every_file_once_in_order_and_none_is_much_larger_than_its_last_file(sizes):
    files = [InputFile(str(i), str(i), size) for i, size in enumerate(sizes)]
    parts = input_files.parts(files)
    assert [file for part in parts for file in part] == files
    assert all(part for part in parts)
    for part in parts:
        assert sum(file.bytes for file in part[:-1]) < PART_BYTES
    for part in parts[:-1]:
        assert sum(file.bytes for file in part) >= PART_BYTES


@given(sizes=st.lists(st.integers(0, 5 * RANGE_BYTES)))
def test_only_large_files_are_cut_into_ranges_and_these_cover_them(
    sizes,
):
    files = [
        InputFile(str(i), str(i), size, unit="row group" if i % 2 else None)
        for i, size in enumerate(sizes)
    ]
    pieces = [piece for part in input_files.parts(files) for piece in part]
    for file in files:
        own = [piece for piece in pieces if piece.name == file.name]
        assert [piece.start for piece in own] == [0, *(piece.end for piece in own[:-1])] and own[
            -1
        ].end is None
        assert sum(piece.bytes for piece in own) == file.bytes
        assert (len(own) > 1) == (file.unit is not None and file.bytes > 1.5 * RANGE_BYTES)
        assert len(own) == 1 or max(piece.bytes for piece in own) <= 1.5 * RANGE_BYTES


def test_a_name_with_brackets_is_the_file_of_that_name_first(tmp_path):
    for name in ("train[1].jsonl", "train1.jsonl", "train*.txt", "trainee.txt"):
        (tmp_path / name).write_text(name)

    def names(pattern):
        files = input_files.match_files([str(tmp_path / pattern)])
        return [os.path.basename(file.path) for file in files]

    assert names("train[1].jsonl") == ["train[1].jsonl"]
    assert names("train*.txt") == ["train*.txt"]
    assert names("train*.jsonl") == ["train1.jsonl", "train[1].jsonl"]
    (tmp_path / "train[1].jsonl").unlink()
    assert names("train[1].jsonl") == ["train1.jsonl"]
