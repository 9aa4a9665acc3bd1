"""Jobs on an object store as processes: options reach every worker, and kills publish nothing."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract import places
from tests.corpus import DATASET, contents, corpus_lines, make_home
from tests.object_stores import CREDENTIALS, make_bucket, s3_environment, s3_server
from tests.system.processes import run_workers, start_job

MULTI_PROCESSING = "--direct_running_mode=multi_processing"


@pytest.fixture(scope="module")
def store():
    """The address of a server that speaks S3, and a bucket there."""
    with s3_server() as address, s3_environment(address, with_endpoint=True):
        yield address, make_bucket(address)


def start(home, place: str, *beam_arguments: str) -> subprocess.Popen:
    """Starts the job, whose option alone says where the store is."""
    environment = os.environ | CREDENTIALS
    environment.pop("AWS_ENDPOINT_URL", None)
    arguments = ["--set", f"output.dataset_dir={place}", "--", *beam_arguments]
    return start_job(home, *arguments, environment=environment)


def end(process: subprocess.Popen) -> str:
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return output


def test_a_run_on_a_store_that_was_killed_leaves_no_dataset_and_workers_reach_it_by_the_option(
    store, tmp_path
):
    address, bucket = store
    home = make_home(tmp_path / "home", {"all.jsonl": corpus_lines()})
    with places.open_local(home / "corpus/all.jsonl") as stream:
        places.write(f"{bucket}/in/all.jsonl", stream.read())
    config = (home / "config.yaml").read_text().replace("corpus/*", f"{bucket}/in/*.jsonl")
    (home / "config.yaml").write_text(config)
    options = [f"--s3_endpoint_url={address}"]
    place = f"{bucket}/dataset"
    one_worker, two_workers = (f"--direct_num_workers={number}" for number in (1, 2))
    process = start(home, place, MULTI_PROCESSING, one_worker, *options)
    deadline = time.monotonic() + 240
    while not any("/work-" in name for name in places.list_files(place)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert manifests.MANIFEST not in places.list_files(place)
    printed = end(start(home, place, MULTI_PROCESSING, two_workers, *options))
    assert "multi_processing, 2 workers" in printed
    end(start(home, DATASET, *options))
    made = {name: places.read_bytes(f"{place}/{name}") for name in places.list_files(place)}
    assert made == contents(home / DATASET)


def test_several_workers_whose_run_is_on_a_store_resume_it_where_the_chief_has_put_it(
    store, small_dataset, tmp_path
):
    address, bucket = store
    root = shutil.copytree(small_dataset, tmp_path / "root")
    environment = CREDENTIALS | {"AWS_ENDPOINT_URL": address}
    settings = ("optimizer.schedule=constant", "optimizer.warmup_fraction=0")
    both = {"workers": 2, "environment": environment}
    run_workers(root, f"train.run_dir={bucket}/run", "train.epochs=1", *settings, **both)
    output = run_workers(root, f"train.run_dir={bucket}/run", "train.epochs=2", *settings, **both)
    assert "resuming after step 13 (epoch 2" in output
    found = places.list_files(f"{bucket}/run")
    assert {"checkpoints/checkpoint", "best/checkpoint", "history.json"} < found.keys()
    assert not [name for name in found if name.startswith("scratch") or "lock" in name]
    history = json.loads(places.read_bytes(f"{bucket}/run/history.json"))
    assert [row["step"] for row in history] == [13, 26]
