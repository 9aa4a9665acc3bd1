"""The check of object stores runs the stages on the bucket, and counts the requests of each."""

import types

import pytest

from scripts import check_object_stores
from trainer import task

LINES = {
    "train": ["PUT /check/run/checkpoints/ckpt-6.index", "GET /check/dataset/ab/x.tfrecord-0"],
    "evaluate": ["GET /check/run/.lock"],
    "export": ["PUT /check/model/1/saved_model.pb"],
    "beam_jobs.predict": ["GET /check?prefix=predictions", "GET /check/inputs/x.jsonl"],
}


@pytest.fixture
def ended(monkeypatch, tmp_path):
    """Commands that write their requests into the emulator's log, and end with a status."""
    status = []
    given = []

    def run(command, *, env, **_):
        given.append(command[2:])
        stage = command[3] if command[2] == "trainer.task" else command[2]
        with open(tmp_path / "log", "a") as stream:
            for line in LINES[stage]:
                stream.write(f'127.0.0.1 - - [date] "{line} HTTP/1.1" 200 -\n')
        return types.SimpleNamespace(returncode=status[0] if status else 0, stdout="it failed")

    monkeypatch.setattr(check_object_stores.subprocess, "run", run)
    (tmp_path / "log").write_text('127.0.0.1 - - [date] "GET /check/before HTTP/1.1" 200 -\n')
    return status, given


def test_requests_of_each_stage_are_counted_by_what_they_are_of(ended, tmp_path, capsys):
    _, given = ended
    settings = ["output.dataset_dir=s3://check/dataset"]
    check_object_stores._run_stages("c.yaml", settings, tmp_path, tmp_path / "log", 5000)
    titles = ["train", "evaluate", "export", "predict in bulk"]
    tables = capsys.readouterr().out.split("requests for 5,000 documents")
    assert [table.splitlines()[-1].removesuffix(": ") for table in tables[:-1]] == titles
    kinds = [
        {
            line.split("|")[2].strip(): line.split("|")[4].strip()
            for line in table.splitlines()[1:-1]
            if line.startswith("|")
        }
        for table in (*tables[1:-1], f"{tables[-1]}\n")
    ]
    assert [{kind for kind in each if kind} for each in kinds] == [
        {"checkpoints", "shards"},
        {"lock"},
        {"model"},
        {"listings", "input"},
    ]
    assert kinds[0]["shards"] == "2.0" and "before" not in tables[1]
    for command in given[:3]:
        parsed = task.make_parser().parse_args(command[1:])
        assert "train.run_dir=s3://check/run" in parsed.overrides


def test_a_stage_that_fails_ends_the_check_with_what_it_printed(ended, tmp_path):
    status, given = ended
    status.append(1)
    with pytest.raises(SystemExit, match="it failed"):
        check_object_stores._run_stages("c.yaml", [], tmp_path, tmp_path / "log", 10)
    assert len(given) == 1


def test_requests_are_priced_as_reads_or_as_writes_and_listings(capsys):
    lines = [
        *("GET /check/dataset/ab/x.tfrecord-0", "HEAD /check/run/.lock", "PUT /check/run/.lock"),
        *("GET /check?list-type=2&prefix=run", "POST /check/a?uploads", "POST /check?delete"),
        *("DELETE /check/run/.lock", "HEAD /check"),
    ]
    prices = [check_object_stores._price(*line.split()) for line in lines]
    assert prices == [0.4, 0.4, 5.0, 5.0, 5.0, 0.0, 0.0, 0.4]
    log = "".join(f'"{line} HTTP/1.1" 200 -\n' for line in lines)
    check_object_stores._print_requests("train", log, 5000)
    assert "price: $0.000016, for 10,000 documents $0.000032" in capsys.readouterr().out
