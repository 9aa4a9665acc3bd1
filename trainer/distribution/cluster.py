"""The workers of a run, as TF_CONFIG, Vertex AI, Slurm or Kubernetes describe them.

The description is checked before TensorFlow waits for any worker.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from beam_jobs.contract.errors import UserError

_TASK_TYPES = ("chief", "worker")
_VERTEX_POOLS = {"workerpool0": "chief", "workerpool1": "worker"}
# Slurm gives jobs no ports. Those of two jobs on one node should differ, and stay below what the
# system hands out itself (32768).
_SLURM_FIRST_PORT, _SLURM_PORTS_PER_JOB, _SLURM_PORT_BLOCKS = 12_000, 16, 1_250
_KUBERNETES_PORT = 2222  # each pod has an address of its own


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
    """The cluster that TF_CONFIG, CLUSTER_SPEC, a Slurm step or an indexed Job describes.

    They are looked for in this order; None: no cluster.

    Raises:
      UserError: a description cannot be used, or two of them contradict each other.
    """
    found = [
        cluster
        for cluster in (
            _from_tf_config("TF_CONFIG", environment.get("TF_CONFIG"), pools=None),
            # https://cloud.google.com/vertex-ai/docs/training/distributed-training#cluster-variables
            _from_tf_config("CLUSTER_SPEC", environment.get("CLUSTER_SPEC"), pools=_VERTEX_POOLS),
            _from_slurm(environment),
            _from_kubernetes(environment),
        )
        if cluster
    ]
    for other in found[1:]:
        if (len(found[0].addresses), found[0].index) != (len(other.addresses), other.index):
            raise UserError(
                f"received worker {found[0].index} of {len(found[0].addresses)} by "
                f"{found[0].origin}, and worker {other.index} of {len(other.addresses)} by "
                f"{other.origin}; expected one description, or two that agree: unset the one that "
                "is not meant"
            )
    return found[0] if found else None


def _from_tf_config(
    name: str, text: str | None, *, pools: Mapping[str, str] | None
) -> Cluster | None:
    if not text:
        return None
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


def _from_slurm(environment: Mapping[str, str]) -> Cluster | None:
    # In a shell of `salloc`, and outside `srun`, there is no step and only one process.
    number = environment.get("SLURM_STEP_NUM_TASKS") or "1"
    if not number.isdecimal():
        raise UserError(f"Slurm: received SLURM_STEP_NUM_TASKS={number!r}, expected a number")
    if int(number) <= 1:
        return None
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


def _from_kubernetes(environment: Mapping[str, str]) -> Cluster | None:
    """The pods of an indexed Job, or of a JobSet, behind a headless Service."""
    number = environment.get("MULTIHOT_WORKERS")
    if not number:
        return None
    names = ("MULTIHOT_WORKERS", "MULTIHOT_SERVICE", "JOB_COMPLETION_INDEX", "HOSTNAME")
    received = ", ".join(f"{name}={environment.get(name)!r}" for name in names)

    def wrong(expected: str) -> UserError:
        return UserError(f"Kubernetes: received {received}; expected {expected}")

    if not number.isdecimal() or int(number) < 1:
        raise wrong("MULTIHOT_WORKERS to be the Job's number of completions")
    if int(number) == 1:
        return None
    index, host = environment.get("JOB_COMPLETION_INDEX", ""), environment.get("HOSTNAME", "")
    if not index.isdecimal():
        raise wrong("JOB_COMPLETION_INDEX, which pods of a Job have with completionMode: Indexed")
    if int(index) >= int(number):
        raise wrong("an index below MULTIHOT_WORKERS, which must be the Job's completions")
    service = environment.get("MULTIHOT_SERVICE")
    if not service:
        raise wrong("MULTIHOT_SERVICE, the headless Service that is the pods' subdomain")
    if not host.endswith(f"-{index}"):
        raise wrong(f"a HOSTNAME that ends with the index, as NAME-{index}, which the Job gives")
    name = host.removesuffix(f"-{index}")
    addresses = tuple(f"{name}-{i}.{service}:{_KUBERNETES_PORT}" for i in range(int(number)))
    return Cluster(addresses, int(index), "Kubernetes")
