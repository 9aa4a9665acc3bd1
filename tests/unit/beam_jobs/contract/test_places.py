"""Files appear whole or not at all, also where several write the same one."""

import contextlib
import io
import json
import threading
import types

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


class FakeHdfs:
    """What `hdfs.InsecureClient` does, in memory: files by their paths; of HttpFS, too."""

    def __init__(self, hdfs, is_httpfs):
        self.files: dict[str, bytes] = {}
        self._error, self._is_httpfs = hdfs.HdfsError, is_httpfs

    def status(self, path, strict=True):
        inside = any(name.startswith(f"{path}/") for name in self.files)
        return {} if path in self.files or inside else None

    def write(self, path, data, overwrite=False):
        if path in self.files and not overwrite:
            raise self._error("there is such a file")
        self.files[path] = data if isinstance(data, bytes) else data.read()

    def rename(self, source, target):
        if target in self.files:
            raise self._error("there is such a file")
        self.files[target] = self.files.pop(source)

    def _rename(self, source, destination, renameoptions):
        assert renameoptions == "OVERWRITE"
        is_done = destination not in self.files or not self._is_httpfs
        if is_done:
            self.files[destination] = self.files.pop(source)
        content = json.dumps({"boolean": is_done}).encode() if self._is_httpfs else b""
        return types.SimpleNamespace(content=content, json=lambda: json.loads(content))

    def delete(self, path):
        return self.files.pop(path, None) is not None

    @contextlib.contextmanager
    def read(self, path, offset=0, length=None):
        if path not in self.files:
            raise self._error("there is none", exception="FileNotFoundException")
        yield io.BytesIO(self.files[path][offset:][:length])

    def walk(self, root, status, ignore_missing):
        if self.status(root) is None:
            raise self._error("there is none", exception="FileNotFoundException")
        for path, content in self.files.items():
            if path.startswith(f"{root}/"):
                folder, _, name = path.rpartition("/")
                yield (folder, {}), [], [(name, {"length": len(content), "modificationTime": 5000})]


def test_the_client_of_hdfs_passes_the_option_of_a_rename_on():
    hdfs, requests = pytest.importorskip("hdfs"), pytest.importorskip("requests")
    asked = []

    class Session(requests.Session):
        def request(self, method, url, **given):
            asked.append((method, url, given["params"]))
            answer = requests.Response()
            answer.status_code, answer._content = 200, b""
            return answer

    client = hdfs.InsecureClient("http://h:1", user="u", session=Session())
    client._rename("/a", destination="/b", renameoptions="OVERWRITE")
    ((method, url, parameters),) = asked
    assert (method, url) == ("PUT", "http://h:1/webhdfs/v1/a")
    assert parameters == {"op": "RENAME", "destination": "/b", "renameoptions": "OVERWRITE"}


@pytest.mark.parametrize("is_httpfs", [False, True])
@pytest.mark.parametrize(("url", "full_urls"), [("hdfs://data/x", False), ("hdfs://nn/x", True)])
def test_hdfs_files_are_put_over_leftovers_and_found_by_their_urls(
    monkeypatch, url, full_urls, is_httpfs
):
    hdfs = pytest.importorskip("hdfs")
    client = FakeHdfs(hdfs, is_httpfs)
    monkeypatch.setattr(hdfs, "InsecureClient", lambda *_, **__: client)
    options = {"hdfs_host": "h", "hdfs_port": 9870, "hdfs_user": "u", "hdfs_full_urls": full_urls}
    places.configure(options)
    for content in ("left by a killed run", "whole", "", "content"):
        places.write(f"{url}/a/file", content)
        assert places.read_bytes(f"{url}/a/file") == content.encode()
    assert not places.write_new(f"{url}/a/file", "no")
    assert places.write_new(f"{url}/new", "yes") and places.read_bytes(f"{url}/new") == b"yes"
    places.delete([f"{url}/new"])
    assert list(client.files) == ["/x/a/file" if full_urls else "/data/x/a/file"]
    assert places.read_bytes(f"{url}/a/file", 3, 2) == b"te"
    with places.open_local(f"{url}/a/file") as stream:
        assert stream.read() == b"content"
    (name, file), *others = places.list_files(url).items()
    assert (name, file.path, file.size, file.updated) == ("a/file", f"{url}/a/file", 7, 5.0)
    assert not others and places.list_files(f"{url}/none") == {}
    with pytest.raises(FileNotFoundError):
        places.read_bytes(f"{url}/none")
    places.delete_directory(url)
    assert client.files == {}
    places.configure({})
