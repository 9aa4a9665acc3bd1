"""Several worker processes train the same model, on even and uneven data, and end together."""

import json
import os
import shutil
import signal
import subprocess

import pytest

from tests.command_lines import succeed
from tests.recording_callback import OWN, expected_calls, recorded, recorder
from tests.runs import assert_equal_within_tolerance, history, newest_step
from tests.small_experiment import CONFIG, make_dataset
from tests.system.hosts import two_hosts
from tests.system.processes import (
    finish,
    free_addresses,
    kill,
    run_workers,
    start,
    start_task_of_slurm,
    start_worker,
    train,
    wait_for,
)


@pytest.fixture(scope="session")
def even(small_dataset, tmp_path_factory):
    """A dataset whose last train batch is partial, in three shards, uneven for two workers."""
    return shutil.copytree(small_dataset, tmp_path_factory.mktemp("even") / "root")


@pytest.fixture(scope="session")
def uneven(tmp_path_factory):
    """A dataset of 23 documents in 32 shards, so that some are empty, and no validation split."""
    root = tmp_path_factory.mktemp("uneven")
    splits = "splits: {train: 0.9, validation: 0, test: 0.1}"
    make_dataset(root, 23, CONFIG.replace("shards: 3", "shards: 32") + splits)
    return root


@pytest.fixture(scope="session")
def alone(even):
    """The run of one worker on one device that others are compared with; a callback ends it."""
    (even / "own.py").write_text(OWN, encoding="utf-8")
    train(even, "train.run_dir=alone", "train.epochs=5", recorder("alone.jsonl"))
    return even / "alone"


def test_two_workers_give_what_one_gives_heed_callbacks_and_only_the_chief_writes(even, alone):
    settings = "train.run_dir=workers", "train.epochs=5", recorder("workers.jsonl")
    output = run_workers(even, *settings, workers=2)
    assert "of 2 workers" in output and "documents go to workers by example" in output
    assert output.count("epoch 1: loss") == output.count("lambda saw epoch 1") == 1
    assert_equal_within_tolerance(even / "workers", alone)
    assert sorted(p.name for p in (even / "workers").iterdir()) == sorted(
        p.name for p in alone.iterdir()
    )
    assert len(list((even / "workers/logs").iterdir())) == 1
    for name in ("alone", "workers"):
        assert recorded(even / f"{name}.jsonl") == expected_calls(history(even / name))
    again = run_workers(even, *settings, workers=2)
    assert "epoch 3: loss" not in again  # the callback has stopped it, and it stays so


def test_workers_with_shards_of_their_own_see_every_document_and_start_from_another_run(
    even, alone
):
    settings = "train.run_dir=by_file", "train.epochs=1", "train.shard_by=file"
    output = run_workers(even, *settings, workers=2, arguments=("--from", "alone"))
    (row,) = history(even / "by_file")
    assert output.count("carried over from alone: ") == 1 and "5 of 5 labels" in output
    assert row["loss"] < history(alone)[0]["loss"]
    assert row["skipped"] == 0
    assert row["step"] > -(
        -398 // 32
    )  # more steps than documents need: one worker has two of three shards


def leaves(value, name: str = "") -> dict:
    """The values of nested objects and lists, each by its path."""
    if not isinstance(value, dict | list):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        path: leaf for key, inner in items for path, leaf in leaves(inner, f"{name}/{key}").items()
    }


def test_evaluation_over_two_workers_counts_what_one_counts(even, alone):
    succeed(
        *("trainer.task", "evaluate", "--config", "small.yaml", "--set", "train.run_dir=alone"),
        cwd=even,
    )
    one = json.loads((alone / "evaluation-test.json").read_text())
    run_workers(even, "train.run_dir=alone", workers=2, command="evaluate")
    both = json.loads((alone / "evaluation-test.json").read_text())
    assert both["documents"] == one["documents"]
    for ours, theirs in zip(both["methods"], one["methods"], strict=True):
        assert leaves(ours) == pytest.approx(leaves(theirs)), ours["key"]


def test_empty_shards_a_partial_batch_and_no_validation_split_finish(uneven):
    output = run_workers(
        uneven,
        "train.run_dir=run",
        "train.epochs=2",
        "train.batch_size=16",
        workers=2,
    )
    assert "no validation split" in output
    assert [row["skipped"] for row in history(uneven / "run")] == [0, 0]


