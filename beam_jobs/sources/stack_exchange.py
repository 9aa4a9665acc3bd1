"""`Posts.xml` of Stack Exchange's data dumps (https://archive.org/details/stackexchange).

The dumps write each post as one line, `<row ... />`, so lines are parsed one by one: memory stays
flat, a broken post spoils only itself, and a large file is read in parallel. Parsing the file as
one XML document would allow none of that.
"""

import dataclasses
import re
import sys
from collections.abc import Iterator
from xml.etree import ElementTree

from beam_jobs.contract.sections.data import StackExchangeData
from beam_jobs.sources import streams
from beam_jobs.sources.documents import MAX_REJECT_CONTENT, UNREADABLE, Document, Reject
from beam_jobs.sources.fields import decode, too_long
from beam_jobs.sources.input_files import InputFile, match_files
from beam_jobs.sources.invalid_row import InvalidRow, checked_labels

_QUESTION = "1"
_ATTRIBUTES = {"title": "Title", "body": "Body"}
_TAG = re.compile(r"[^<>|]+")  # both `<a><b>`, as dumps had it until 2023, and `|a|b|`
_REFERENCE = re.compile(r"&#(x[0-9A-Fa-f]{1,8}|[0-9]{1,8});")
_FORBIDDEN = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff\\ufffe\\uffff]")
_FIRST_LINES = ("<?xml", "<posts>")
_LAST_LINE = b"</posts>"


@dataclasses.dataclass(frozen=True)
class StackExchangeReader:
    """One document per question, in the HTML of its body; answers and other posts have no tags."""

    data: StackExchangeData

    def files(self) -> list[InputFile]:
        return streams.ranges_where_plain(match_files(self.data.inputs, unit="line"))

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        max_bytes = self.data.max_row_bytes
        row, line = 0, b""
        try:
            with streams.open_utf8(file.path, file.member) as stream:
                for row, line, is_whole in streams.numbered_lines(stream, file, max_bytes):
                    try:
                        if not is_whole:
                            raise too_long(max_bytes)
                        document = self._document(
                            decode(line).removeprefix("\ufeff").strip(), file.name, row
                        )
                        if document:
                            yield document
                    except InvalidRow as error:
                        yield error.reject(
                            file.name,
                            row,
                            line[:MAX_REJECT_CONTENT].decode("utf-8", "replace").strip(),
                        )
                # The last line may begin in a range before the last.
                is_at_end = not stream.read(1)
        except streams.DAMAGE as error:
            yield streams.unreadable(file, row + 1, error)
            return
        if row and is_at_end and not line.strip().endswith(_LAST_LINE):
            yield Reject(
                file.name, row, UNREADABLE, f"the file ends before {_LAST_LINE.decode()}", ""
            )

    def _document(self, line: str, source: str, row: int) -> Document | None:
        if not line or line.startswith(_FIRST_LINES) or line == _LAST_LINE.decode():
            return None
        try:
            post = _parse(line)
        except (ElementTree.ParseError, ValueError) as error:
            raise InvalidRow("not XML", f"{error}; expected one `<row ... />` per line") from None
        if post.tag != "row" or "PostTypeId" not in post.attrib:
            raise InvalidRow(
                "not a post",
                f"received <{post.tag}> with {', '.join(sorted(post.attrib)) or 'nothing'}, "
                "expected <row> with PostTypeId",
            )
        if post.get("PostTypeId") != _QUESTION:
            return None
        if not post.get("Id"):
            raise InvalidRow("no id", "Id is missing")
        missing = [
            _ATTRIBUTES[part]
            for part in self.data.text_fields
            if _ATTRIBUTES[part] not in post.attrib
        ]
        if missing:
            raise InvalidRow(
                "no text", f"{missing[0]} is missing; the post has {', '.join(sorted(post.attrib))}"
            )
        tags = post.get("Tags", "")
        return Document(
            id=f"{source}:{post.get('Id')}",  # several sites have the same ids
            texts=self.data.texts(
                [post.attrib[_ATTRIBUTES[part]] for part in self.data.text_fields]
            ),
            labels=checked_labels(_TAG.findall(tags), "Tags", tags),
            weight=1.0,
            source=source,
            row=row,
            time=post.get("CreationDate"),
            metadata=tuple(post.get(field, "") for field in self.data.metadata_fields),
        )


def _parse(line: str) -> ElementTree.Element:
    """A row's element, without references to characters that XML forbids, which dumps have."""
    try:
        return ElementTree.fromstring(line)
    except ElementTree.ParseError:
        allowed = _REFERENCE.sub(_if_allowed, line)
        if allowed == line:
            raise
        return ElementTree.fromstring(allowed)


def _if_allowed(reference: re.Match[str]) -> str:
    """A numeric reference, or nothing where XML has no such character."""
    digits = reference[1].lower()
    number = int(digits[1:], 16) if digits.startswith("x") else int(digits)
    is_allowed = number <= sys.maxunicode and not _FORBIDDEN.match(chr(number))
    return reference[0] if is_allowed else ""
