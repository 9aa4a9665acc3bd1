"""The benchmark of scale keeps what it has measured, and measures the rest."""

import gzip
import json
import types

import pytest

from beam_jobs.contract.errors import UserError
from scripts import benchmark_scale
from scripts.measured_process import Measured


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The commands that the benchmark runs, none of which does anything; its directory is ready."""
    run = []

    def measure(command, place, *, watched=None):
        inputs = json.loads(
            next(
                line.partition("inputs: ")[2].partition("]")[0] + "]"
                for line in (place / "config.yaml").read_text().splitlines()
                if "inputs: " in line
            )
        )
        rows = sum(len(gzip.open(place / path).readlines()) for path in inputs)
        run.append((" ".join(command[1:3]), rows))
        printed = "time in each step, all workers together: reading 1.5 s, the analyzer 2.0 s\n"
        return Measured(2.0, rows / 10, 300.0, 5.0, printed)

    manifest = types.SimpleNamespace(
        num_labels=3, splits={"train": types.SimpleNamespace(examples=16)}, vocabulary_size=9
    )
    monkeypatch.setattr(benchmark_scale, "measure", measure)
    monkeypatch.setattr(benchmark_scale.manifests, "read", lambda _: manifest)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arxiv").mkdir()
    with gzip.open("arxiv/papers.jsonl.gz", "wt") as stream:
        for number in range(30):
            words = " ".join(f"word{(number * i) % 17}" for i in range(60))
            words = words.replace("0", "a").replace("1", "b")
            paper = {"title": f"Paper {number}", "abstract": words, "categories": ["x"]}
            stream.write(json.dumps(paper) + "\n")
    return run


def run(*arguments: str) -> list[dict]:
    benchmark_scale.main([*arguments, "--results", "scale.json", "--arxiv", "arxiv"])
    with open("scale.json") as stream:
        return json.load(stream)["rows"]


def test_the_fewer_documents_are_the_first_of_the_more_and_none_is_measured_twice(commands):
    some = ("documents", "--stages", "preprocess", "train", "--documents", "20", "40")
    rows = run(*some)
    assert commands == [
        ("beam_jobs.preprocess --config", 20),
        ("trainer.task train", 20),
        ("beam_jobs.preprocess --config", 40),
        ("trainer.task train", 40),
    ]
    assert [(row["stage"], row["documents"], row["processor_seconds"]) for row in rows] == [
        ("preprocess", 20, 2.0),
        ("train", 20, 2.0),
        ("preprocess", 40, 4.0),
        ("train", 40, 4.0),
    ]
    assert rows[0]["seconds_of_steps"] == {"reading": 1.5, "the analyzer": 2.0}
    assert rows[0]["text_bytes"] < rows[2]["text_bytes"]
    commands.clear()
    assert run(*some) == rows and not commands
    more = run(*some, "60")
    assert more[: len(rows)] == rows
    assert commands == [("beam_jobs.preprocess --config", 60), ("trainer.task train", 60)]
    commands.clear()
    again = run(*some, "--repeats", "2", "--stages", "preprocess")
    assert again[: len(more)] == more and [row["documents"] for row in again[6:]] == [20, 40]
    slow = [{**row, "processor_seconds": 9.0} for row in more]
    assert benchmark_scale.least_disturbed([*slow, *more, *slow]) == more


def test_a_label_tree_is_measured_where_labels_are_many_and_all_is_drawn(commands, monkeypatch):
    monkeypatch.setattr(benchmark_scale, "FEW_LABELS", 50)
    rows = run("labels", "plot", "--documents-of-labels", "20", "--labels", "5", "50")
    assert [(row["wanted"], row["model"]) for row in rows[::3]] == [
        (5, "bow"),
        (50, "bow"),
        (50, "bow_tree"),
    ]
    assert [row["stage"] for row in rows[:3]] == ["preprocess", "train", "evaluate"]
    with open("scale_labels.svg") as stream:
        drawing = stream.read()
    assert "evaluate, bow_tree" in drawing and "preprocess, bow_tree" not in drawing


def test_each_worker_of_a_job_has_a_core_of_its_own(commands, monkeypatch):
    cores = [{3, 5}]
    monkeypatch.setattr(benchmark_scale.os, "sched_getaffinity", lambda _: cores[-1])
    monkeypatch.setattr(
        benchmark_scale.os, "sched_setaffinity", lambda _, to: cores.append(set(to))
    )
    rows = run("workers", "--documents-of-workers", "20")
    assert cores[1:] == [{3}, {3, 5}, {3, 5}, {3, 5}]
    assert [(row["workers"], row["stage"]) for row in rows] == [
        (number, stage) for number in (1, 2) for stage in benchmark_scale.STAGES
    ]
    commands.clear()
    assert run("workers", "--documents-of-workers", "20") == rows and not commands
    cores.append({3})
    with pytest.raises(UserError, match="workers: received 1 core, expected 2"):
        run("workers", "--documents-of-workers", "40")
