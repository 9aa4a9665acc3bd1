"""Whatever a runner of the preprocessing job loses or repeats, nothing is published."""

import functools
import json

import pytest

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.sections.duplicates import DuplicatesConfig
from beam_jobs.contract.sections.splits import StratifiedSplits
from beam_jobs.contract.sections.text import TextConfig
from beam_jobs.preprocessing import near_duplicates, stratified_split
from beam_jobs.preprocessing.analyze import Analyze
from beam_jobs.preprocessing.bucket_stats import POSITIVES, CountBucket
from beam_jobs.preprocessing.buckets import DOCUMENTS
from beam_jobs.preprocessing.encode_labels import EncodeBucket
from beam_jobs.preprocessing.frequencies import COUNTS
from beam_jobs.preprocessing.job import preprocess
from beam_jobs.preprocessing.merge_duplicates import MergeDuplicates
from beam_jobs.preprocessing.read import ReadPart
from beam_jobs.preprocessing.rejects import REJECT_ROWS
from beam_jobs.preprocessing.subwords import CountWords, SplitBucket
from beam_jobs.preprocessing.writer import WriteShard
from beam_jobs.runtime.spill import SpillByKey
from beam_jobs.sources import input_files, registry


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Twelve files, each a part, with documents in all splits, and one reject."""
    monkeypatch.setattr(registry, "parts", functools.partial(input_files.parts, part_bytes=1))
    (tmp_path / "in").mkdir()
    for part in range(12):
        lines = [
            json.dumps({"text": f"word{part} again{i} ever", "labels": [f"l{i % 2}"]})
            for i in range(10)
        ]
        (tmp_path / f"in/{part}.jsonl").write_text("\n".join(lines))
    with open(tmp_path / "in/9.jsonl", "a") as stream:
        stream.write("\nno document")
    data = {"source": "jsonl", "inputs": [str(tmp_path / "in/*.jsonl")]}
    splits = {"train": 0.4, "validation": 0.3, "test": 0.3}
    return config_from_dict(
        {
            "name": "tiny",
            "data": data,
            "splits": splits,
            "output": {"dataset_dir": str(tmp_path / "out/dataset"), "shards": 2},
        },
        what="",
    )


def run(config) -> None:
    preprocess(config, beam_arguments=[], overwrite=False, force=False)


def lose_outputs(patch, do_fn, is_lost):
    """From now on, `do_fn.process` gives nothing for inputs that `is_lost`."""
    process = do_fn.process
    patch.setattr(
        do_fn,
        "process",
        lambda self, element, *sides: (
            iter(()) if is_lost(element) else process(self, element, *sides)
        ),
    )


def lose_a_segment(patch, schema):
    """From now on, the first segment of each spill of tables of `schema` is lost."""
    spill = SpillByKey._spill

    def lossy(self):
        is_hit = bool(self._tables) and set(self._tables[0].column_names) == {*schema.names, "key"}
        segments = list(spill(self))
        return iter(segments[1:] if is_hit else segments)

    patch.setattr(SpillByKey, "_spill", lossy)


def repeat_a_part(patch):
    process = ReadPart.process

    def repeating(self, part):
        yield from process(self, part)
        if part[0] == 3:
            yield from process(self, part)

    patch.setattr(ReadPart, "process", repeating)


UNACCOUNTED = "of .* documents .* are neither written nor duplicates nor rejected nor dropped"
# What is lost: how, and what the error says of it.
LOSSES = {
    "a part": (
        lambda patch: lose_outputs(patch, ReadPart, lambda part: part[0] == 3),
        "received 11 parts of the input, expected 12",
    ),
    "a repeated part": (repeat_a_part, "received 13 parts of the input, expected 12"),
    "a batch of documents": (
        lambda patch: lose_outputs(
            patch, Analyze, lambda documents: documents[0].texts[0].startswith("word5")
        ),
        "of 121 documents 10 are neither written",
    ),
    "a segment of documents": (lambda patch: lose_a_segment(patch, DOCUMENTS), UNACCOUNTED),
    "a segment of counts": (
        lambda patch: lose_a_segment(patch, COUNTS),
        "label occurrences before rare labels are dropped lost; .* tokens of the train split lost",
    ),
    "a segment of positives": (
        lambda patch: lose_a_segment(patch, POSITIVES),
        "label occurrences of the dataset lost",
    ),
    "the rejects": (lambda patch: lose_a_segment(patch, REJECT_ROWS), "of 121 documents 1 are"),
    "a bucket": (
        lambda patch: lose_outputs(patch, MergeDuplicates, lambda element: element[0] == 2),
        UNACCOUNTED,
    ),
    "a bucket with label ids": (
        lambda patch: lose_outputs(patch, EncodeBucket, lambda bucket: bucket.index == 1),
        UNACCOUNTED,
    ),
    "the statistics of a bucket": (
        lambda patch: lose_outputs(patch, CountBucket, lambda bucket: bucket.index == 1),
        UNACCOUNTED,
    ),
    "a shard": (
        lambda patch: lose_outputs(
            patch, WriteShard, lambda plan: plan.split == "test" and plan.index == 1
        ),
        UNACCOUNTED,
    ),
}


def expect_loss(message: str):
    return pytest.raises(
        RuntimeError,
        match=f"the runner lost or repeated data, so nothing is published: .*{message}",
    )


@pytest.mark.parametrize("what", LOSSES)
def test_nothing_is_published_when_the_runner_loses_or_repeats(config, tmp_path, monkeypatch, what):
    lose, message = LOSSES[what]
    lose(monkeypatch)
    with expect_loss(message):
        run(config)
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_published_when_splits_get_lost_on_their_way_back(config, tmp_path, monkeypatch):
    lose_a_segment(monkeypatch, stratified_split.SPLIT)
    with pytest.raises(
        RuntimeError, match="the runner lost or repeated data: received .* splits, expected one for"
    ):
        run(config.model_copy(update={"splits": StratifiedSplits(method="stratified")}))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("near", ["drop", "report"])
@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (near_duplicates.BANDED, "documents by band lost"),
        (near_duplicates.PAIRS, "pairs of near-duplicates lost"),
    ],
)
def test_nothing_is_published_when_what_finds_near_duplicates_gets_lost(
    config, tmp_path, monkeypatch, near, schema, message
):
    with open(tmp_path / "in/0.jsonl", "a") as stream:
        for i in range(60):
            stream.write(
                "\n"
                + json.dumps(
                    {
                        "text": f"{'alike ' * 3}of many words that stand here number{i}",
                        "labels": [f"near{i % 3}"],
                    }
                )
            )
    duplicates = DuplicatesConfig(near=near, similarity=0.5, shingle_tokens=1)
    lose_a_segment(monkeypatch, schema)
    with expect_loss(message):
        run(config.model_copy(update={"duplicates": duplicates}))
    assert list((tmp_path / "out").iterdir()) == []


def lose_counts(patch):
    """From now on, the words of bucket 1 are counted and the counts are lost."""
    process = CountWords.process

    def lossy(self, bucket):
        return (
            item
            for item in process(self, bucket)
            if bucket.index != 1 or getattr(item, "tag", "") != "counts"
        )

    patch.setattr(CountWords, "process", lossy)


SUBWORD_LOSSES = {
    "a bucket that is counted": (
        lambda patch: lose_outputs(patch, CountWords, lambda bucket: bucket.index == 1),
        UNACCOUNTED,
    ),
    "the words of a bucket": (lose_counts, "words of the train split lost"),
    "a bucket of subwords": (
        lambda patch: lose_outputs(patch, SplitBucket, lambda bucket: bucket.index == 1),
        UNACCOUNTED,
    ),
}


@pytest.mark.parametrize("what", SUBWORD_LOSSES)
def test_nothing_is_published_when_what_makes_subwords_gets_lost(
    config, tmp_path, monkeypatch, what
):
    lose, message = SUBWORD_LOSSES[what]
    lose(monkeypatch)
    with expect_loss(message):
        run(config.model_copy(update={"text": TextConfig(subwords="train")}))
    assert list((tmp_path / "out").iterdir()) == []


def test_without_a_loss_the_same_input_is_published(config, tmp_path):
    run(config)
    manifest = manifests.load(tmp_path / "out/dataset")
    assert (manifest.counts.read, manifest.counts.written, manifest.counts.rejected) == (
        121,
        120,
        {"not JSON": 1},
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dataset"]


def test_a_batch_in_which_no_document_has_a_token_is_no_failure(config, tmp_path):
    (tmp_path / "in/5.jsonl").write_text('{"text": "...", "labels": ["l0"]}\n')
    run(
        config.model_copy(
            update={"data": config.data.model_copy(update={"max_reject_fraction": 0.5})}
        )
    )
    assert manifests.load(tmp_path / "out/dataset").counts.rejected == {
        "empty text": 1,
        "not JSON": 1,
    }
