"""A user's own source."""

import dataclasses
import re
import sys

import apache_beam as beam
import pytest
from apache_beam.internal import pickler

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import CustomData
from beam_jobs.sources import registry
from beam_jobs.sources.custom import TransformSource
from beam_jobs.sources.documents import Document, Reject

MODULE = """
import dataclasses
from multihot import Document, InputFile

@dataclasses.dataclass
class Numbers:
    count: int
    names: tuple = ("x",)

    def files(self):
        return [InputFile("numbers", "", 0)]

    def read(self, file):
        for i in range(self.count):
            yield Document(f"{i}", (f"number {i}",), tuple(self.names), 1.0, file.name, i + 1)

class NoReader:
    def files(self):
        return []
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "made_source.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("made_source", None)


def make(reader: str, **options):
    return registry.make_reader(CustomData(source="custom", reader=reader, options=options))


def test_a_class_is_made_with_its_options_and_read_like_any_source():
    reader = pickler.loads(pickler.dumps(make("made_source:Numbers", count=2, names=("y", "z"))))
    (file,) = reader.files()
    assert [(row.texts[0], row.labels) for row in reader.read(file)] == [
        ("number 0", ("y", "z")),
        ("number 1", ("y", "z")),
    ]


@pytest.mark.parametrize(
    ("reader", "options", "message"),
    [
        (
            "no_such_source:Numbers",
            {},
            "data.reader: received 'no_such_source:Numbers': No module named",
        ),
        (
            "made_source:Numbrs",
            {},
            "data.reader: received 'made_source:Numbrs': .*no attribute 'Numbrs'",
        ),
        (
            "made_source:Numbers",
            {},
            r"data.options: received \[\], which made_source:Numbers does not take: .*'count'",
        ),
        (
            "made_source:Numbers",
            {"count": 1, "size": 2},
            r"data.options: received \['count', 'size'\], .*'size'",
        ),
        (
            "made_source:NoReader",
            {},
            r"data.reader: made_source:NoReader has no method read\(\) and is not an "
            r"apache_beam.PTransform",
        ),
    ],
)
def test_a_class_that_is_no_source_is_the_users_error(reader, options, message):
    with pytest.raises(UserError, match=message):
        make(reader, **options)


GOOD = Document("1", ("text",), ("a", "b"), 0.5, "here", 3)


@pytest.mark.parametrize(
    ("element", "detail"),
    [
        ({"text": "x"}, "received dict, expected multihot.Document or multihot.Reject"),
        (None, "received NoneType, expected multihot"),
        (
            dataclasses.replace(GOOD, texts="text"),
            "texts: received 'text', expected a tuple of strings",
        ),
        (dataclasses.replace(GOOD, texts=("a", "b")), "texts: received 2, expected 1"),
        (
            dataclasses.replace(GOOD, texts=(b"a",)),
            "texts: received .*, expected a tuple of strings",
        ),
        (dataclasses.replace(GOOD, metadata=()), "metadata: received 0, expected 1"),
        (
            dataclasses.replace(GOOD, labels=("a", None)),
            "labels: received .*, expected a tuple of strings",
        ),
        (dataclasses.replace(GOOD, labels=("a\nb",)), "expected labels without control characters"),
        (dataclasses.replace(GOOD, id=7), "received the id 7"),
        (
            dataclasses.replace(GOOD, weight=float("nan")),
            "weight: received nan, expected a number of 0 or more",
        ),
    ],
)
def test_what_a_transform_should_not_yield_is_rejected_with_what_was_expected(element, detail):
    data = CustomData(source="custom", reader="made_source:Numbers", metadata_fields=("kind",))
    if isinstance(element, Document) and element.metadata == () and "metadata" not in detail:
        element = dataclasses.replace(element, metadata=("k",))
    reject = TransformSource(beam.Create([]), data).checked(element)
    assert isinstance(reject, Reject) and re.search(detail, reject.detail)
    assert reject.source == ("here" if isinstance(element, Document) else "made_source:Numbers")


def test_documents_and_rejects_of_a_transform_are_taken_as_they_are():
    source = TransformSource(
        beam.Create([]), CustomData(source="custom", reader="made_source:Numbers")
    )
    reject = Reject("here", 1, "wrong", "because", "x")
    assert [source.checked(element) for element in (GOOD, reject)] == [GOOD, reject]
