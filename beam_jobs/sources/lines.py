"""Text files with a document a line, without labels."""

import dataclasses
from collections.abc import Iterator

from beam_jobs.contract.dataset_config import LinesData
from beam_jobs.sources import streams
from beam_jobs.sources.documents import MAX_REJECT_CONTENT, Document, Reject
from beam_jobs.sources.fields import decode, too_long
from beam_jobs.sources.input_files import InputFile, match_files
from beam_jobs.sources.invalid_row import InvalidRow


@dataclasses.dataclass(frozen=True)
class LinesReader:
    """One document a line, also where the line is blank: its id is the file's name and the line."""

    data: LinesData

    def files(self) -> list[InputFile]:
        return streams.ranges_where_plain(match_files(self.data.inputs, unit="line"))

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        max_bytes = self.data.max_row_bytes
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
                        yield error.reject(file.name, row, content.rstrip("\r\n"))
                        continue
                    yield Document(
                        id=f"{file.name}:{row}",
                        texts=(text.removeprefix("\ufeff") if row == 1 else text,),
                        labels=(),
                        weight=1.0,
                        source=file.name,
                        row=row,
                    )
        except streams.DAMAGE as error:
            yield streams.unreadable(file, row + 1, error)
