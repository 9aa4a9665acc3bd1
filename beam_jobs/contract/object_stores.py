"""Object stores and HDFS: whole files are read, put, listed and deleted.

Over the client libraries that Beam's own file systems use, which come with the extras `gcp`, `aws`
and `hadoop`. Beam's files cannot be abandoned: where writing fails half-way, closing them puts half
an object in place, and an empty one cannot be closed on S3 at all. Here an object appears whole,
by one call, or not at all.
"""

import abc
import dataclasses
import itertools
import os
import posixpath
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from beam_jobs.contract.errors import UserError

_BATCH = 1000  # objects that S3 deletes in one request
_THREADS = 8  # requests at a time


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """A file of a listing.

    Attributes:
      path: its path.
      size: its size in bytes.
      updated: when it was written, in seconds of 1970.
      version: differs from that of another content at the same path.
    """

    path: str
    size: int
    updated: float
    version: str = ""


class Store(abc.ABC):
    """A kind of storage. Paths are URLs; reading what is not there raises FileNotFoundError."""

    @abc.abstractmethod
    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """The content, or `length` bytes of it from `offset` on."""

    @abc.abstractmethod
    def download(self, path: str, target: BinaryIO) -> None:
        """Writes the content to a local file."""

    @abc.abstractmethod
    def put(self, path: str, source: BinaryIO) -> None:
        """The rest of a local file becomes the content, whole or not at all."""

    @abc.abstractmethod
    def put_new(self, path: str, content: bytes) -> bool:
        """Puts a file unless it is there, which is one step where the store can do that; whether it
        has put it.
        """

    @abc.abstractmethod
    def list(self, directory: str) -> Iterator[StoredFile]:
        """All files below a directory, which may not exist."""

    @abc.abstractmethod
    def delete(self, paths: Iterable[str]) -> None:
        """Deletes files; those that are not there are no error."""


class S3Store(Store):
    """S3, and what speaks its protocol. Options are Beam's; what they leave open, boto3 finds."""

    def __init__(self, options: Mapping[str, Any]):
        import boto3
        from botocore.exceptions import ClientError

        self._client = boto3.session.Session().client(
            "s3",
            region_name=options.get("s3_region_name"),
            api_version=options.get("s3_api_version"),
            use_ssl=not options.get("s3_disable_ssl"),
            verify=options.get("s3_verify"),
            endpoint_url=options.get("s3_endpoint_url"),
            aws_access_key_id=options.get("s3_access_key_id"),
            aws_secret_access_key=options.get("s3_secret_access_key"),
            aws_session_token=options.get("s3_session_token"),
        )
        self._error = ClientError

    def read(self, path, offset=0, length=None):
        if length == 0:
            return b""
        end = "" if length is None else offset + length - 1
        # An empty object has no range.
        part = {} if not offset and length is None else {"Range": f"bytes={offset}-{end}"}
        return self._found(path, self._client.get_object, **part)["Body"].read()

    def download(self, path, target):
        bucket, key = _bucket_and_key(path)
        try:
            self._client.download_fileobj(bucket, key, target)
        except self._error as error:
            raise self._explained(error, path) from None

    def put(self, path, source):
        self._client.upload_fileobj(source, *_bucket_and_key(path))

    def put_new(self, path, content):
        bucket, key = _bucket_and_key(path)
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
        except self._error as error:
            code = error.response.get("Error", {}).get("Code")
            if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                return False
            if code not in ("NotImplemented", "501"):
                raise
            self._client.put_object(Bucket=bucket, Key=key, Body=content)
        return True

    def list(self, directory):
        bucket, prefix = _bucket_and_key(directory.rstrip("/") + "/")
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for found in itertools.chain.from_iterable(page.get("Contents", ()) for page in pages):
            updated = found["LastModified"].timestamp()
            path, version = f"s3://{bucket}/{found['Key']}", found.get("ETag", "")
            yield StoredFile(path, found["Size"], updated, version)

    def delete(self, paths):
        by_bucket: dict[str, list[str]] = {}
        for bucket, key in map(_bucket_and_key, paths):
            by_bucket.setdefault(bucket, []).append(key)
        for bucket, keys in by_bucket.items():
            for start in range(0, len(keys), _BATCH):
                objects = [{"Key": key} for key in keys[start : start + _BATCH]]
                self._client.delete_objects(Bucket=bucket, Delete={"Objects": objects})

    def _found(self, path: str, get: Callable, **arguments) -> Any:
        bucket, key = _bucket_and_key(path)
        try:
            return get(Bucket=bucket, Key=key, **arguments)
        except self._error as error:
            raise self._explained(error, path) from None

    def _explained(self, error: Exception, path: str) -> Exception:
        code = error.response.get("Error", {}).get("Code")
        return FileNotFoundError(path) if code in ("NoSuchKey", "404") else error


