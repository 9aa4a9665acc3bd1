"""Worker processes of the local runner write the bytes that one process writes in memory."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from beam_jobs import predict, preprocess
from beam_jobs.contract import manifest as manifests
from beam_jobs.runtime import document_counters, runners
from beam_jobs.sources import input_files
from tests.command_lines import ROOT, succeed
from tests.corpus import DATASET, contents, corpus_lines, files_of, make_home
from tests.transform_source import write_transform

MULTI_PROCESSING = ["--", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
# Every stage that looks at all documents. `test_packaging` compares the bytes of the defaults.
ALL_STAGES = (
    "splits={method: stratified}",
    "duplicates={near: drop, similarity: 0.6, shingle_tokens: 1}",
    "text.subwords=train",
    "output.compression=gzip",
    "labels={min_count: 50, top_k: 11, keep_unlabeled: false, aliases: {étiquette: label 0}}",
)


@pytest.fixture(autouse=True)
def workers_find_our_code(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_worker_processes_write_the_same_bytes_in_every_stage(tmp_path, monkeypatch):
    home = make_home(tmp_path / "home", {"all.jsonl": corpus_lines()})
    arguments = ["--config", "config.yaml"]
    arguments += [part for setting in ALL_STAGES for part in ("--set", setting)]
    printed = succeed("beam_jobs.preprocess", *arguments, cwd=home)
    assert "FnApiRunner, in_memory, 1 worker" in printed
    once = contents(files_of(home / DATASET))
    assert manifests.load(home / DATASET).counts.near_duplicates > 10
    results = []
    run = runners.run
    monkeypatch.setattr(runners, "run", lambda *given: results.append(run(*given)) or results[-1])
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    arguments += ["--force", *MULTI_PROCESSING]
    printed = succeed("beam_jobs.preprocess", *arguments, cwd=home)
    assert "FnApiRunner, multi_processing, 2 workers" in printed
    assert contents(files_of(home / DATASET)) == once
    assert list((tmp_path / "temporary").iterdir()) == []  # although the workers were killed
    counts = manifests.load(home / DATASET).counts
    expected = counts.model_dump() | {"rejected": sum(counts.rejected.values())}
    del expected["written_without_labels"]  # those that are written have been counted
    assert document_counters.values(results[0]) == expected


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_transform_gives_the_same_bytes_on_worker_processes_and_its_rejects_count(home, capsys):
    data = write_transform(home)
    data |= {"options": data["options"] | {"rejects": 2}, "max_reject_fraction": 0.1}
    config = {"name": "own", "data": data, "vocabulary": {"min_document_count": 1}}
    Path("config.yaml").write_text(json.dumps(config | {"output": {"shards": 2}}))
    # One worker process: the test above has two.
    preprocess.main(["--config", "config.yaml", "--", "--direct_num_workers=1"])
    assert (
        "preprocessing my_transform:Rows on FnApiRunner, multi_processing, 1 worker"
        in capsys.readouterr().out
    )
    manifest = manifests.load("out/own/dataset")
    assert manifest.counts.rejected == {"no text": 2} and manifest.counts.written == 120
    files = contents(files_of("out/own/dataset"))
    preprocess.main(["--config", "config.yaml"])
    assert "is complete" in capsys.readouterr().out
    preprocess.main(["--config", "config.yaml", "--force", "--", "--direct_running_mode=in_memory"])
    assert contents(files_of("out/own/dataset")) == files


def predictions(output: Path, *arguments: str) -> dict[str, bytes]:
    predict.main(["--model", "model", "--output", str(output), *arguments])
    return {path.rpartition("/")[2]: content for path, content in contents(output).items()}


def test_predictions_of_any_number_of_workers_are_the_same_bytes(trained, tmp_path, monkeypatch):
    place = tmp_path / "place"
    shutil.copytree(trained.root / "out/small/model", place / "model")
    shutil.copy(trained.root / "documents.jsonl", place)
    monkeypatch.chdir(place)
    lines = (place / "documents.jsonl").read_text().splitlines(keepends=True)
    for i in range(6):
        (place / f"split-{i}.jsonl").write_text(
            "".join(lines[i::6]) + ("no JSON\n" if i == 2 else "")
        )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the worker processes
    monkeypatch.setattr(
        input_files.parts, "__kwdefaults__", {"part_bytes": 1000, "range_bytes": 1 << 20}
    )  # several parts
    given = "--input", "split-*.jsonl", "--id-field", "key"
    once = predictions(tmp_path / "once", *given)
    assert predictions(tmp_path / "two", *given, *MULTI_PROCESSING) == once
    assert len([name for name in once if name.startswith("predictions-")]) == 6
    summary = json.loads(once["predictions.json"])
    assert (summary["read"], summary["written"], summary["rejected"]) == (
        len(lines) + 1,
        len(lines),
        {"not JSON": 1},
    )
    assert {info["file"].rpartition("/")[2]: info["sha256"] for info in summary["files"]} == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in once.items()
        if name != "predictions.json"
    }
    reject = json.loads(once["rejects-00002-of-00006.jsonl"])
    assert (reject["source"], reject["row"], reject["content"]) == (
        "split-2.jsonl",
        len(lines[2::6]) + 1,
        "no JSON",
    )
