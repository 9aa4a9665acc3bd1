"""Sources -> documents. A reader lists its files and reads one file at a time; Beam reads files in parallel."""

import bz2
import contextlib
import dataclasses
import gzip
import hashlib
import json
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.config import DataConfig, JsonlData
from beam_jobs.contract.errors import UserError
from beam_jobs.docstrings import DocstringsReader
from beam_jobs.documents import MAX_REJECT_CONTENT, UNREADABLE, Document, Reject
from beam_jobs.inputs import InputFile

PART_BYTES = 4 << 20  # 4 MiB: small files are read together in parts of about this size
MAX_WEIGHT = float(np.finfo(np.float32).max)


class Reader(Protocol):
    """A source. It is pickled to the workers, so it holds nothing but its config."""

    def files(self) -> list[InputFile]:
        """The input files; raises UserError where there are none."""

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        """Everything in one file, in its order. Nothing is dropped in silence."""


def make_reader(data: DataConfig) -> Reader:
    """The reader of a config's `data` section."""
    if isinstance(data, JsonlData):
        return JsonlReader(data)
    return DocstringsReader(data)


def parts(files: Sequence[InputFile]) -> list[list[InputFile]]:
    """Groups files, in order, into units of parallel work."""
    groups: list[list[InputFile]] = []
    group: list[InputFile] = []
    group_bytes = 0
    for file in files:
        group.append(file)
        group_bytes += file.bytes
        if group_bytes >= PART_BYTES:
            groups.append(group)
            group, group_bytes = [], 0
    return [*groups, group] if group else groups


def input_hash(files: Iterable[InputFile]) -> str:
    """SHA-256, in hex, of the files' names and sizes: what recognises an input that was read before."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.bytes}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def match_files(patterns: Sequence[str]) -> list[InputFile]:
    """The files that match any of the patterns, sorted by name and each once.

    Raises:
      UserError: a pattern matches nothing or a directory, or belongs to a file system that is not installed.
    """
    here = os.path.join(os.getcwd(), "")
    found: dict[str, InputFile] = {}
    for pattern in patterns:
        # Beam itself finds nothing for a bare `*.jsonl`, and a worker's working directory may be another one.
        absolute = pattern if FileSystems.get_scheme(pattern) else os.path.abspath(pattern)
        try:
            matches = FileSystems.match([absolute])[0].metadata_list
        except (ValueError, BeamIOError) as error:
            raise UserError(f"data.inputs: cannot look for {pattern!r}: {error}") from None
        if not matches:
            raise UserError(f"data.inputs: no file matches {pattern!r}; expected a file or a glob pattern, seen from the working directory")
        for match in matches:
            if os.path.isdir(match.path):
                raise UserError(f"data.inputs: {pattern!r} is a directory; expected files, such as {os.path.join(pattern, '*.jsonl')!r}")
            found[match.path] = InputFile(name=match.path.removeprefix(here), path=match.path, bytes=match.size_in_bytes)
    return [found[path] for path in sorted(found)]


@dataclasses.dataclass(frozen=True)
class JsonlReader:
    """One JSON object a line; blank lines are skipped. `.gz`, `.bz2` and `.xz` files are decompressed."""

    data: JsonlData

    def files(self) -> list[InputFile]:
        return match_files(self.data.inputs)

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        row = 0
        try:
            with FileSystems.open(file.path, compression_type="uncompressed") as raw, _decompressed(raw, file.path) as stream:
                for row, line in enumerate(stream, start=1):
                    if line.strip():
                        yield self._parse(line, file.name, row)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            yield Reject(file.name, row + 1, UNREADABLE, f"{type(error).__name__}: {error}", "")

    def _parse(self, line: bytes, source: str, row: int) -> Document | Reject:
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise _Rejected("not an object", f"received a JSON {type(values).__name__}, expected an object")
            return Document(
                id=self._id(values, source, row),
                text=self._text(values),
                labels=self._labels(values),
                weight=self._weight(values),
                source=source,
                row=row,
            )
        except UnicodeDecodeError as error:
            reason, detail = "not UTF-8", str(error)
        except (ValueError, RecursionError) as error:
            reason, detail = "not JSON", str(error)
        except _Rejected as error:
            reason, detail = error.reason, error.detail
        return Reject(source, row, reason, detail, line[:MAX_REJECT_CONTENT].decode("utf-8", "replace").rstrip("\r\n"))

    def _id(self, values: dict[str, Any], source: str, row: int) -> str:
        if self.data.id_field is None:
            return f"{source}:{row}"
        value = values.get(self.data.id_field)
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            raise _Rejected("no id", f"{self.data.id_field}: received {_short(value)}, expected a string or an integer")
        return str(value)

    def _text(self, values: dict[str, Any]) -> str:
        texts = []
        for field in self.data.text_fields:
            if values.get(field) is None:
                raise _Rejected("no text", f"field {field!r} is missing or null; the row has {', '.join(map(repr, sorted(values)))}")
            if not isinstance(values[field], str):
                raise _Rejected("text is no string", f"{field}: received {_short(values[field])}, expected a string")
            texts.append(values[field])
        return "\n\n".join(texts)

    def _labels(self, values: dict[str, Any]) -> tuple[str, ...]:
        received = values.get(self.data.labels_field)
        what = f"{self.data.labels_field}: received {_short(received)}"
        if received is None:
            if self.data.labels_field not in values:
                raise _Rejected("no labels", f"field {self.data.labels_field!r} is missing; expected a list, which may be empty")
            return ()
        if self.data.label_delimiter is not None:
            if not isinstance(received, str):
                raise _Rejected("labels are no string", f"{what}, expected labels joined by {self.data.label_delimiter!r}")
            received = [label for label in received.split(self.data.label_delimiter) if label.strip()]
        elif not isinstance(received, list):
            raise _Rejected("labels are no list", f"{what}, expected a list of strings; for joined labels set data.label_delimiter")
        elif not all(isinstance(label, str) and label.strip() for label in received):
            raise _Rejected("label is no string", f"{what}, expected a list of strings that are not empty")
        labels = tuple(label.strip() for label in received)
        if not all(map(str.isprintable, labels)):
            raise _Rejected("label is not printable", f"{what}, expected labels without control characters or line breaks")
        return labels

    def _weight(self, values: dict[str, Any]) -> float:
        if self.data.weight_field is None:
            return 1.0
        value = values.get(self.data.weight_field)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_WEIGHT:
            raise _Rejected("no weight", f"{self.data.weight_field}: received {_short(value)}, expected a number from 0 to {MAX_WEIGHT:.1e}")
        return float(value)


def _decompressed(raw: BinaryIO, path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    # Beam's own decompression takes a file that is cut off for a whole one.
    openers = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener = openers.get(os.path.splitext(path)[1], contextlib.nullcontext)
    return opener(raw)


class _Rejected(Exception):
    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