class GcsStore(Store):
    """Google Cloud Storage, with the credentials that Google's libraries find, or without any."""

    def __init__(self, options: Mapping[str, Any]):
        from google.api_core.exceptions import NotFound, PreconditionFailed
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud import storage

        try:
            self._client = storage.Client(project=options.get("project"))
        except DefaultCredentialsError:
            self._client = storage.Client.create_anonymous_client()
        self._not_found, self._is_there = NotFound, PreconditionFailed

    def read(self, path, offset=0, length=None):
        if length == 0:
            return b""
        end = None if length is None else offset + length - 1
        part = {} if not offset and length is None else {"start": offset, "end": end}
        try:
            return self._blob(path).download_as_bytes(raw_download=True, **part)
        except self._not_found:
            raise FileNotFoundError(path) from None

    def download(self, path, target):
        try:
            self._blob(path).download_to_file(target, raw_download=True)
        except self._not_found:
            raise FileNotFoundError(path) from None

    def put(self, path, source):
        position = source.tell()
        size = source.seek(0, os.SEEK_END) - position
        source.seek(position)
        # Without its size even a small file takes two requests.
        self._blob(path).upload_from_file(source, size=size)

    def put_new(self, path, content):
        try:
            self._blob(path).upload_from_string(content, if_generation_match=0)
        except self._is_there:
            return False
        return True

    def list(self, directory):
        bucket, prefix = _bucket_and_key(directory.rstrip("/") + "/")
        for blob in self._client.list_blobs(bucket, prefix=prefix):
            updated, version = blob.updated.timestamp(), str(blob.generation)
            yield StoredFile(f"gs://{bucket}/{blob.name}", blob.size, updated, version)

    def delete(self, paths):
        def delete_one(path: str) -> None:
            try:
                self._blob(path).delete()
            except self._not_found:
                return

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(delete_one, paths))

    def _blob(self, path: str) -> Any:
        bucket, key = _bucket_and_key(path)
        return self._client.bucket(bucket).blob(key)


class HdfsStore(Store):
    """HDFS by its WebHDFS interface, or by HttpFS.

    The rename of HttpFS replaces nothing: there a file that is replaced is deleted first, so that
    for a moment there is none.
    """

    def __init__(self, options: Mapping[str, Any]):
        import hdfs

        def option(name: str) -> str:
            value = options.get(name) or os.environ.get(name.upper())
            if not value:
                raise UserError(
                    f"hdfs:// needs --{name} after `--`, or {name.upper()} in the environment; "
                    "expected --hdfs_host, --hdfs_port and --hdfs_user of WebHDFS"
                )
            return value

        address = f"http://{option('hdfs_host')}:{option('hdfs_port')}"
        self._client = hdfs.InsecureClient(address, user=option("hdfs_user"))
        self._names_server = bool(options.get("hdfs_full_urls"))
        self._error = hdfs.HdfsError

    def read(self, path, offset=0, length=None):
        if length == 0:
            return b""
        return self._found(path, lambda reader: reader.read(), offset=offset, length=length)

    def download(self, path, target):
        def copy(reader: BinaryIO) -> None:
            while block := reader.read(1 << 20):
                target.write(block)

        self._found(path, copy)

    def put(self, path, source):
        name = self._path(path)
        folder, leaf = posixpath.split(name)
        temporary = f"{folder}/.{leaf}.{uuid.uuid4().hex}.tmp"
        try:
            self._client.write(temporary, data=source, overwrite=True)
            self._replace(temporary, name)
        except self._error:
            self._client.delete(temporary)
            raise

    def put_new(self, path, content):
        try:
            self._client.write(self._path(path), data=content, overwrite=False)
        except self._error:
            if self._client.status(self._path(path), strict=False) is None:
                raise
            return False
        return True

    def list(self, directory):
        root = self._path(directory).rstrip("/")
        # A folder that another process deletes meanwhile has no files.
        found = self._client.walk(root, status=True, ignore_missing=True)
        try:
            for (folder, _), _, files in found:
                for name, status in files:
                    inner = f"{folder}/{name}".removeprefix(root)
                    yield StoredFile(
                        directory.rstrip("/") + inner,
                        status["length"],
                        status["modificationTime"] / 1000,
                        str(status["modificationTime"]),
                    )
        except self._error as error:
            if error.exception != "FileNotFoundException":
                raise

    def delete(self, paths):
        for path in paths:
            self._client.delete(self._path(path))

    def _replace(self, source: str, target: str) -> None:
        """Renames a file over what is there."""
        # The client's own `rename` does not ask for the option of WebHDFS, whose answer is empty.
        answer = self._client._rename(source, destination=target, renameoptions="OVERWRITE")
        if answer.content and not answer.json()["boolean"]:
            self._client.delete(target)
            self._client.rename(source, target)

    def _found(self, path: str, use: Callable[[BinaryIO], Any], **part) -> Any:
        try:
            with self._client.read(self._path(path), **part) as reader:
                return use(reader)
        except self._error as error:
            if error.exception == "FileNotFoundException":
                raise FileNotFoundError(path) from None
            raise

    def _path(self, url: str) -> str:
        path = "/" + url.removeprefix("hdfs://").lstrip("/")
        return "/" + path[1:].partition("/")[2] if self._names_server else path


STORES: dict[str, type[Store]] = {"gs": GcsStore, "s3": S3Store, "hdfs": HdfsStore}
EXTRAS = {"gs": "gcp", "s3": "aws", "hdfs": "hadoop"}  # of setup.py


def _bucket_and_key(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("://")[2].partition("/")
    return bucket, key
