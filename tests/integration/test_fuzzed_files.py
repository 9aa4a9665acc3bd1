"""Whatever is in a file: no reader fails, hangs or loses a row.

The examples are the same in every run.
"""

import collections
import contextlib
import datetime
import itertools
import math
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.validation import validate
from beam_jobs.sources import registry
from beam_jobs.sources.documents import MAX_REJECT_CONTENT, UNREADABLE, Document, Reject
from beam_jobs.sources.input_files import match_files, parts
from tests.fuzzed_files import CLASSES, SETTINGS, Maker, content_of
from tests.fuzzing import CASES

FILES = CASES or 120  # of each source
FILES_AND_ROWS = FILES * 23 // 12  # at least, of each source: 2,070 of the nine

# --- what must hold --------------------------------------------------------------------


def check_row(row, file) -> None:
    """Every row is a document that a record can hold, or a reject that tells why it is none."""
    assert row.source.startswith(file.name) and row.row >= 0
    if isinstance(row, Reject):
        assert row.reason and len(row.content) <= MAX_REJECT_CONTENT
        return
    assert isinstance(row, Document)
    for text in (*row.texts, *row.metadata, row.id):
        text.encode("utf-8", "surrogatepass")
    for label in row.labels:
        assert label == label.strip() and label.encode()
    assert 0 <= row.weight < math.inf
    assert row.split is None or isinstance(row.split, str)
    assert row.time is None or isinstance(row.time, str)


def check_numbers(source: str, rows: list, content: bytes) -> None:
    """No row is lost or there twice: each line or row of a file that is read to its end."""
    numbers = [row.row for row in rows]
    if any(getattr(row, "reason", None) == UNREADABLE for row in rows):
        return
    if source in ("jsonl", "lines", "fasttext", "array", "parquet", "arrow"):
        assert numbers == list(range(1, len(numbers) + 1))
    assert numbers == sorted(numbers)
    is_plain = content[:1] in (b"{", b'"') and not any(mark in content for mark in (b"\0", b"\x1f"))
    if source in ("jsonl", "lines", "fasttext") and is_plain:
        assert len(rows) == content.count(b"\n") + (not content.endswith(b"\n"))


def read_all(reader, **sizes) -> list[tuple]:
    """(file, rows) of the files of a reader, of which ranges are put together again."""
    files = [file for part in parts(reader.files(), **sizes) for file in part]
    read = [(file, list(reader.read(file))) for file in files]
    for file, rows in read:
        for row in rows:
            check_row(row, file)
    return [
        (name, list(itertools.chain.from_iterable(rows for _, rows in group)))
        for name, group in itertools.groupby(read, key=lambda one: one[0].name)
    ]


def check(source: str, content: bytes, settings: dict, folder: Path) -> int:
    """The rows of a file, after everything that must hold has been checked."""
    path = folder / "label" / "in"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    settings = {
        "source": "jsonl" if source == "array" else source,
        "inputs": [str(path)],
    } | settings
    reader = registry.make_reader(validate(CLASSES[source], settings, what="data"))
    try:
        whole = read_all(reader)
    except UserError as error:
        assert str(error) and len(str(error)) < 5000
        return rows_all_the_same(reader, path) if source in ("jsonl", "array", "csv") else 0
    assert read_all(reader, part_bytes=1, range_bytes=max(50, len(content) // 3)) == whole
    for _, rows in whole:
        check_numbers(source, rows, content)
    return sum(len(rows) for _, rows in whole)


def rows_all_the_same(reader, path: Path) -> int:
    """The rows of a file that does not fit the settings, as if it had changed meanwhile."""
    (file,) = match_files([str(path)])
    rows = []
    with contextlib.suppress(UserError):
        rows.extend(reader.read(file))
    for row in rows:
        check_row(row, file)
    return len(rows)


@pytest.mark.parametrize("source", SETTINGS)
def test_every_row_of_any_file_is_a_document_or_a_reject(source, tmp_path):
    seen = collections.Counter()

    @hypothesis.settings(
        max_examples=FILES,
        derandomize=True,
        database=None,
        deadline=datetime.timedelta(seconds=20),  # none hangs
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(st.integers(0, 1 << 32))
    def run(seed):
        maker = Maker(seed)
        settings = maker.choice(SETTINGS[source])
        seen["files"] += 1
        seen["rows"] += check(source, content_of(source, maker), settings, tmp_path)

    run()
    assert seen["files"] + seen["rows"] >= FILES_AND_ROWS
