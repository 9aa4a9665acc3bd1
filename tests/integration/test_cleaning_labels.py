"""Cleaning labels in whole jobs: what the manifest counts, and what is told."""

import json
import shutil

import pytest

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.inspection.dataset import describe
from beam_jobs.preprocessing.job import preprocess, summary
from tests.corpus import files_of


def test_cleaned_labels_are_merged_limited_and_counted_in_the_manifest(tmp_path):
    rows = [
        ["Math-ph", "meta"],
        ["math.MP", "math-ph"],
        ["math.mp", "rare"],
        ["cs"],
        ["CS", "meta", "other"],
    ]
    lines = [
        json.dumps({"text": f"words of number{i}", "labels": labels})
        for i, labels in enumerate(rows * 3)
    ]
    lines = [line.replace('"rare"', f'"rare{i}"') for i, line in enumerate(lines)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {"source": "jsonl", "inputs": [str(tmp_path / "in.jsonl")]},
            "labels": {
                "fold_case": True,
                "aliases": {"math-ph": "math.MP"},
                "deny": ["Meta"],
                "min_count": 2,
                "top_k": 2,
            },
            "splits": {"train": 1, "validation": 0, "test": 0},
            "output": {"dataset_dir": str(tmp_path / "dataset")},
        },
        what="",
    )
    preprocess(config, beam_arguments=[], overwrite=False, force=False)
    manifest = manifests.load(tmp_path / "dataset")
    labels = manifests.load_labels(manifest, tmp_path / "dataset")
    assert [(label["name"], label["positives"]["train"]) for label in labels] == [
        ("cs", 6),
        ("math.mp", 9),
    ]
    assert (files_of(tmp_path / "dataset") / "labels.json").read_text().count("\n") == 2 + len(
        labels
    )  # one a line
    assert manifest.label_counts.model_dump() == {
        "case_folded": 9,
        "aliased": 6,
        "denied": 6,
        "not_allowed": 0,
        "distinct": 6,
        "below_min_count": 3,
        "beyond_top_k": 1,
        "occurrences": 21,
        "occurrences_kept": 15,
    }
    assert "label occurrences renamed by alias: 6\n" in summary(manifest)
    assert "label occurrences of labels below min_count or beyond top_k: 6\n" in summary(manifest)


def made(folder, **labels):
    (folder / "in.jsonl").write_text(
        "\n".join(
            json.dumps(
                {"id": i, "text": f"words of number{i}", "labels": ["a b", "é", "c"][: i % 4]}
            )
            for i in range(20)
        )
    )
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {"source": "jsonl", "inputs": [str(folder / "in.jsonl")], "id_field": "id"},
            "labels": labels,
            "output": {"dataset_dir": str(folder / "dataset")},
        },
        what="",
    )
    preprocess(config, beam_arguments=[], overwrite=False, force=False)
    manifest = manifests.load(folder / "dataset")
    return manifest, [
        label["name"] for label in manifests.load_labels(manifest, folder / "dataset")
    ]


def test_an_allow_list_in_a_file_keeps_what_the_list_keeps_and_changes_are_recognised(
    tmp_path,
):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "allow.txt").write_text("\ufeffa b\n\n  é  \nnever\n")
    manifest, names = made(tmp_path / "one", allow=str(tmp_path / "allow.txt"))
    other, same_names = made(tmp_path / "two", allow=["a b", "é", "never"])
    assert names == same_names == ["a b", "é"]
    assert manifest.label_counts == other.label_counts and manifest.label_counts.not_allowed == 5
    assert [shard.sha256 for shard in manifest.splits["train"].shards] == [
        shard.sha256 for shard in other.splits["train"].shards
    ]
    assert made(tmp_path / "one", allow=str(tmp_path / "allow.txt"))[0] == manifest  # recognised
    (tmp_path / "allow.txt").write_text("a b\nc\nnever\n")
    with pytest.raises(
        UserError, match="was made with other content of .*allow.txt .labels.allow."
    ):
        made(tmp_path / "one", allow=str(tmp_path / "allow.txt"))


