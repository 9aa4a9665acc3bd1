"""The config to start from: YAML that reads back, whatever names and values are in it."""

import pytest
from ruamel.yaml import YAML

from beam_jobs.inspection.starting_config import name_for, short_inputs, yaml_value


@pytest.mark.parametrize(
    "value",
    [
        *("plain", "a b", "no", "true", "1e3", "1", "-", "#x", "a: b", "[x]", "*.csv", "\t", "\n"),
        *("é", "\u2028", '"', "'", "", "a,b", "~", "_id", "doc.body"),
        *(["a", "b c"], [], None, True, 0.05, 3),
    ],
)
def test_a_value_reads_back_from_its_line(value):
    line = f"key: {yaml_value(value)} # a comment"
    assert line.isascii() and "\n" not in line
    assert YAML(typ="safe", pure=True).load(line) == {"key": value}


def test_names_of_files_become_names_of_experiments():
    for path, name in {
        "My tickets.2024.csv": "my_tickets",
        "data/arxiv-00-of-08.jsonl.gz": "arxiv",
        "20news/": "data_20news",
        "тест.csv": "data",
    }.items():
        assert name_for(path) == name


def test_many_files_are_a_pattern_only_if_it_names_no_others(tmp_path):
    paths = [str(tmp_path / f"part-{i}.csv") for i in range(5)]
    for path in paths:
        open(path, "w").close()
    assert short_inputs(paths) == (str(tmp_path / "part-*.csv"),)
    assert short_inputs(paths[:3]) == tuple(paths[:3])
    (tmp_path / "part-9.csv").touch()
    assert short_inputs(paths) == tuple(paths)
