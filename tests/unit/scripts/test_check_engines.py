"""The check of engines says what ran, what did not and why, and that every kill met a live run."""

import argparse
import types

import pytest

from scripts import check_engines
from scripts.check_engines import Check, Ended, Followed

GIVEN = {
    "engines": ("local", "flink", "spark_pool"),
    "predict": True,
    "kills": 4,
    "victims": check_engines.VICTIMS,
    "kills_only": False,
    "seconds": 1e9,
    "seed": 0,
    "flink_master": None,
    "spark_master": None,
    "hdfs": None,
}


@pytest.fixture
def check(monkeypatch, tmp_path):
    """A check of two kinds of places, whose files are the same wherever they are."""
    files = {"ab12/x.tfrecord": b"x", "manifest.json": b"{}"}
    monkeypatch.setattr(check_engines.stores, "contents", lambda place: dict(files))
    roots = {"disk": str(tmp_path), "S3": "s3://check"}
    return Check(tmp_path, roots, argparse.Namespace(**GIVEN), 0)


def test_an_engine_that_is_not_here_is_asked_for_once_and_named_at_the_end(
    check, monkeypatch, capsys
):
    asked = []

    def run(engine, stage, place):
        asked.append(engine)
        return Ended(
            *(
                (2, "error: no Maven found; give it with --jar", 1)
                if engine == "flink"
                else (0, "", 1)
            )
        )

    monkeypatch.setattr(check, "run", run)
    check.table()
    check.say_what_was_not_run()
    assert asked.count("flink") == 1 and asked.count("local") == 4 and "spark_pool" not in asked
    printed = capsys.readouterr().out
    assert printed.count("ran, the same bytes: 2 files") == 8  # of two engines
    assert printed.count("| not run") == 6
    told = "no Maven found; give it with --flink-jar of scripts/check_engines.sh"
    assert f"NOT RUN: flink: {told}\n" in printed
    assert "NOT RUN: spark_pool: no --spark-master was given\n" in printed
    assert not check.is_wrong


@pytest.mark.parametrize("wrong", ["status", "bytes"])
def test_a_run_that_fails_or_writes_other_bytes_is_wrong(check, monkeypatch, capsys, wrong):
    status = int(wrong == "status")
    monkeypatch.setattr(check, "run", lambda *_: Ended(status, "no such thing", 1))
    written = ({"ab12/x.tfrecord": bytes([i])} for i in range(99))
    if wrong == "bytes":
        monkeypatch.setattr(check_engines.stores, "contents", lambda _: next(written))
    check.table()
    told = "FAILED with status 1: no such thing" if status else "OTHER BYTES"
    assert check.is_wrong and told in capsys.readouterr().out


def test_kills_are_spread_over_a_run_and_only_those_of_live_runs_count(check, monkeypatch):
    """Every other run ends before its kill."""
    moments = []

    def follow(engine, place, kill):
        moments.append(kill.moment)
        is_killed = len(moments) % 2 == 0
        return Followed(Ended(1, "", 1), is_killed, dict.fromkeys(check_engines.VICTIMS, 8.0))

    monkeypatch.setattr(check, "_follow", follow)
    monkeypatch.setattr(check_engines.places, "list_files", lambda place: {"ab12/work": None})
    seen = check._kill("local", "submitter", 8.0)
    assert seen == {"kills": 4, "too late": 4, "after files": 4}
    assert sorted(int(moment // 2) for moment in moments[1::2]) == [0, 1, 2, 3]  # of 8 seconds


def test_a_worker_is_killed_where_there_is_one_and_a_submitter_once_the_first_worker_has_started():
    rng = types.SimpleNamespace()
    for victim, workers, due in (
        ("worker", [], False),
        ("worker", [7], True),
        ("submitter", [], True),
    ):
        kill = check_engines.Kill(victim, -1.0, rng)
        assert kill.is_due(check_engines.time.monotonic(), workers) is due
        assert not kill.is_due(None, workers)


def test_without_the_table_kills_are_compared_with_one_run_in_memory(check, monkeypatch, capsys):
    check._given.kills_only, check._given.engines = True, ("local",)
    runs = []

    def run(engine, stage, place):
        runs.append((engine, place))
        return Ended(0, "", 1)

    monkeypatch.setattr(check, "run", run)
    ended = Followed(Ended(1, "", 1), True, dict.fromkeys(check_engines.VICTIMS, 8.0))
    monkeypatch.setattr(check, "_follow", lambda *_: ended)
    monkeypatch.setattr(check_engines.places, "list_files", lambda place: {})
    check.kills()
    assert runs == [
        ("in_memory", "s3://check/in_memory"),
        ("local", "s3://check/killed-local-worker"),
        ("local", "s3://check/killed-local-submitter"),
    ]
    assert capsys.readouterr().out.count("| the same bytes and nothing else") == 2
    assert not check.is_wrong
