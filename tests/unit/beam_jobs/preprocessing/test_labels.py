"""Cleaning labels, against plain Python."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import LabelChanges
from beam_jobs.contract.sections.labels import LabelsConfig
from beam_jobs.preprocessing.labels import LabelRules, resolve

KIND = pa.large_list(pa.large_string())
names = st.sampled_from(["a", "A", "b", "B", "straße", "STRASSE", "c", "x"])
rules = st.builds(
    LabelsConfig,
    fold_case=st.booleans(),
    aliases=st.dictionaries(st.sampled_from(["a", "B"]), st.sampled_from(["c", "X"])),
    deny=st.lists(names, max_size=2).map(tuple),
    allow=st.none() | st.lists(names, min_size=1, max_size=3).map(tuple),
)


def reference(
    lists: list[list[str]], config: LabelsConfig
) -> tuple[list[list[str]], dict[str, int]]:
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
    cleaned, changes, _ = LabelRules(config).clean(received)
    expected, counts = reference(lists, config)
    assert cleaned.type == KIND and cleaned.to_pylist() == expected
    assert changes.model_dump() == counts


@given(lists=st.lists(st.lists(names, max_size=4), max_size=8), config=rules)
def test_names_of_the_config_that_never_occur_are_counted(lists, config):
    fold = str.casefold if config.fold_case else str
    parts = [pa.chunked_array([pa.array(part, KIND)]) for part in (lists[::2], lists[1::2])]
    label_rules = LabelRules(config)
    unused = label_rules.unused([label_rules.clean(part)[2] for part in parts])
    aliases = {fold(name): fold(target) for name, target in config.aliases.items()}
    received = {fold(name) for labels in lists for name in labels}
    renamed = {aliases.get(name, name) for name in received}
    expected = {
        "labels.aliases": set(aliases) - received,
        "labels.deny": set(map(fold, config.deny)) - renamed,
        "labels.allow": set(map(fold, config.allow or ()))
        - (renamed - set(map(fold, config.deny))),
    }
    assert {key: set(value.first) for key, value in unused.items()} == {
        key: value for key, value in expected.items() if value
    }
    assert all(value.count == len(value.first) for value in unused.values())


def test_names_of_the_config_are_composed_as_labels_are():
    config = LabelsConfig(aliases={"cafe\u0301": "kaffe"}, deny=(" tea\u0301 ",))
    labels = pa.chunked_array([pa.array([["caf\u00e9", "te\u00e1"]], KIND)])
    assert LabelRules(config).clean(labels)[0].to_pylist() == [["kaffe"]]


def test_included_labels_are_folded_and_renamed_as_those_of_documents_are():
    rules = LabelRules(
        resolve(
            LabelsConfig(
                fold_case=True, aliases={"py": "Python"}, include=("PY", "python", "Zoo", "Go")
            )
        )
    )
    assert rules.included == ("python", "zoo", "go")
    cleaned, _, used = rules.clean(pa.chunked_array([pa.array([["py", "GO"]], KIND)]))
    assert cleaned.to_pylist() == [["python", "go"]]
    assert rules.unused([used])["labels.include"].first == ("zoo",)


@pytest.mark.parametrize(("key", "names"), [("deny", ("b",)), ("allow", ("a",))])
def test_a_label_that_another_rule_leaves_out_cannot_be_included(key, names):
    with pytest.raises(UserError, match=f"labels.include: received 'b', which labels.{key} leaves"):
        resolve(LabelsConfig(include=("a", "b"), **{key: names}))
