#!/usr/bin/env python3
"""Does a run of two workers survive the death of one, whichever launch file describes them?

Two workers, each on a host of its own (a network namespace, which root makes with `ip`), have the
environment variables that Slurm, an indexed Job of Kubernetes (with the names and variables of
scripts/kubernetes_job.yaml) or Vertex AI gives them. In mid-run one is killed with SIGKILL and
started again at once, the other when it has ended. A row for each says with which status the other
one ended, at which step the run was resumed, and how far its weights are from those of a run that
nothing interrupted.

  python scripts/check_restarts.py
"""

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_jobs.contract import child_process  # noqa: E402
from beam_jobs.contract.command_line import EXIT_LOST_WORKER, run_main  # noqa: E402
from beam_jobs.contract.quiet import import_tensorflow_quietly  # noqa: E402

KINDS = ("tf_config", "slurm", "kubernetes", "vertex")
HOSTS = ("multihot-restart-0", "multihot-restart-1")
ADDRESSES = ("10.78.0.1", "10.78.0.2")
PORT = 2222
SECONDS = 300  # for all that is waited for
KILLED_AT = 4  # the first checkpoint at which a worker is killed
CONFIG = """
name: tiny
data: {source: jsonl, inputs: [documents.jsonl], id_field: id}
vocabulary: {min_document_count: 1}
output: {dataset_dir: dataset, shards: 4}
model: {name: bow, embedding_dim: 16, dropout: 0.2}
train: {epochs: 4, patience: null, batch_size: 32, checkpoint_steps: 2, steps_per_call: 1}
"""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--by", nargs="+", choices=KINDS, default=KINDS, help="default: all")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, hosts():
        home = Path(folder)
        _make_dataset(home)
        whole = _start_both(home, "tf_config", "whole")
        for process in whole:
            _finish(process)
        row = "| {:<10} | {:>6} | {:>16} | {:>10} | {:>10} | {}"
        print(row.format("by", "killed", "the other's end", "checkpoint", "resumed at", "weights"))
        is_wrong = False
        for kind in arguments.by:
            for victim in range(2):
                columns, is_right = _kill_one(home, kind, victim)
                is_wrong |= not is_right
                print(row.format(kind, victim, *columns), flush=True)
    if is_wrong:
        sys.exit(1)


@contextlib.contextmanager
def hosts() -> Iterator[None]:
    """Two network namespaces that see each other, and have names for each other's addresses."""
    names = {address: [] for address in ADDRESSES}
    for kind in ("kubernetes", "vertex"):
        for address, name in zip(ADDRESSES, _names(kind), strict=True):
            names[address].append(name)
    lines = ["127.0.0.1 localhost", *(f"{a} {' '.join(of_it)}" for a, of_it in names.items())]
    try:
        for host in HOSTS:
            _ip("netns", "add", host)
            folder = Path("/etc/netns", host)  # `ip netns exec` puts what is here into /etc
            folder.mkdir(parents=True)
            (folder / "hosts").write_text("\n".join(lines) + "\n")
        _ip(
            *("link", "add", "eth0", "netns", HOSTS[0]),
            *("type", "veth", "peer", "name", "eth0", "netns", HOSTS[1]),
        )
        for host, address in zip(HOSTS, ADDRESSES, strict=True):
            _ip("-n", host, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "eth0", "up")
            _ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "delete", host], capture_output=True)
            Path("/etc/netns", host, "hosts").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                Path("/etc/netns", host).rmdir()


def _ip(*arguments: str) -> None:
    ended = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"error: ip {' '.join(arguments)}: {ended.stderr.strip()}; expected to be root")


def _names(kind: str) -> tuple[str, str]:
    """What the two workers are called."""
    if kind == "vertex":
        return tuple(f"cmle-training-workerpool{i}-0123456789-0" for i in range(2))
    job, pod = _kubernetes()
    return tuple(f"{job}-{i}.{pod['subdomain']}" for i in range(2))


def _kubernetes() -> tuple[str, Mapping]:
    """The name of the Job in the launch file, and the specification of its pods."""
    text = (ROOT / "scripts/kubernetes_job.yaml").read_text()
    _, job = YAML(typ="safe", pure=True).load_all(text)
    return job["metadata"]["name"], job["spec"]["template"]["spec"]


