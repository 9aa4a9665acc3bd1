"""Reading parts: every row once, in batches of bounded size, with a count that shows a lost row."""

import collections
import dataclasses
import json

import apache_beam as beam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.contract.manifest import REJECTS
from beam_jobs.preprocessing.read import READ_TAG, ReadPart
from beam_jobs.preprocessing.rejects import reject_table, sort_rejects, write_rejects
from beam_jobs.runtime.spill import SpillByKey
from beam_jobs.sources.batches import BATCH_CHARACTERS, BATCH_DOCUMENTS
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.input_files import InputFile


@dataclasses.dataclass
class Lengths:
    """A source whose files hold documents of given lengths; a length of None is a reject."""

    lengths: dict[str, list[int | None]]

    def files(self):
        return [InputFile(name, name, 1) for name in self.lengths]

    def read(self, file):
        for row, length in enumerate(self.lengths[file.name], start=1):
            if length is None:
                yield Reject(file.name, row, "wrong", "", "")
            else:
                yield Document(f"{row}", ("x" * length,), (), 1.0, file.name, row)


def read(
    source: Lengths, progress_dir=None
) -> tuple[list[list[Document]], list[Reject], list[tuple[int, int]]]:
    outputs = list(ReadPart(source, progress_dir).process((7, source.files())))
    tagged = [output for output in outputs if isinstance(output, beam.pvalue.TaggedOutput)]
    rejects = [reject for output in tagged if output.tag != READ_TAG for reject in output.value]
    return (
        [o for o in outputs if isinstance(o, list)],
        rejects,
        [output.value for output in tagged if output.tag == READ_TAG],
    )


@pytest.mark.parametrize(
    "lengths",
    [
        [],
        [None],
        [1] * (2 * BATCH_DOCUMENTS),
        [1, None] * BATCH_DOCUMENTS,
        [BATCH_CHARACTERS // 3] * 10,
    ],
)
def test_every_row_is_there_once_and_counted(tmp_path, lengths):
    source = Lengths({"a": lengths, "b": [2]})
    batches, rejects, read_rows = read(source, str(tmp_path))
    documents = [document for batch in batches for document in batch]
    assert sorted(documents + rejects, key=lambda row: (row.source, row.row)) == [
        row for file in source.files() for row in source.read(file)
    ]
    assert read_rows == [(7, len(lengths) + 1)]
    assert json.loads((tmp_path / "part-000007.json").read_text()) == {
        "read": len(lengths) + 1,
        "rejected": lengths.count(None),
    }


def test_batches_are_full_but_end_early_where_documents_are_long():
    batches, _, _ = read(Lengths({"a": [1] * (2 * BATCH_DOCUMENTS + 3)}))
    assert [len(batch) for batch in batches] == [BATCH_DOCUMENTS, BATCH_DOCUMENTS, 3]
    batches, _, _ = read(
        Lengths({"a": [BATCH_CHARACTERS // 2 - 1] * 7 + [2 * BATCH_CHARACTERS, 1]})
    )
    assert [len(batch) for batch in batches] == [3, 3, 2, 1]


texts = st.text(st.sampled_from('ab\n"é\uffff\U00010000'), max_size=4)
rejects_strategy = st.lists(
    st.builds(
        Reject, source=texts, row=st.integers(0, 30), reason=texts, detail=texts, content=texts
    ),
    max_size=40,
)


@settings(max_examples=30)
@given(rejects=rejects_strategy, cut=st.integers(0, 40))
def test_the_rejects_file_holds_every_reject_once_in_order_and_counts_reasons(
    rejects, cut, tmp_path_factory
):
    folder = str(tmp_path_factory.mktemp("rejects"))
    spill = SpillByKey(folder)
    segments = collections.defaultdict(list)
    for bundle in (rejects[:cut], rejects[cut:]):
        spill.start_bundle()
        assert not list(spill.process(reject_table(bundle)))
        for windowed in spill.finish_bundle():
            segments[windowed.value[0]].append(windowed.value[1])
    counts = write_rejects(
        [sort_rejects(key, parts, folder) for key, parts in segments.items()], folder
    )
    with open(f"{folder}/{REJECTS}", encoding="utf-8") as stream:
        written = [Reject(**json.loads(line)) for line in stream]
    assert written == sorted(rejects, key=dataclasses.astuple)
    expected = collections.Counter(reject.reason for reject in rejects)
    assert list(counts.items()) == sorted(expected.items(), key=lambda item: (-item[1], item[0]))


def test_rejects_of_one_file_are_sorted_in_many_partitions_of_bounded_size():
    table = reject_table([Reject("one file", row, "wrong", "", "") for row in range(20_000)])
    sizes = collections.Counter(table["key"].to_pylist())
    assert len(sizes) == 256 and max(sizes.values()) < 2 * 20_000 / 256
