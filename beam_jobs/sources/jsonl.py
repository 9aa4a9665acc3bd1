"""JSON: an object a line, or one array of objects."""

import codecs
import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from beam_jobs.contract.errors import UserError, shown
from beam_jobs.contract.sections.data import JsonlData
from beam_jobs.sources import json_array, paths, streams
from beam_jobs.sources.documents import BLANK_LINE, MAX_REJECT_CONTENT, Document, Reject
from beam_jobs.sources.fields import (
    A_ROW,
    Fields,
    FirstLabels,
    check_columns,
    decode,
    encoding_hint,
    too_long,
)
from beam_jobs.sources.input_files import InputFile, match_files
from beam_jobs.sources.invalid_row import InvalidRow
from beam_jobs.sources.label_members import LabelMembers

_FIRST_BYTES = 4096
_PEEKED_ROWS = 100  # a field that none of the first rows has is a mistake in the config


@dataclasses.dataclass(frozen=True)
class JsonlReader:
    """One document per JSON object: of a line, or of the file's only array."""

    data: JsonlData
    fields: type[Fields] = Fields  # what makes documents of its rows

    def files(self) -> list[InputFile]:
        files = streams.ranges_where_plain(match_files(self.data.inputs, unit="line"))
        files = [
            dataclasses.replace(file, unit=None) if self._is_array(file) else file for file in files
        ]
        self._check_fields(files)
        return files

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        fields = self.fields(self.data, partition=dict(file.partition))
        members = LabelMembers(self.data, fields.label_columns)
        max_bytes = self.data.max_row_bytes
        row = 0
        try:
            with streams.open_utf8(file.path, file.member) as stream:
                for row, line, is_whole in self._rows(stream, file):
                    if is_whole and line.isspace():
                        yield Reject(file.name, row, BLANK_LINE, A_ROW, "")
                        continue
                    try:
                        if not is_whole:
                            raise too_long(max_bytes)
                        yield _document(fields, members, line, file.name, row)
                    except InvalidRow as error:
                        yield error.reject(
                            file.name,
                            row,
                            line[:MAX_REJECT_CONTENT].decode("utf-8", "replace").rstrip("\r\n"),
                        )
        except streams.DAMAGE as error:
            yield streams.unreadable(file, row + 1, error)

    def _is_array(self, file: InputFile) -> bool:
        """Whether a file is one JSON array, unlike one of lines, of which the first is an array."""
        if file.start:  # arrays are read as a whole
            return False
        with (
            contextlib.suppress(*streams.DAMAGE),
            streams.open_utf8(file.path, file.member) as stream,
        ):
            start = stream.read(_FIRST_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
            if start and not start.startswith(b"["):
                return False
        with (
            contextlib.suppress(*streams.DAMAGE),
            streams.open_utf8(file.path, file.member) as stream,
        ):
            rows = streams.numbered_lines(stream, file, self.data.max_row_bytes)
            lines = (line.removeprefix(codecs.BOM_UTF8).strip() for _, line, _ in rows)
            first = next(filter(None, lines), b"")
            return first.startswith(b"[") and not (any(lines) and _is_json(first))
        return False

    def _rows(self, stream: BinaryIO, file: InputFile) -> Iterator[tuple[int, bytes, bool]]:
        """(row, its JSON, whether it is whole) of a file's lines, or of its array's elements."""
        if self._is_array(file):
            return json_array.elements(stream, self.data.max_row_bytes)
        return streams.numbered_lines(stream, file, self.data.max_row_bytes)

    def _check_fields(self, files: list[InputFile]) -> None:
        for file in files:
            found: dict[str, None] = {}
            nested: dict[str, None] = {}
            first = b""
            labels = FirstLabels(Fields(self.data, partition=dict(file.partition)))
            try:
                with streams.open_utf8(file.path, file.member) as stream:
                    for row, line, _ in itertools.islice(self._rows(stream, file), _PEEKED_ROWS):
                        first = first or line.removeprefix(codecs.BOM_UTF8).strip()
                        try:
                            values = _parse(line, row)
                            found.update(dict.fromkeys(values))
                            nested.update(dict.fromkeys(paths.nested_names(values)))
                            labels.see(values)
                        except InvalidRow:
                            continue
            except streams.DAMAGE:
                pass  # reported with file and row when the file is read
            if not found and first == b"{":
                raise UserError(
                    f"{file.name}: received a JSON object over several lines, expected an object a "
                    f"line or one array of objects; `jq -c . {file.name} > rows.jsonl` puts each "
                    "on a line, and `jq -c '.rows[]'` those that are within `rows`"
                )
            if found:
                found.update(dict.fromkeys(name for name, _ in file.partition))
                try:
                    check_columns(self.data, found, file.name, nested=nested)
                except UserError as error:
                    raise UserError(f"{error} in its first {_PEEKED_ROWS} rows") from None
                labels.check(file.name)
                return


def _document(
    fields: Fields, members: LabelMembers, line: bytes, source: str, row: int
) -> Document:
    """Raises InvalidRow."""
    if cut := members.cut(line):
        rest, labels = cut
        with contextlib.suppress(InvalidRow):  # what is wrong is told of the whole row
            values = _parse(rest, row)
            if members.are_others(values):
                return fields.document(values, source, row, labels=labels)
    values = _parse(line, row)
    members.learn(line, values)
    return fields.document(values, source, row)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises InvalidRow if a key is there twice: which of its values counts is unknown."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRow("key is there twice", f"received {shown(twice)} twice, expected one")
    return values


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(line: bytes, row: int) -> dict:
    text = decode(line)
    try:
        values = json.loads(
            text.removeprefix("\ufeff") if row == 1 else text, object_pairs_hook=_object
        )
    except (ValueError, RecursionError) as error:
        raise InvalidRow("not JSON", f"{error}{encoding_hint(line)}") from None
    if not isinstance(values, dict):
        raise InvalidRow(
            "not an object", f"received a JSON {type(values).__name__}, expected an object"
        )
    return values