def test_a_worker_that_dies_ends_the_others_and_a_restart_resumes(even):
    settings = (
        "train.run_dir=killed",
        "train.epochs=4",
        "train.patience=null",
        "train.checkpoint_steps=2",
        "train.steps_per_call=1",
    )
    process = start(
        even, *settings, workers=2, launcher=("--restarts", "1", "--grace-seconds", "2")
    )
    wait_for(lambda: newest_step(even / "killed") >= 4, process)
    os.kill(worker_processes(process)[1], signal.SIGKILL)
    output = finish(process)
    assert "worker 1 ended with SIGKILL; ending the others" in output
    assert "starting all workers again: restart 1 of 1" in output
    assert "resuming after step" in output
    assert not list((even / "killed").glob("scratch*"))
    assert [row["epoch"] for row in history(even / "killed")] == list(range(1, 5))


def test_a_worker_of_slurm_that_is_killed_and_started_again_waits_for_the_others(even, alone):
    settings = ("train.run_dir=slurm", "train.epochs=5", "train.checkpoint_steps=2")
    settings += ("train.steps_per_call=1", recorder("slurm.jsonl"))
    with two_hosts() as hosts:
        first, second = (start_task_of_slurm(even, rank, hosts, *settings) for rank in range(2))
        wait_for(lambda: newest_step(even / "slurm") >= 4, first)
        kill(second)
        second = start_task_of_slurm(even, 1, hosts, *settings)
        assert "worker 0 has lost worker 1, so it ends too" in finish(first, status=75)
        first = start_task_of_slurm(even, 0, hosts, *settings)
        assert "resuming after step" in finish(first)
        finish(second)
    assert_equal_within_tolerance(even / "slurm", alone)


def worker_processes(process) -> list[int]:
    """The launcher's workers, in order."""
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    return sorted(map(int, children.stdout.split()))


def test_a_failure_without_restarts_is_the_launchers_own(even):
    settings = "train.run_dir=failed", "train.epochs=0"
    output = train(even, *settings, workers=2, forked=False, status=2)
    assert "train.epochs: received 0" in output
    process = start(
        even,
        "train.run_dir=failed",
        "train.epochs=50",
        workers=2,
        launcher=("--grace-seconds", "2"),
    )
    wait_for(lambda: newest_step(even / "failed") > 0, process)
    os.kill(worker_processes(process)[0], signal.SIGKILL)
    assert "worker 0 ended with SIGKILL" in finish(process, status=128 + signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "to"),
    [(signal.SIGTERM, "launcher"), (signal.SIGINT, "launcher"), (signal.SIGTERM, "worker 1")],
)
def test_a_signal_stops_all_workers_after_the_same_step(even, number, to):
    name = f"stopped_{number.name}_{to.replace(' ', '_')}"
    forked = number != signal.SIGINT  # one of the three as a user's launcher does it
    process = start(
        even,
        f"train.run_dir={name}",
        "train.epochs=500",
        "train.patience=null",
        "train.steps_per_call=2",
        workers=2,
        forked=forked,
    )
    wait_for(lambda: newest_step(even / name) > 0, process)
    os.kill(process.pid if to == "launcher" else worker_processes(process)[1], number)
    output = finish(process, status=128 + number)
    (line,) = [line for line in output.splitlines() if "stopped by" in line]
    assert f"after step {newest_step(even / name):,}, which is saved" in line
    assert "lost another worker" not in output and "Traceback" not in output


def test_a_worker_that_never_comes_up_is_a_clean_error(even):
    addresses = [*free_addresses(1), "127.0.0.1:9"]
    process = start_worker(even, addresses, 0, "train.worker_timeout_seconds=2")
    assert (
        "waited 2 s (train.worker_timeout_seconds), "
        "and there was no answer from worker 1 (127.0.0.1:9)"
        in finish(process, status=75, timeout=300)
    )


def test_workers_with_different_configs_are_told(even):
    addresses = free_addresses(2)
    processes = [start_worker(even, addresses, i, f"train.seed={i}") for i in range(2)]
    for process in processes:
        assert "the 2 workers differ in their configs" in finish(process, status=2, timeout=300)
