"""A wrong document, for every source: a reject with file, row and reason; the others are read."""

import gzip
import random
from pathlib import Path

import pytest

from beam_jobs.contract.config import config_from_dict
from beam_jobs.sources import registry
from beam_jobs.sources.documents import UNREADABLE, Document, Reject
from tests.three_documents import WRITERS, of_the_middle, read


@pytest.fixture(params=WRITERS)
def source(request) -> str:
    return request.param


@pytest.mark.parametrize(
    ("label", "reason"), [("a\nb", "label is not printable"), ("x" * 10_000, "label is too long")]
)
def test_a_label_that_cannot_be_one_is_a_reject(source, tmp_path, label, reason):
    reject = of_the_middle(source, tmp_path, label=label)
    assert isinstance(reject, Reject) and reject.reason == reason


@pytest.mark.parametrize("label", ["food, drink", "l'été", "x" * 1000, '"quoted"'])
def test_a_label_may_hold_commas_quotes_and_a_thousand_characters(source, tmp_path, label):
    assert of_the_middle(source, tmp_path, label=label).labels == (label,)


@pytest.mark.parametrize("text", ["a\0b", "\0"])
def test_a_nul_is_text_where_the_format_can_hold_it_and_a_reject_where_it_cannot(
    source, tmp_path, text
):
    found = of_the_middle(source, tmp_path, text=text)
    if source in ("jsonl", "parquet", "directories"):
        assert found.texts == (text,)
    else:
        assert found.reason == {"csv": "NUL character", "stack_exchange": "not XML"}[source]


def test_documents_with_equal_ids_and_different_texts_are_all_read(source, tmp_path):
    rows = read(
        source, tmp_path, [("same", "one", "x"), ("same", "two", "y"), ("same", "one", "y")]
    )
    assert [(row.texts, row.labels) for row in rows] == [
        (("one",), ("x",)),
        (("two",), ("y",)),
        (("one",), ("y",)),
    ]


@pytest.mark.parametrize("compressed", ["jsonl", "csv", "directories", "stack_exchange"])
def test_a_compressed_file_that_is_cut_off_ends_in_a_reject_after_what_could_be_read(
    compressed, tmp_path
):
    rows = [(f"{i}", f"{random.Random(i).random()} " * 30, "fine") for i in range(2000)]
    data = WRITERS[compressed](tmp_path, rows)
    plain = Path(data["inputs"][0])
    content = gzip.compress(plain.read_bytes())
    plain.with_name(f"{plain.name}.gz").write_bytes(content[: len(content) // 2])
    config = config_from_dict(
        {"name": "x", "data": {"source": compressed} | data | {"inputs": [f"{plain}.gz"]}}, what="x"
    )
    reader = registry.make_reader(config.data)
    *documents, reject = (row for file in reader.files() for row in reader.read(file))
    assert 100 < len(documents) < 1900 and all(isinstance(row, Document) for row in documents)
    assert (reject.source, reject.reason) == (
        f"{plain}.gz",
        UNREADABLE,
    ) and reject.row >= documents[-1].row


@pytest.mark.parametrize("text_file", ["jsonl", "csv", "stack_exchange"])
def test_an_empty_file_holds_no_documents(text_file, tmp_path):
    data = WRITERS[text_file](tmp_path, [("1", "text", "x")])
    Path(data["inputs"][0]).write_bytes(b"")
    reader = registry.make_reader(
        config_from_dict({"name": "x", "data": {"source": text_file} | data}, what="x").data
    )
    assert [row for file in reader.files() for row in reader.read(file)] == []
