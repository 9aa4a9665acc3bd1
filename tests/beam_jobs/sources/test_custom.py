"""A user's own source."""

import pickle

import pytest

from beam_jobs import readers
from beam_jobs.contract.dataset_config import CustomData
from beam_jobs.contract.errors import UserError

MODULE = """
import dataclasses
from beam_jobs.documents import Document
from beam_jobs.inputs import InputFile

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


def make(reader: str, **options):
    return readers.make_reader(CustomData(source="custom", reader=reader, options=options))


def test_a_class_is_made_with_its_options_and_read_like_any_source():
    reader = pickle.loads(pickle.dumps(make("made_source:Numbers", count=2, names=("y", "z"))))
    (file,) = reader.files()
    assert [(row.texts[0], row.labels) for row in reader.read(file)] == [("number 0", ("y", "z")), ("number 1", ("y", "z"))]


@pytest.mark.parametrize(
    ("reader", "options", "message"),
    [
        ("no_such_source:Numbers", {}, "data.reader: cannot import 'no_such_source:Numbers': No module named"),
        ("made_source:Numbrs", {}, "data.reader: cannot import 'made_source:Numbrs': .*no attribute 'Numbrs'"),
        ("made_source:Numbers", {}, r"data.options: received \[\], which made_source:Numbers does not take: .*'count'"),
        ("made_source:Numbers", {"count": 1, "size": 2}, r"data.options: received \['count', 'size'\], .*'size'"),
        ("made_source:NoReader", {}, r"data.reader: made_source:NoReader has no method read\(\)"),
    ],
)
def test_a_class_that_is_no_source_is_the_users_error(reader, options, message):
    with pytest.raises(UserError, match=message):
        make(reader, **options)