def environment(kind: str, index: int, run: Path) -> dict[str, str]:
    """The variables by which worker `index` of two finds the other one."""
    if kind == "tf_config":
        return {"TF_CONFIG": _cluster({"worker": ADDRESSES}, "worker", index)}
    if kind == "slurm":
        return {
            "SLURM_JOB_ID": "7",
            "SLURM_PROCID": str(index),
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NODELIST": "10.78.0.[1-2]",
            "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        }
    if kind == "kubernetes":
        job, pod = _kubernetes()
        given = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
        return given | {"JOB_COMPLETION_INDEX": str(index), "HOSTNAME": f"{job}-{index}"}
    first, second = _names(kind)
    pools = {"workerpool0": [first], "workerpool1": [second]}
    return {
        "CLUSTER_SPEC": _cluster(pools, f"workerpool{index}", 0),
        "TF_CONFIG": _cluster(
            {"chief": [first], "worker": [second]}, ("chief", "worker")[index], 0
        ),
        "CLOUD_ML_JOB_ID": "7",
        "AIP_CHECKPOINT_DIR": f"{run}/",
        "AIP_MODEL_DIR": f"{run}-model/",
        "AIP_TENSORBOARD_LOG_DIR": f"{run}-logs/",
    }


def _cluster(workers: Mapping, kind: str, index: int) -> str:
    addresses = {name: [f"{host}:{PORT}" for host in of_it] for name, of_it in workers.items()}
    return json.dumps({"cluster": addresses, "task": {"type": kind, "index": index}})


def _make_dataset(home: Path) -> None:
    rng = random.Random(0)
    words = [f"word{i}" for i in range(500)]
    with open(home / "documents.jsonl", "w") as stream:
        for i in range(500):
            labels = rng.sample(range(8), 2)
            text = " ".join([*rng.choices(words, k=20), *(f"topic{label}" for label in labels)])
            row = {"id": str(i), "text": text, "labels": [f"l{label}" for label in labels]}
            stream.write(json.dumps(row) + "\n")
    (home / "config.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "beam_jobs.preprocess", "--config", "config.yaml"]
    subprocess.run(command, cwd=home, env=child_process.environment(), check=True)


def _start(home: Path, kind: str, index: int, run: str) -> subprocess.Popen:
    """Starts a worker on its host, as its launch file does."""
    command = ["ip", "netns", "exec", HOSTS[index], sys.executable, "-u", "-m", "trainer.task"]
    settings = ["train", "--config", "config.yaml", "--set", f"train.run_dir={run}"]
    own = environment(kind, index, home / run) | {"TF_NUM_INTRAOP_THREADS": "1"}
    return subprocess.Popen(
        [*command, *settings],
        cwd=home,
        env=child_process.environment() | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _start_both(home: Path, kind: str, run: str) -> list[subprocess.Popen]:
    return [_start(home, kind, index, run) for index in range(2)]


def _finish(process: subprocess.Popen, *, status: int = 0) -> str:
    """What it printed; ends this process if it does not end with the status."""
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        sys.exit(f"error: still running after {SECONDS} s:\n{process.communicate()[0]}")
    if process.returncode != status:
        sys.exit(f"error: status {process.returncode}, expected {status}:\n{output}")
    return output


def _kill_one(home: Path, kind: str, victim: int) -> tuple[tuple, bool]:
    """Kills a worker in mid-run, starts each again, and compares what the run ends with.

    Returns:
      ((the other's status, the newest checkpoint then, the step after which it was resumed, how the
      weights compare), whether all is as it should be)
    """
    run = f"{kind}-{victim}"
    workers = _start_both(home, kind, run)
    deadline = time.monotonic() + SECONDS
    while _newest_step(home / run) < KILLED_AT:
        if time.monotonic() > deadline or any(worker.poll() is not None for worker in workers):
            sys.exit(f"error: no checkpoint of step {KILLED_AT} came: {run}")
        time.sleep(0.02)
    os.killpg(workers[victim].pid, signal.SIGKILL)
    workers[victim].communicate()
    workers[victim] = _start(home, kind, victim, run)
    other = 1 - victim
    _finish(workers[other], status=EXIT_LOST_WORKER)
    checkpoint = _newest_step(home / run)
    workers[other] = _start(home, kind, other, run)
    printed = "".join(_finish(worker) for worker in workers)
    resumed = re.search(r"resuming after step ([\d,]+)", printed)
    step = int(resumed[1].replace(",", "")) if resumed else None
    difference = _difference(home / run, home / "whole")
    weights = f"differ by {difference:.1e} at most" if difference else "the same bits"
    is_right = step == checkpoint and difference < 1e-5
    return (EXIT_LOST_WORKER, checkpoint, step, weights), is_right


def _newest_step(run: Path) -> int:
    """The step of the newest complete checkpoint; 0: there is none."""
    try:
        listed = (run / "checkpoints/checkpoint").read_text()
    except FileNotFoundError:
        return 0
    newest = re.search(r'^model_checkpoint_path: ".*-(\d+)"', listed, re.MULTILINE)
    return int(newest[1]) if newest else 0


def _difference(run: Path, other: Path) -> float:
    """The largest difference between weights of the newest checkpoints of two runs."""
    import_tensorflow_quietly()
    import numpy as np
    import tensorflow as tf

    ours, theirs = (tf.train.load_checkpoint(str(each / "checkpoints")) for each in (run, other))
    names = [name for name in ours.get_variable_to_shape_map() if name.startswith("model")]
    return max(
        float(np.abs(ours.get_tensor(name) - theirs.get_tensor(name)).max()) for name in names
    )


if __name__ == "__main__":
    run_main(main)
