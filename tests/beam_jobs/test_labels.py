"""Cleaning labels, against plain Python."""

import json

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.dataset_config import LabelsConfig
from beam_jobs.contract.manifest import LabelChanges
from beam_jobs.job import preprocess, summary
from beam_jobs.labels import LabelRules

KIND = pa.large_list(pa.large_string())
names = st.sampled_from(["a", "A", "b", "B", "straße", "STRASSE", "c", "x"])
rules = st.builds(
    LabelsConfig,
    fold_case=st.booleans(),
    aliases=st.dictionaries(st.sampled_from(["a", "B"]), st.sampled_from(["c", "X"])),
    deny=st.lists(names, max_size=2).map(tuple),
    allow=st.none() | st.lists(names, min_size=1, max_size=3).map(tuple),
)


def reference(lists: list[list[str]], config: LabelsConfig) -> tuple[list[list[str]], dict[str, int]]:
    fold = str.casefold if config.fold_case else str
    counts = dict.fromkeys(LabelChanges.model_fields, 0)
    cleaned = []
    for labels in lists:
        cleaned.append([])
        for received in labels:
            name = fold(received)
            counts["case_folded"] += name != received
            for alias, target in config.aliases.items():
                if name == fold(alias):
                    name = fold(target)
                    counts["aliased"] += 1
                    break
            if name in map(fold, config.deny):
                counts["denied"] += 1
            elif config.allow is not None and name not in map(fold, config.allow):
                counts["not_allowed"] += 1
            else:
                cleaned[-1].append(name)
    return cleaned, counts


@given(lists=st.lists(st.lists(names, max_size=4), max_size=8), cut=st.integers(0, 8), config=rules)
def test_cleaning_equals_the_reference_and_counts_every_change(lists, cut, config):
    received = pa.chunked_array([pa.array(lists[:cut], KIND), pa.array(lists[cut:], KIND)])
    cleaned, changes = LabelRules(config).clean(received)
    expected, counts = reference(lists, config)
    assert cleaned.type == KIND and cleaned.to_pylist() == expected
    assert changes.model_dump() == counts


def test_cleaned_labels_are_merged_limited_and_counted_in_the_manifest(tmp_path):
    rows = [["Math-ph", "meta"], ["math.MP", "math-ph"], ["math.mp", "rare"], ["cs"], ["CS", "meta", "other"]]
    lines = [json.dumps({"text": f"words of number{i}", "labels": labels}) for i, labels in enumerate(rows * 3)]
    lines = [line.replace('"rare"', f'"rare{i}"') for i, line in enumerate(lines)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {"source": "jsonl", "inputs": [str(tmp_path / "in.jsonl")]},
            "labels": {"fold_case": True, "aliases": {"math-ph": "math.MP"}, "deny": ["Meta"], "min_count": 2, "top_k": 2},
            "splits": {"train": 1, "validation": 0, "test": 0},
            "output": {"dataset_dir": str(tmp_path / "dataset")},
        },
        what="",
    )
    preprocess(config, beam_arguments=[], overwrite=False, force=False)
    manifest = manifests.load(tmp_path / "dataset")
    labels = manifests.load_labels(manifest, tmp_path / "dataset")
    assert [(label["name"], label["positives"]["train"]) for label in labels] == [("cs", 6), ("math.mp", 9)]
    assert (tmp_path / "dataset/labels.json").read_text().count("\n") == 2 + len(labels)  # one a line
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
