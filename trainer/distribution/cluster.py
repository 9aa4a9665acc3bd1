"""The workers of a run, as TF_CONFIG, Vertex AI or Slurm describe them.

The description is checked before TensorFlow waits for any worker.
"""

import dataclasses
import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from beam_jobs.contract.errors import UserError

_TASK_TYPES = ("chief", "worker")
_VERTEX_POOLS = {"workerpool0": "chief", "workerpool1": "worker"}
_POLL_SECONDS = 0.2
# Slurm gives jobs no ports. Those of two jobs on one node should differ, and stay below what the
# system hands out itself (32768).
_SLURM_FIRST_PORT, _SLURM_PORTS_PER_JOB, _SLURM_PORT_BLOCKS = 12_000, 16, 1_250


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run, as their launcher describes them.

    Attributes:
      addresses: `host:port` of each worker; the first worker is chief.
      index: the index of this process among them.
      origin: where the description comes from, for messages.
    """

    addresses: tuple[str, ...]
    index: int
    origin: str


def find_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that TF_CONFIG, Vertex AI's CLUSTER_SPEC or a Slurm step describes.

    They are looked for in this order; None: no cluster.

    Raises:
      UserError: the description cannot be used.
    """
    if environment.get("TF_CONFIG"):
        return _from_tf_config("TF_CONFIG", environment["TF_CONFIG"], pools=None)
    if environment.get("CLUSTER_SPEC"):
        # https://cloud.google.com/vertex-ai/docs/training/distributed-training#cluster-variables
        return _from_tf_config("CLUSTER_SPEC", environment["CLUSTER_SPEC"], pools=_VERTEX_POOLS)
    # In a shell of `salloc`, and outside `srun`, there is no step and only one process.
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or "1"
    if not tasks.isdecimal():
        raise UserError(f"Slurm: received SLURM_STEP_NUM_TASKS={tasks!r}, expected a number")
    return _from_slurm(environment) if int(tasks) > 1 else None


