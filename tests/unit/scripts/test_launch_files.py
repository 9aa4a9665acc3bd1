"""The files that start a run on a cluster: whole, of known keys, and at one with the trainer."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from beam_jobs.contract.command_line import EXIT_LOST_WORKER, EXIT_USER_ERROR
from beam_jobs.contract.config import load_config
from tests.command_lines import ROOT
from trainer import task
from trainer.distribution.cluster import find_cluster

SCRIPTS = ROOT / "scripts"
# Keys of the API of Kubernetes 1.29 and of Vertex AI's CustomJobSpec that the files may use: a
# mapping for an object, a list for a list of objects, ... for any value.
METADATA = {"name": ...}
SERVICE = {
    "apiVersion": ...,
    "kind": ...,
    "metadata": METADATA,
    "spec": {
        "clusterIP": ...,
        "publishNotReadyAddresses": ...,
        "selector": ...,
        "ports": [{"name": ..., "port": ...}],
    },
}
POD = {
    "subdomain": ...,
    "restartPolicy": ...,
    "terminationGracePeriodSeconds": ...,
    "securityContext": {"fsGroup": ...},
    "containers": [
        {
            "name": ...,
            "image": ...,
            "args": ...,
            "env": [{"name": ..., "value": ...}],
            "ports": [{"containerPort": ...}],
            "resources": {"requests": ..., "limits": ...},
            "volumeMounts": [{"name": ..., "mountPath": ...}],
        }
    ],
    "volumes": [{"name": ..., "persistentVolumeClaim": {"claimName": ...}}],
}
JOB = {
    "apiVersion": ...,
    "kind": ...,
    "metadata": METADATA,
    "spec": {
        "completionMode": ...,
        "completions": ...,
        "parallelism": ...,
        "backoffLimitPerIndex": ...,
        "maxFailedIndexes": ...,
        "podReplacementPolicy": ...,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": ...,
                    "onExitCodes": {"containerName": ..., "operator": ..., "values": ...},
                    "onPodConditions": [{"type": ..., "status": ...}],
                }
            ]
        },
        "template": {"spec": POD},
    },
}
MACHINE = {"machineType": ..., "acceleratorType": ..., "acceleratorCount": ...}
CUSTOM_JOB = {
    "workerPoolSpecs": [
        {
            "machineSpec": MACHINE,
            "replicaCount": ...,
            "containerSpec": {"imageUri": ..., "command": ..., "args": ...},
        }
    ],
    "baseOutputDirectory": {"outputUriPrefix": ...},
}


def check_keys(value, schema, where: str = "") -> None:
    if isinstance(schema, dict):
        assert isinstance(value, dict) and value.keys() <= schema.keys(), where
        for key, inner in value.items():
            check_keys(inner, schema[key], f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, where
        for i, inner in enumerate(value):
            check_keys(inner, schema[0], f"{where}[{i}]")


def check_arguments(arguments: list[str]) -> None:
    parsed = task.make_parser().parse_args(arguments)
    load_config(ROOT / parsed.config, overrides=parsed.overrides)


# --- Kubernetes ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kubernetes() -> tuple[dict, dict]:
    return tuple(yaml.safe_load_all((SCRIPTS / "kubernetes_job.yaml").read_text()))


def test_the_kubernetes_job_has_known_keys_and_a_command_that_the_trainer_takes(kubernetes):
    service, job = kubernetes
    check_keys(service, SERVICE)
    check_keys(job, JOB)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    check_arguments(container["args"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]
    }


def test_pods_of_the_kubernetes_job_find_each_other_behind_its_service(kubernetes):
    service, job = kubernetes
    spec, name = job["spec"], job["metadata"]["name"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert service["spec"]["clusterIP"] == "None"  # headless: a name for each pod
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    given = {each["name"]: each["value"] for each in container["env"]}
    clusters = [
        find_cluster(given | {"JOB_COMPLETION_INDEX": str(i), "HOSTNAME": f"{name}-{i}"})
        for i in range(spec["completions"])
    ]
    assert [cluster.index for cluster in clusters] == list(range(spec["completions"]))
    (port,), (opened,) = service["spec"]["ports"], container["ports"]
    assert port["port"] == opened["containerPort"]
    expected = tuple(
        f"{name}-{i}.{pod['subdomain']}:{port['port']}" for i in range(spec["completions"])
    )
    assert {cluster.addresses for cluster in clusters} == {expected}
    assert pod["subdomain"] == service["metadata"]["name"]


def test_the_kubernetes_job_starts_workers_again_but_not_for_a_wrong_input(kubernetes):
    spec = kubernetes[1]["spec"]
    actions = {
        status: rule["action"]
        for rule in spec["podFailurePolicy"]["rules"]
        for status in rule.get("onExitCodes", {}).get("values", [])
    }
    assert actions == {EXIT_USER_ERROR: "FailJob", 128 + signal.SIGTERM: "Ignore"}
    assert EXIT_LOST_WORKER not in actions  # it counts: a worker that never comes back ends the Job
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # the rules need it
    assert spec["backoffLimitPerIndex"] > 0 == spec["maxFailedIndexes"]
    assert spec["podReplacementPolicy"] == "Failed"


# --- Vertex AI -------------------------------------------------------------------------


def test_the_vertex_job_has_known_keys_and_pools_that_are_chief_and_workers():
    job = yaml.safe_load((SCRIPTS / "vertex_job.yaml").read_text())
    check_keys(job, CUSTOM_JOB)
    pools = job["workerPoolSpecs"]
    assert len(pools) == 2 and pools[0]["replicaCount"] == 1
    for pool in pools:
        assert pool["containerSpec"]["command"] == ["multihot-train"]
        check_arguments(["train", *pool["containerSpec"]["args"]])
    cluster = {
        f"workerpool{i}": [f"pool{i}-{replica}:2222" for replica in range(pool["replicaCount"])]
        for i, pool in enumerate(pools)
    }
    spec = {"cluster": cluster, "task": {"type": "workerpool1", "index": 0}}
    assert find_cluster({"CLUSTER_SPEC": json.dumps(spec)}).index == 1


# --- Slurm -----------------------------------------------------------------------------


def script(path: Path, lines: str) -> None:
    path.write_text(f"#!/bin/bash\n{lines}\n")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path):
    """Starts the batch script with commands in place of Slurm's; `srun` ends with a status."""

    def start(srun: str, *, restarts: int = 0, state: str = "RUNNING") -> subprocess.Popen:
        script(tmp_path / "srun", f'echo "$@" > started.txt; echo $$ > srun.pid; {srun}')
        script(tmp_path / "scancel", '[ "$*" = "--signal=TERM 7" ] && kill "$(cat srun.pid)"')
        script(tmp_path / "squeue", f"echo {state}")
        script(tmp_path / "scontrol", 'echo "$@" > requeued.txt')
        environment = os.environ | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "7",
            "SLURM_RESTART_COUNT": str(restarts),
        }
        return subprocess.Popen(
            ["bash", str(SCRIPTS / "train.slurm"), "--config", "a b.yaml"],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.parametrize(
    ("status", "restarts", "state", "ends_with", "is_queued_again"),
    [
        (0, 0, "RUNNING", 0, False),
        (EXIT_USER_ERROR, 0, "RUNNING", EXIT_USER_ERROR, False),
        (EXIT_LOST_WORKER, 19, "RUNNING", 0, True),
        (137, 20, "RUNNING", 137, False),
        (143, 0, "COMPLETING", 143, False),  # it was cancelled
    ],
)
def test_the_slurm_job_is_queued_again_after_a_failure_that_another_start_may_mend(
    slurm, tmp_path, status, restarts, state, ends_with, is_queued_again
):
    process = slurm(f"exit {status}", restarts=restarts, state=state)
    _, error = process.communicate(timeout=60)
    assert process.returncode == ends_with, error
    assert (tmp_path / "requeued.txt").exists() == is_queued_again
    started = (tmp_path / "started.txt").read_text()
    assert "python -u -m trainer.task train --config a b.yaml" in started


def test_the_slurm_job_passes_sigterm_on_and_is_queued_again_whatever_its_restarts(slurm, tmp_path):
    waiting = "trap 'exit 143' TERM; touch waits; while true; do sleep 0.02; done"
    process = slurm(waiting, restarts=50)
    for _ in range(600):
        if (tmp_path / "waits").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "requeued.txt").read_text() == "requeue 7\n"


@pytest.mark.parametrize("path", sorted([*SCRIPTS.glob("*.sh"), SCRIPTS / "train.slurm"]))
def test_shell_scripts_can_be_parsed(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
