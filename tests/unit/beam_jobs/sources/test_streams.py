"""Files are recognised by their first bytes, in every source of text."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import zipfile

import pytest
import zstandard

from beam_jobs.contract.sections.data import CsvData, JsonlData, LinesData
from beam_jobs.sources import registry
from beam_jobs.sources.documents import UNREADABLE
from beam_jobs.sources.input_files import parts

TEXTS = ["first é", "second", *(f"word {i}" for i in range(50))]


def zipped(content: bytes, names=("folder/in",)) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", "")
        archive.writestr("__MACOSX/in", "x")
        for name in names:
            archive.writestr(name, content)
    return stream.getvalue()


PACKED = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "Zstandard": zstandard.ZstdCompressor().compress,
    "zip": zipped,
    "plain": bytes,
}
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32": b"",
}


def reader_of(source: str, content_of, path):
    """A reader of TEXTS in a file of this source."""
    if source == "jsonl":
        content = "".join(
            json.dumps({"text": text, "labels": ["x"]}, ensure_ascii=False) + "\n" for text in TEXTS
        )
        data = JsonlData(source="jsonl", inputs=(str(path),))
    elif source == "csv":
        content = "text,labels\n" + "".join(f"{text},x\n" for text in TEXTS)
        data = CsvData(source="csv", inputs=(str(path),))
    else:
        content = "".join(f"{text}\n" for text in TEXTS)
        data = LinesData(inputs=(str(path),))
    path.write_bytes(content_of(content))
    return registry.make_reader(data)


def read(reader):
    files = [file for part in parts(reader.files(), range_bytes=100) for file in part]
    return [row for file in files for row in reader.read(file)]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("source", ["jsonl", "csv", "lines"])
def test_compression_and_encoding_are_recognised_whatever_the_name(
    tmp_path, source, packed, encoding
):
    def content_of(text: str) -> bytes:
        return PACKED[packed](ENCODINGS[encoding] + text.encode(encoding))

    rows = read(reader_of(source, content_of, tmp_path / "in.data"))
    assert [row.texts for row in rows] == [(text,) for text in TEXTS]


@pytest.mark.parametrize("source", ["jsonl", "csv", "lines"])
def test_cut_archives_and_cut_characters_are_rejects(tmp_path, source):
    for content_of in (
        lambda text: zipped(text.encode())[:-30],
        lambda text: text.encode("utf-16")[:-1],
        lambda text: gzip.compress(text.encode())[:-12],
    ):
        assert read(reader_of(source, content_of, tmp_path / "in"))[-1].reason == UNREADABLE


def test_utf_16_without_a_mark_is_named_in_the_reject(tmp_path):
    reader = reader_of("jsonl", lambda text: text.encode("utf-16-le"), tmp_path / "in.jsonl")
    rows = read(reader)
    assert len(rows) == len(TEXTS) + 1  # the last is half a line break
    assert all("is the file UTF-16" in row.detail for row in rows)
    assert {row.reason for row in rows} == {"not UTF-8", "not JSON"}