def _from_tf_config(name: str, text: str, *, pools: Mapping[str, str] | None) -> Cluster | None:
    example = (
        '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )

    def wrong(received: str, expected: str) -> UserError:
        return UserError(f"{name}: received {received}, expected {expected}; for example {example}")

    try:
        value = json.loads(text)
    except ValueError as error:
        raise wrong(f"{text[:200]!r}, which is not JSON ({error})", "a JSON object") from None
    if not isinstance(value, dict):
        raise wrong(repr(value)[:200], "a JSON object")
    if not value.get("cluster") and not value.get("task"):
        return None  # some platforms set it, without a cluster, for jobs of one process
    for key in ("cluster", "task"):
        if not isinstance(value.get(key), dict):
            raise wrong(
                f"{value.get(key)!r} as `{key}`" if key in value else f"no `{key}`",
                f"a mapping as `{key}`",
            )
    cluster, task = value["cluster"], value["task"]
    if pools:
        cluster = {pools.get(pool, pool): addresses for pool, addresses in cluster.items()}
        task = task | {"type": pools.get(task.get("type"), task.get("type"))}
    unknown = sorted(cluster.keys() - set(_TASK_TYPES))
    if unknown or not cluster:
        raise wrong(
            f"the task types {sorted(cluster)}",
            f"only {' and '.join(_TASK_TYPES)}: there are neither parameter servers nor evaluators",
        )
    for task_type, addresses in cluster.items():
        _check_addresses(addresses, task_type, wrong)
    if len(cluster.get("chief", [])) > 1:
        raise wrong(f"{len(cluster['chief'])} chiefs", "one")
    task_type, index = task.get("type"), task.get("index")
    if task_type not in cluster:
        raise wrong(f"the task type {task_type!r}", f"one of the cluster's: {sorted(cluster)}")
    index = int(index) if isinstance(index, str) and index.isdecimal() else index
    if (
        not isinstance(index, int)
        or isinstance(index, bool)
        or not 0 <= index < len(cluster[task_type])
    ):
        raise wrong(
            f"the task index {index!r}",
            f"0 to {len(cluster[task_type]) - 1}, as there are {len(cluster[task_type])} of type "
            f"{task_type!r}",
        )
    addresses = tuple(address for kind in _TASK_TYPES for address in cluster.get(kind, []))
    if len(set(addresses)) < len(addresses):
        raise wrong(f"the addresses {', '.join(addresses)}", "a different one for each worker")
    return Cluster(
        addresses, index + (len(cluster.get("chief", [])) if task_type == "worker" else 0), name
    )


def _check_addresses(
    addresses: Any, task_type: str, wrong: Callable[[str, str], UserError]
) -> None:
    """Raises what `wrong` makes of (received, expected) unless they are a list of `host:port`."""
    if not isinstance(addresses, list) or not all(isinstance(a, str) for a in addresses):
        raise wrong(f"{addresses!r} as the addresses of {task_type!r}", "a list of `host:port`")
    for address in addresses:
        port = re.fullmatch(r"[^\s/]+:(\d+)", address)
        if not port or not 0 < int(port[1]) < 65536:
            raise wrong(
                f"the address {address!r} of {task_type!r}",
                "`host:port`, with a port from 1 to 65535",
            )


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    # Of TensorFlow's SlurmClusterResolver only how it reads Slurm's lists: it sorts hosts by name,
    # so node10 would come before node2 and the workers' numbers would not be Slurm's, and it fails
    # where there are no GPUs.
    from tensorflow.python.distribute.cluster_resolver.slurm_cluster_resolver import (
        expand_hostlist,
        expand_tasks_per_node,
    )

    names = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE", "SLURM_JOB_ID")
    try:
        rank, hosts, tasks, job = (environment[name] for name in names)
        tasks_per_host = list(
            zip(expand_hostlist(hosts), expand_tasks_per_node(tasks), strict=True)
        )
        first_port = _SLURM_FIRST_PORT + _SLURM_PORTS_PER_JOB * (int(job) % _SLURM_PORT_BLOCKS)
        addresses = tuple(
            f"{host}:{first_port + i}" for host, count in tasks_per_host for i in range(count)
        )
        index = int(rank)
        if not 0 <= index < len(addresses):
            raise ValueError(f"rank {index} of {len(addresses)} tasks")
    except (KeyError, ValueError) as error:
        received = ", ".join(f"{name}={environment.get(name)!r}" for name in names)
        raise UserError(
            f"Slurm: received {received} ({error}), expected what `srun` sets in each task of a "
            "step"
        ) from None
    return Cluster(addresses, index, "Slurm")


def wait_for_workers(cluster: Cluster, *, timeout_seconds: float) -> None:
    """Returns when every worker answers at its address; a worker answers while it waits here.

    TensorFlow itself waits for an hour and does not say for which worker.

    Raises:
      UserError: our own port is in use, or a worker does not answer in time.
    """
    port = int(cluster.addresses[cluster.index].rpartition(":")[2])
    deadline = time.monotonic() + timeout_seconds
    with socket.socket() as own:
        # A connection that a worker of an earlier run has left in TIME_WAIT is no obstacle.
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind(("", port))
        except OSError as error:
            raise UserError(
                f"{cluster.origin}: the port {port} of our own address "
                f"{cluster.addresses[cluster.index]} cannot be opened ({error.strerror}); "
                "expected a free one: is another run, or an earlier one, still there?"
            ) from None
        own.listen(len(cluster.addresses))
        missing = [i for i in range(len(cluster.addresses)) if i != cluster.index]
        while missing := [i for i in missing if not _answers(cluster.addresses[i])]:
            if time.monotonic() > deadline:
                names = ", ".join(f"worker {i} ({cluster.addresses[i]})" for i in missing)
                raise UserError(
                    f"worker {cluster.index} waited {timeout_seconds:g} s "
                    f"(train.worker_timeout_seconds), and there was no answer from {names}; "
                    f"expected all {len(cluster.addresses)} workers of {cluster.origin}: were they "
                    "started, and can they reach each other?"
                )
            time.sleep(_POLL_SECONDS)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except OSError:
        return False
