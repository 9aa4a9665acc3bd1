"""Arrow IPC files and streams, and the folders of them that Hugging Face's `datasets` saves."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import ArrowData
from beam_jobs.sources import paths
from beam_jobs.sources.input_files import InputFile, match_files
from beam_jobs.sources.invalid_row import InvalidRow
from beam_jobs.sources.label_arrays import MAX_ROWS, LabelArrays
from beam_jobs.sources.parquet import BATCH_ROWS, DAMAGE, Labels, ParquetReader, rows_of, values_of

SPLIT = "split"  # the column of the split that a saved dataset is
_FILE_MAGIC = b"ARROW1"
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_STATE, _SPLITS = "state.json", "dataset_dict.json"  # of a dataset, and of several of splits


class ArrowFile:
    """An open file or stream.

    Attributes:
      schema_arrow: its schema.
    """

    def __init__(self, raw: BinaryIO):
        is_file = raw.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        if not is_file:  # pyarrow takes a stream that is cut off between two batches for a whole
            raw.seek(-len(_END_OF_STREAM), 2)
            if raw.read() != _END_OF_STREAM:
                raise EOFError("the stream ends before its end mark")
        raw.seek(0)
        self._reader = pa.ipc.open_file(raw) if is_file else pa.ipc.open_stream(raw)
        self._is_file = is_file
        self.schema_arrow = self._reader.schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        if not self._is_file:
            yield from self._reader
            return
        for i in range(self._reader.num_record_batches):
            yield self._reader.get_batch(i)


@dataclasses.dataclass(frozen=True)
class ArrowReader(ParquetReader):
    """One document per row; its number is its index in the file, from 1. Each file is one part."""

    data: ArrowData
    kind: ClassVar[str] = "Arrow"

    def matched(self) -> list[InputFile]:
        found: dict[str, InputFile] = {}
        for pattern in self.data.inputs:
            for file in _files_of(pattern):
                found.setdefault(file.path, file)
        return [found[path] for path in sorted(found)]

    @contextlib.contextmanager
    def open(self, file: InputFile) -> Iterator[ArrowFile]:
        with FileSystems.open(file.path, compression_type="uncompressed") as raw:
            yield ArrowFile(raw)

    def _plain_bytes(self, arrow: ArrowFile, file: InputFile) -> int:
        """The whole file: what the columns take is known when they are read."""
        return file.bytes

    def _rows(
        self, arrow: ArrowFile, file: InputFile
    ) -> Iterator[tuple[int, dict[str, Any] | InvalidRow, Labels | None]]:
        names = arrow.schema_arrow.names
        known, read = set(names), self._names_read(names)
        tops = (name if name in known else paths.top_name(names, name) for name in read)
        wanted = [name for name in dict.fromkeys(tops) if name in known]
        arrays = self._label_arrays(arrow.schema_arrow)
        num_rows = BATCH_ROWS if arrays is None else MAX_ROWS
        row = 0
        for batch in arrow.batches():
            columns = batch.select(wanted)
            columns.validate(full=True)  # offsets of a damaged batch would lead out of it
            for start in range(0, batch.num_rows, num_rows):  # a batch may be the whole file
                for values, labels in _rows_of(columns.slice(start, num_rows), arrays):
                    row += 1
                    yield row, values, labels


def _rows_of(
    batch: pa.RecordBatch, arrays: LabelArrays | None
) -> Iterator[tuple[dict[str, Any] | InvalidRow, Labels | None]]:
    """(fields, labels) of each row of a batch; labels are None where the fields have them."""
    if arrays is None:
        return ((values, None) for values in values_of(batch))
    labels = arrays.labels([(list(arrays.columns), batch)], batch.num_rows)
    others = [name for name in batch.schema.names if name not in arrays.columns]
    return rows_of(batch.select(others), labels)


def is_saved(folder: str) -> bool:
    """Whether a folder is one that `save_to_disk` has written."""
    return any(FileSystems.exists(FileSystems.join(folder, name)) for name in (_STATE, _SPLITS))


def _files_of(pattern: str) -> list[InputFile]:
    """The files of a pattern, or of the folder of a saved dataset or of several of splits."""
    content = _json_of(pattern, _SPLITS)
    if content is not None:
        return [
            file
            for split in _strings(content.get("splits"), pattern, _SPLITS)
            for file in _files_of_dataset(FileSystems.join(pattern, split), split)
        ]
    if _json_of(pattern, _STATE) is not None:
        return _files_of_dataset(pattern, None)
    return match_files([pattern])


def _files_of_dataset(folder: str, split: str | None) -> list[InputFile]:
    state = _json_of(folder, _STATE)
    if state is None:
        raise UserError(f"data.inputs: {folder!r} has no {_STATE}; save the dataset again")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UserError(
            f"data.inputs: {folder!r} holds rows that a list of indices chooses, which old "
            "versions of datasets wrote; load it with datasets and save it again"
        )
    split = split or state.get("_split")
    entries = state.get("_data_files")
    names = (
        [entry.get("filename") for entry in entries if isinstance(entry, dict)]
        if isinstance(entries, list)
        else None
    )
    files = [
        file
        for name in _strings(names, folder, _STATE)
        for file in match_files([FileSystems.join(folder, name)])
    ]
    own = ((SPLIT, str(split)),) if split else ()
    return [dataclasses.replace(file, partition=file.partition + own) for file in files]


def _json_of(folder: str, name: str) -> dict[str, Any] | None:
    """The object in a file of a folder; None where there is no such file."""
    path = FileSystems.join(folder, name)
    with contextlib.suppress(*DAMAGE, ValueError):
        if FileSystems.exists(path):
            with FileSystems.open(path, compression_type="uncompressed") as stream:
                content = json.load(stream)
            return content if isinstance(content, dict) else {}
    return None


def _strings(names: Any, folder: str, file: str) -> list[str]:
    """Raises UserError unless they are what a folder's file should list."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"data.inputs: {FileSystems.join(folder, file)} is not as save_to_disk writes it; save "
            "the dataset again"
        )
    return names
