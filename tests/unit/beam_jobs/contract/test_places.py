"""Files appear whole or not at all, also where several write the same one."""

import threading

import pytest

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("path", ["ftp://server/x", "gs:/bucket/x", "s3:///x", "file:///x"])
def test_a_storage_that_is_not_known_is_refused(path):
    with pytest.raises(ValueError, match="expected a local path, gs://BUCKET"):
        places.check(path)
    with pytest.raises(UserError, match="expected a local path"):
        places.read_bytes(path)


@pytest.mark.parametrize("path", ["x", "./x:y", "/a/b", "C:/x", "gs://bucket/x", "hdfs://a/b"])
def test_local_paths_and_known_stores_pass(path):
    assert places.check(path) == path


def test_a_file_appears_at_the_end_of_its_block_and_its_folders_with_it(tmp_path):
    path = tmp_path / "a/b/file"
    with places.create(path) as stream:
        stream.write(b"content")
        assert not path.exists()
    assert places.read_bytes(path) == b"content"
    assert places.read_bytes(path, 3, 2) == b"te"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_the_file_of_before_and_no_other(tmp_path, error):
    places.write(tmp_path / "file", "old")
    with pytest.raises(error), places.create(tmp_path / "file") as stream:
        stream.write(b"half")
        raise error
    assert (names(tmp_path), places.read_bytes(tmp_path / "file")) == (["file"], b"old")


def test_of_many_who_write_one_file_a_reader_sees_only_whole_contents(tmp_path):
    path, content = tmp_path / "file", b"x" * 100_000
    places.write(path, content)
    seen, done = set(), threading.Event()

    def write() -> None:
        while not done.is_set():
            places.write(path, content)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for _ in range(200):
        seen.add(places.read_bytes(path))
    done.set()
    for writer in writers:
        writer.join()
    assert seen == {content} and names(tmp_path) == ["file"]


def test_files_are_listed_with_their_sizes_and_deleted(tmp_path):
    places.write(tmp_path / "a/one", "1")
    places.write(tmp_path / "two", "22")
    found = places.list_files(tmp_path)
    assert {name: file.size for name, file in found.items()} == {"a/one": 1, "two": 2}
    places.delete([str(tmp_path / "two"), str(tmp_path / "none")])
    assert set(places.list_files(tmp_path)) == {"a/one"}
    places.delete_directory(tmp_path / "a")
    places.delete_directory(tmp_path / "none")
    assert places.list_files(tmp_path) == places.list_files(tmp_path / "none") == {}


def test_a_store_whose_library_is_missing_is_told_with_the_extra(monkeypatch):
    def missing(_):
        raise ModuleNotFoundError("No module named 'boto3'")

    monkeypatch.setitem(places.STORES, "s3", missing)
    places._store.cache_clear()
    with pytest.raises(UserError, match=r"s3:// needs what `pip install 'multihot\[aws\]'`"):
        places.read_bytes("s3://bucket/x")
    places._store.cache_clear()


def test_hdfs_without_an_address_says_how_to_give_it(monkeypatch):
    pytest.importorskip("hdfs")
    for name in ("HDFS_HOST", "HDFS_PORT", "HDFS_USER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="hdfs:// needs --hdfs_host after `--`, or HDFS_HOST"):
        places.read_bytes("hdfs://x")
