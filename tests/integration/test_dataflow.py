"""Jobs on Dataflow, with a stand-in for its service and an emulator of its store: what is staged
and created, what it publishes, and what is told before anything is submitted.
"""

import json
import os
import re
import signal
import threading
import time
import types

import google.auth
import pytest
import requests
from apache_beam.internal.gcp import auth
from apache_beam.runners.dataflow import dataflow_runner
from google.auth.exceptions import DefaultCredentialsError

from beam_jobs import preprocess
from beam_jobs.contract import manifest as manifests
from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError
from beam_jobs.runtime import dataflow, engines, runners
from tests.command_lines import fail_cleanly
from tests.corpus import DATASET
from tests.dataflow_stand_in import Service, options_of, serve

CONFIG = """
name: tiny
data: {source: jsonl, inputs: ['corpus/*'], id_field: id}
vocabulary: {min_document_count: 1}
output: {shards: 2}
"""
GIVEN = ("--runner=DataflowRunner", "--project=my-project", "--region=europe-west1")


@pytest.fixture
def home(gcs, tmp_path, monkeypatch):
    """The working directory of a job whose input is on the store."""
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)  # Beam seeks them for 30 s
    lines = [json.dumps({"id": f"{i}", "text": f"a b{i}", "labels": ["x"]}) for i in range(60)]
    places.write(f"{gcs}/corpus/all.jsonl", "\n".join(lines))
    (tmp_path / "config.yaml").write_text(CONFIG.replace("'corpus/*'", f"'{gcs}/corpus/*'"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def beam(service: Service, gcs: str) -> list[str]:
    return [
        *("--", *GIVEN, f"--temp_location={gcs}/tmp", "--no_auth"),
        *(f"--dataflow_endpoint={service.address}", "--sdk_container_image=r.dev/p/multihot:1"),
    ]


def test_a_job_that_is_staged_for_dataflow_writes_the_shards_of_the_local_runner(gcs, home):
    service = Service(runs=True)
    with serve(service):
        on_store = ["--set", f"output.dataset_dir={gcs}/of-dataflow"]
        preprocess.main(["--config", "config.yaml", *on_store, *beam(service, gcs)])
    preprocess.main(["--config", "config.yaml"])
    made, local = manifests.load(f"{gcs}/of-dataflow"), manifests.load(home / DATASET)
    assert made.splits == local.splits and made.counts == local.counts
    (job,) = service.jobs
    (workers,) = job["environment"]["workerPools"]
    assert workers["machineType"] == "e2-standard-4" and int(workers["diskSizeGb"]) == 50
    (image,) = workers["sdkHarnessContainerImages"]
    assert image["containerImage"] == "r.dev/p/multihot:1"
    assert options_of(job)["save_main_session"] is False


def test_sigterm_cancels_a_job_on_dataflow(gcs, home, monkeypatch):
    soon = types.SimpleNamespace(time=time.time, sleep=lambda _: time.sleep(0.01))
    monkeypatch.setattr(dataflow_runner, "time", soon)  # it asks for the state every 5 s
    service = Service()

    def end() -> None:
        assert service.created.wait(120)
        os.kill(os.getpid(), signal.SIGTERM)

    with serve(service):
        threading.Thread(target=end, daemon=True).start()
        on_store = ["--set", f"output.dataset_dir={gcs}/cancelled"]
        with pytest.raises(SystemExit) as ended:
            preprocess.main(["--config", "config.yaml", *on_store, *beam(service, gcs)])
        assert ended.value.code == 143
        for thread in threading.enumerate():
            if thread.name == runners.WAITING:
                thread.join(60)  # it asks the service, until that says that the job has ended
    assert service.jobs[0]["currentState"] == "JOB_STATE_CANCELLED"
    assert not places.list_files(f"{gcs}/cancelled")


def test_what_dataflow_refuses_is_one_message(gcs, home):
    service = Service(refuses=True)
    with serve(service):
        on_store = ["--set", f"output.dataset_dir={gcs}/refused"]
        message = fail_cleanly(
            *("beam_jobs.preprocess", "--config", "config.yaml", *on_store, *beam(service, gcs)),
            cwd=home,
        )
    assert re.search(r"Forbidden: 403 .*not yours; nothing is published\. Expected a pro", message)


def test_a_failure_of_the_job_itself_passes_through_and_a_lost_connection_is_told():
    with pytest.raises(UserError, match=r"ConnectionError: it is gone; .*Expected a project"):
        with dataflow.failures_told():
            raise requests.exceptions.ConnectionError("it is gone")
    with pytest.raises(RuntimeError, match="of a step"):
        with dataflow.failures_told():
            raise RuntimeError("of a step")


def test_without_credentials_nothing_is_submitted(gcs, home, monkeypatch):
    def none(**_):
        raise DefaultCredentialsError("none were found")

    monkeypatch.setattr(google.auth, "default", none)
    arguments = ("--config", "config.yaml", "--", *GIVEN, f"--temp_location={gcs}/tmp")
    message = fail_cleanly("beam_jobs.preprocess", *arguments, cwd=home)
    assert "none were found; expected credentials, such as of `gcloud auth" in message


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ([], [], r"output\.dataset_dir: received out/tiny/dataset with .*share no directory"),
        (
            ["--set", "output.dataset_dir={gcs}/x", "--set", "data.inputs=[config.yaml]"],
            [],
            r"data\.inputs: received .*config\.yaml with --runner=DataflowRunner",
        ),
        ([], ["--template_location={gcs}/t"], "--template_location: .*publishes nothing"),
        ([], ["--dry_run=True"], "--dry_run: .*publishes nothing"),
    ],
)
def test_what_cannot_work_on_dataflow_is_told_before_it_is_submitted(
    gcs, home, settings, options, message
):
    settings, options = ([part.format(gcs=gcs) for part in parts] for parts in (settings, options))
    with pytest.raises(UserError, match=message):
        preprocess.main(["--config", "config.yaml", *settings, "--", *GIVEN, "--no_auth", *options])


def test_workers_get_the_checkout_unless_the_user_says_how_they_get_multihot(monkeypatch, tmp_path):
    def added(*given: str) -> list[str]:
        arguments = engines.arguments([*GIVEN, *given])
        return arguments[: len(arguments) - len(GIVEN) - len(given)]

    assert added()[-1].startswith("--setup_file=") and added()[-1].endswith("/setup.py")
    sizes = ["--machine_type=e2-standard-4", "--disk_size_gb=50"]
    assert added("--sdk_container_image=x/y") == added("--extra_package=m.whl") == sizes
    assert added("--sdk_container_image=x/y", "--machine_type=n2", "--disk_size_gb=9") == []
    monkeypatch.setattr(dataflow, "_SETUP_FILE", tmp_path / "setup.py")
    with pytest.raises(UserError, match="expected --sdk_container_image=IMAGE, made of the Docker"):
        added()