def test_included_labels_are_in_the_dataset_on_few_documents_and_on_none(tmp_path, capsys):
    earlier, later = tmp_path / "earlier", tmp_path / "later"
    for folder in (earlier, later):
        folder.mkdir()
    manifest, names = made(earlier, min_count=7, include=["never", "é"])
    labels = manifests.load_labels(manifest, earlier / "dataset")
    assert names == ["a b", "never", "é"]
    assert [sum(label["positives"].values()) for label in labels] == [15, 0, 10]
    counts = manifest.label_counts
    assert (counts.distinct, counts.below_min_count, counts.beyond_top_k) == (3, 1, 0)
    assert "labels.include: 1 name occurs on no document: 'never'" in capsys.readouterr().out
    # All labels of an earlier dataset, whatever the rules of this one.
    manifest, names = made(later, top_k=1, include=str(earlier / "dataset"))
    assert names == ["a b", "never", "é"] and manifest.label_counts.beyond_top_k == 1
    assert made(later, top_k=1, include=str(earlier / "dataset"))[0] == manifest  # recognised
    (tmp_path / "texts.json").write_text('{"never": "not once", "c": "the third letter"}')
    with pytest.raises(UserError, match="was made with another config"):
        made(later, top_k=1, include=str(tmp_path / "texts.json"))
    shutil.rmtree(later / "dataset")
    _, names = made(later, top_k=1, include=str(tmp_path / "texts.json"))
    assert names == ["a b", "c", "never"]


def test_a_dataset_needs_documents_with_labels_beside_included_ones(tmp_path):
    with pytest.raises(UserError, match="none of 20 documents has a label that is kept"):
        made(tmp_path, min_count=50, include=["never"])


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"\xff", "invalid start byte"), (b" \n", "holds no label")],
)
def test_an_allow_list_that_cannot_be_read_or_is_empty_is_the_users_error(
    tmp_path, content, message
):
    if content is not None:
        (tmp_path / "allow.txt").write_bytes(content)
    with pytest.raises(
        UserError,
        match=f"labels.allow: .*{message}.*expected a list, a UTF-8 file with one label per line",
    ):
        made(tmp_path, allow=str(tmp_path / "allow.txt"))


@pytest.mark.parametrize(("keep", "written", "dropped"), [(True, 20, 0), (False, 15, 5)])
def test_documents_without_kept_labels_are_kept_or_dropped_and_counted(
    tmp_path, keep, written, dropped
):
    counts = made(tmp_path, keep_unlabeled=keep)[0].counts
    assert (counts.written, counts.dropped_without_labels, counts.written_without_labels) == (
        written,
        dropped,
        5 - dropped,
    )


def test_names_and_metadata_that_match_nothing_are_told(tmp_path, capsys):
    lines = [
        json.dumps(
            {"text": f"words of number{i}", "labels": ["a"], "queue": "", "kind": "x" * (i == 9)}
        )
        for i in range(20)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {
                "source": "jsonl",
                "inputs": [str(tmp_path / "in.jsonl")],
                "metadata_fields": ["kind", "queue"],
            },
            "labels": {"allow": ["a", *(f"typo{i}" for i in range(9))], "deny": ["Meta"]},
            "output": {"dataset_dir": str(tmp_path / "dataset")},
        },
        what="",
    )
    preprocess(config, beam_arguments=[], overwrite=False, force=False)
    printed = capsys.readouterr().out
    assert "warning: labels.deny: 1 name occurs on no document: 'Meta'\n" in printed
    assert "warning: labels.allow: 9 names occur on no document: 'typo0', " in printed
    assert "'typo4', ...\n" in printed
    assert "warning: data.metadata_fields: 'queue' is empty in every document\n" in printed
    assert printed.count("warning:") == 3
    directory = tmp_path / "dataset"
    manifest = manifests.load(directory)
    statistics = manifests.load_statistics(manifest, directory)
    assert statistics["unused_label_names"]["labels.deny"] == {"count": 1, "first": ["Meta"]}
    assert statistics["empty_metadata_fields"] == ["queue"]
    described = "\n".join(describe(manifest, directory, labels=4))
    assert "labels.allow: 9 on no document, such as typo0, typo1" in described
    assert "metadata that is empty in every document: queue" in described


def test_rows_that_a_stray_quote_may_have_taken_are_told(tmp_path, capsys):
    rows = ["text,labels", '"bread soup,food', 'salt pepper",food', "soup salt pepper,cats"]
    (tmp_path / "in.csv").write_text("\n".join(rows))
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {"source": "csv", "inputs": [str(tmp_path / "in.csv")]},
            "splits": {"train": 1, "validation": 0, "test": 0},
            "output": {"dataset_dir": str(tmp_path / "dataset")},
        },
        what="",
    )
    preprocess(config, beam_arguments=[], overwrite=False, force=False)
    printed = capsys.readouterr().out
    assert "warning: 1 rows in quotes span lines" in printed
    assert "set data.quote_character: null\n" in printed
