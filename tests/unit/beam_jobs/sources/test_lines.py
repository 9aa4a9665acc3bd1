"""Text files with a document a line."""

from beam_jobs.contract.dataset_config import LinesData
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.input_files import parts
from beam_jobs.sources.lines import LinesReader


def read(content: bytes, folder, *, range_bytes=1 << 20, **data) -> list[Document | Reject]:
    (folder / "in.txt").write_bytes(content)
    reader = LinesReader(LinesData(inputs=(str(folder / "in.txt"),), **data))
    files = [file for part in parts(reader.files(), range_bytes=range_bytes) for file in part]
    return [row for file in files for row in reader.read(file)]


def test_every_line_is_a_document_or_a_reject(tmp_path):
    content = b"\xef\xbb\xbfone\r\n\n  \n\xff\n" + b"x" * 30 + b"\nlast"
    rows = read(content, tmp_path, max_row_bytes=20)
    assert [(row.row, row.texts) for row in rows if isinstance(row, Document)] == [
        (1, ("one",)),
        (2, ("",)),
        (3, ("  ",)),
        (6, ("last",)),
    ]
    assert [(row.row, row.reason) for row in rows if isinstance(row, Reject)] == [
        (4, "not UTF-8"),
        (5, "row too long"),
    ]
    assert rows[0].id.endswith("in.txt:1")
    assert read(b"", tmp_path) == [] and len(read(b"\n", tmp_path)) == 1


def test_ranges_read_each_line_once(tmp_path):
    content = b"".join(b"word%d\n" % (i * 7919) + b"\n" * (i % 3) for i in range(200))
    whole = read(content, tmp_path)
    assert len(whole) == content.count(b"\n")
    assert read(content, tmp_path, range_bytes=100) == whole
