"""A dataset on an object store, as a local one: its files are downloaded when they are needed.

TensorFlow reads no `s3://`, so a worker copies the shards of its own plan to a cache. Its folder is
named by the manifest's hash, and a file is there only once its SHA-256 is that of the manifest.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import FileInfo, Manifest

_DATASETS = "datasets"  # of the cache
_THREADS = 8  # files at a time


def open_remote(place: str) -> tuple[Path, Manifest]:
    """The folder of a remote dataset in the cache, with all of its files but the shards.

    Raises:
      UserError: it is no complete dataset, or cannot be read.
    """
    manifest = manifests.load(place)
    content = places.read_bytes(places.join(place, manifests.MANIFEST))
    if manifests.parse(json.loads(content), what=place) != manifest:
        raise UserError(f"the dataset {place} was made again in this moment; start again")
    directory = places.cache_directory() / _DATASETS / hashlib.sha256(content).hexdigest()[:32]
    shards = {shard.file for split in manifest.splits.values() for shard in split.shards}
    fetch(place, directory, [info for info in manifest.files() if info.file not in shards])
    places.write(directory / manifests.MANIFEST, content)
    return directory, manifest


def fetch(place: str, directory: Path, files: Iterable[FileInfo]) -> None:
    """Copies files of a dataset to the cache, unless they are there.

    Raises:
      UserError: one cannot be read, or is not what the manifest says.
    """
    missing = [info for info in files if not _is_there(directory / info.file, info)]
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda info: _fetch_one(place, directory, info), missing))


def _is_there(path: Path, info: FileInfo) -> bool:
    return path.is_file() and path.stat().st_size == info.bytes


def _fetch_one(place: str, directory: Path, info: FileInfo) -> None:
    path, unchecked = directory / info.file, directory / f".{uuid.uuid4().hex}.tmp"
    source = places.join(place, info.file)
    try:
        received = places.download(source, unchecked)
        if received != info.sha256:
            raise UserError(
                f"{source} has SHA-256 {received}, expected {info.sha256}: the dataset was changed "
                "after it was made; run the preprocessing again"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        unchecked.replace(path)
    except FileNotFoundError:
        raise UserError(f"{source} is missing: the dataset was made again; start again") from None
    finally:
        unchecked.unlink(missing_ok=True)
