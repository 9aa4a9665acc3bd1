"""Text files with a document a line: without labels, or with fastText's."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator

from beam_jobs.contract.errors import UserError, shown
from beam_jobs.contract.sections.data import FasttextData, LinesData
from beam_jobs.sources import streams
from beam_jobs.sources.documents import BLANK_LINE, MAX_REJECT_CONTENT, Document, Reject
from beam_jobs.sources.fields import A_ROW, decode, too_long
from beam_jobs.sources.input_files import InputFile, match_files
from beam_jobs.sources.invalid_row import InvalidRow, checked_labels

_PEEKED_LINES = 100
_LABEL_PREFIX = FasttextData.model_fields["label_prefix"].default


@dataclasses.dataclass(frozen=True)
class LinesReader:
    """One document a line, also where the line is blank: its id is the file's name and the line."""

    data: LinesData

    def files(self) -> list[InputFile]:
        files = _text_files(self.data)
        for file in files:
            self._check_no_labels(file)
        return files

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        for row, text in _numbered_texts(file, self.data.max_row_bytes):
            yield text if isinstance(text, Reject) else _document(file, row, text, ())

    def _check_no_labels(self, file: InputFile) -> None:
        """Raises UserError if most of the first lines begin with labels, which would be taken for
        words; lines without labels may be among them.
        """
        rows = itertools.islice(_numbered_texts(file, self.data.max_row_bytes), _PEEKED_LINES)
        texts = [text for _, text in rows if isinstance(text, str) and text.strip()]
        labeled = [text for text in texts if text.startswith(_LABEL_PREFIX)]
        if 2 * len(labeled) > len(texts):
            raise UserError(
                f"{file.name}: its lines begin with labels, such as {shown(labeled[0])}, expected "
                "text; --source fasttext parts labels and text"
            )


@dataclasses.dataclass(frozen=True)
class FasttextReader:
    """One document a line; words with a prefix are its labels, wherever in the line they are."""

    data: FasttextData

    def files(self) -> list[InputFile]:
        return _text_files(self.data)

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        for row, text in _numbered_texts(file, self.data.max_row_bytes):
            if isinstance(text, Reject):
                yield text
            elif not text.strip():
                yield Reject(file.name, row, BLANK_LINE, A_ROW, "")
            else:
                try:
                    yield _document(
                        file, row, self._label.sub("", text).strip(), self._labels(text)
                    )
                except InvalidRow as error:
                    yield error.reject(file.name, row, text)

    def _labels(self, text: str) -> tuple[str, ...]:
        prefix = self.data.label_prefix
        names = [match[1] for match in self._label.finditer(text)]
        if not all(names):
            raise InvalidRow(
                "label is empty", f"received {prefix!r} alone, expected a name after it"
            )
        if joined := [name for name in names if prefix in name]:
            raise InvalidRow(
                "labels are joined",
                f"received {shown(prefix + joined[0])}, expected spaces before each {prefix!r}",
            )
        return checked_labels(names, "labels", text)

    @functools.cached_property
    def _label(self) -> re.Pattern:
        """A label with the spaces after it. fastText parts words at these characters alone."""
        space = r" \t\v\f\r\0"
        return re.compile(
            rf"(?:(?<=[{space}])|^){re.escape(self.data.label_prefix)}([^{space}]*)[{space}]*"
        )


def _text_files(data: LinesData | FasttextData) -> list[InputFile]:
    return streams.ranges_where_plain(match_files(data.inputs, unit="line"))


def _numbered_texts(file: InputFile, max_bytes: int) -> Iterator[tuple[int, str | Reject]]:
    """(row, text) of each line; a line that cannot be one is a reject, and so is the rest of a
    damaged file.
    """
    row = 0
    try:
        with streams.open_utf8(file.path, file.member) as stream:
            for row, line, is_whole in streams.numbered_lines(stream, file, max_bytes):
                try:
                    if not is_whole:
                        raise too_long(max_bytes)
                    text = decode(line).rstrip("\r\n")
                except InvalidRow as error:
                    content = line[:MAX_REJECT_CONTENT].decode("utf-8", "replace")
                    yield row, error.reject(file.name, row, content.rstrip("\r\n"))
                    continue
                yield row, text.removeprefix("\ufeff") if row == 1 else text
    except streams.DAMAGE as error:
        yield row + 1, streams.unreadable(file, row + 1, error)


def _document(file: InputFile, row: int, text: str, labels: tuple[str, ...]) -> Document:
    return Document(
        id=f"{file.name}:{row}",
        texts=(text,),
        labels=labels,
        weight=1.0,
        source=file.name,
        row=row,
    )
