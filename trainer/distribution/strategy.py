"""The devices that a run uses, and sums over its workers."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.train import TrainConfig
from trainer.distribution.cluster import Cluster, find_cluster
from trainer.distribution.meeting import LostWorkerError, meeting

# What TensorFlow raises in a worker when another one has ended.
_LOST_WORKER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
_LEAST_THREADS = 4
_TASK = re.compile(r"/job:worker/(?:replica:\d+/)?task:(\d+)")


def make_strategy(train: TrainConfig, *, num_output_devices: int = 1) -> tf.distribute.Strategy:
    """The distribution strategy of a run. Call it before TensorFlow has used any device.

    With several workers it returns when all of them have started.

    Args:
      train: the section of the config.
      num_output_devices: those of `output_devices`, which one replica uses.

    Raises:
      UserError: the description of the cluster is wrong, there are fewer GPUs than replicas or than
        output devices, the replicas cannot divide a batch, or several would have output devices.
      LostWorkerError: a worker does not start in time.
    """
    cluster = find_cluster(os.environ)
    has_several_workers = cluster is not None and len(cluster.addresses) > 1
    if train.strategy == "multi_worker" and cluster is None:
        raise UserError(
            "train.strategy: received 'multi_worker', and no cluster; expected TF_CONFIG, Vertex "
            "AI's CLUSTER_SPEC, a Slurm step or Kubernetes' MULTIHOT_WORKERS. "
            "On one machine: `python scripts/launch_workers.py --workers 2 -- train --config ...`"
        )
    if has_several_workers and train.strategy in ("one_device", "mirrored"):
        raise UserError(
            f"train.strategy: received {train.strategy!r} in a cluster of {len(cluster.addresses)} "
            f"workers ({cluster.origin}); "
            "expected 'auto' or 'multi_worker': otherwise each worker would train the same run by "
            "itself"
        )
    gpus = tf.config.list_physical_devices("GPU")
    if num_output_devices > 1:
        if has_several_workers:
            raise UserError(
                f"model.output_devices: received {num_output_devices} in a cluster of "
                f"{len(cluster.addresses)} workers ({cluster.origin}); expected 1 there: the "
                "output layer of one replica is divided over the devices of its process"
            )
        first, *_ = _devices(num_output_devices, gpus, key="model.output_devices")
        strategy = tf.distribute.OneDeviceStrategy(first)
    elif has_several_workers:
        strategy = _join(cluster, timeout_seconds=train.worker_timeout_seconds)
    elif train.strategy == "mirrored" or (train.strategy != "one_device" and len(gpus) > 1):
        count = train.replicas or max(1, len(gpus))
        strategy = tf.distribute.MirroredStrategy(_devices(count, gpus, key="train.replicas"))
    else:
        strategy = tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    if train.batch_size % strategy.num_replicas_in_sync:
        raise UserError(
            f"train.batch_size: received {train.batch_size}, expected a multiple of the "
            f"{strategy.num_replicas_in_sync} replicas"
        )
    return strategy


def _join(cluster: Cluster, *, timeout_seconds: float) -> tf.distribute.Strategy:
    _compute_while_waiting()
    spec = tf.train.ClusterSpec({"worker": cluster.addresses})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, task_type="worker", task_id=cluster.index, rpc_layer="grpc"
    )
    with meeting(cluster, timeout_seconds=timeout_seconds):
        return tf.distribute.MultiWorkerMirroredStrategy(
            cluster_resolver=resolver
        )  # all-reduce by NCCL on GPUs, by a ring on CPUs


def _compute_while_waiting() -> None:
    """Gives a worker of few cores threads enough to go on while some wait for another worker.

    TensorFlow takes as many as there are cores; what the user has set stays.
    """
    threading = tf.config.threading
    is_set = os.environ.get("TF_NUM_INTEROP_THREADS") or (
        threading.get_inter_op_parallelism_threads()
    )
    if not is_set and len(os.sched_getaffinity(0)) < _LEAST_THREADS:
        threading.set_inter_op_parallelism_threads(_LEAST_THREADS)


def _devices(count: int, gpus: Sequence[Any], *, key: str) -> list[str]:
    """So many GPUs; where there is none, logical CPUs, which are made.

    Raises:
      UserError: there are fewer GPUs than the config's key says, or TensorFlow has begun with fewer
        CPUs.
    """
    if gpus:
        if len(gpus) < count:
            raise UserError(
                f"{key}: received {count}, expected at most {len(gpus)}, the number of GPUs"
            )
        return [f"/gpu:{i}" for i in range(count)]
    (cpu, *_) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:  # once a device has been used
        begun = len(tf.config.list_logical_devices("CPU"))
        if begun < count:
            raise UserError(
                f"{key}: received {count}, and TensorFlow uses {begun} logical CPUs in this "
                f"process already; expected at most {begun}, or another process"
            ) from None
    return [f"/cpu:{i}" for i in range(count)]


def output_devices(count: int) -> list[str | None]:
    """The names of the devices that an output layer is divided over, made by `make_strategy`.

    None alone: it is not divided, and the strategy says where it is.
    """
    if count == 1:
        return [None]
    kind = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    return [f"/{kind}:{i}" for i in range(count)]


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together."""
    resolver = _resolver(strategy)
    return resolver.cluster_spec().num_tasks("worker") if resolver else 1


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """The index of this process among the workers."""
    resolver = _resolver(strategy)
    return resolver.task_id if resolver else 0


def uses_gpus(strategy: tf.distribute.Strategy) -> bool:
    """Whether the replicas of this process are on GPUs."""
    return any("gpu" in device.lower() for device in strategy.extended.worker_devices)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes checkpoints, logs and reports."""
    return worker_index(strategy) == 0


def _resolver(strategy: tf.distribute.Strategy) -> Any:
    return (
        strategy.cluster_resolver
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        else None
    )


def sum_over_workers(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """Sums numbers or arrays over the workers. Every worker must call it, in the same order.

    Args:
      strategy: the run's.
      values: nested NumPy arrays or numbers, of the same structure and shapes on all workers.

    Returns:
      The sums, equal on all workers, in the same structure; with one worker `values` itself.
    """
    if num_workers(strategy) == 1:
        return values
    own_replicas = strategy.num_replicas_in_sync // num_workers(strategy)

    def total(value):
        # All replicas take part in the sum: the first of a worker adds its value, the others add 0.
        mine = strategy.experimental_distribute_values_from_function(
            lambda c: value if c.replica_id_in_sync_group % own_replicas == 0 else value * 0
        )
        return strategy.reduce("SUM", mine, axis=None).numpy()

    return tf.nest.map_structure(lambda value: total(tf.constant(value)), values)


def gather_over_workers(strategy: tf.distribute.Strategy, values: Any) -> list[Any]:
    """The values of every worker, by worker index. Every worker must call it, in the same order.

    `sum_over_workers` is the only collective that is needed: each worker adds an array of zeros in
    which only the row of its own index is set.

    Args:
      strategy: the run's.
      values: nested NumPy arrays or numbers, of the same structure, shapes and dtypes on all
        workers.

    Returns:
      As many structures of NumPy arrays as there are workers, equal on all workers; with one worker
      [values].
    """
    workers, worker = num_workers(strategy), worker_index(strategy)
    if workers == 1:
        return [values]

    def in_own_row(value):
        value = np.asarray(value)
        rows = np.zeros((workers, *value.shape), value.dtype)
        rows[worker] = value
        return rows

    gathered = sum_over_workers(strategy, tf.nest.map_structure(in_own_row, values))
    return [tf.nest.map_structure(lambda rows, i=i: rows[i], gathered) for i in range(workers)]


def wait_for_all_workers(strategy: tf.distribute.Strategy) -> None:
    """Returns when every worker has called it.

    A worker that is done must not end before: should another one have to start again, it would
    wait for this one.
    """
    sum_over_workers(strategy, 0)


def check_agreement(strategy: tf.distribute.Strategy, value: int, *, what: str) -> None:
    """Raises UserError unless a number below 2**48 is the same on all workers.

    Every worker must call it.
    """
    workers = num_workers(strategy)
    total = int(sum_over_workers(strategy, np.int64(value)))
    if total != workers * value:
        raise UserError(
            f"the {workers} workers differ in {what}: worker {worker_index(strategy)} has {value}, "
            f"the mean is {total / workers:g}"
        )


@contextlib.contextmanager
def explain_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns TensorFlow's errors about a worker that has ended into LostWorkerError."""
    try:
        yield
    except _LOST_WORKER_ERRORS as error:
        if num_workers(strategy) == 1:
            raise
        own, lines = worker_index(strategy), str(error).splitlines()
        others = {line: {int(task) for task in _TASK.findall(line)} - {own} for line in lines}
        lost = sorted(set().union(*others.values()))
        name = " or ".join(f"worker {number}" for number in lost) or "another worker"
        reason = next((line for line, tasks in others.items() if tasks), " ".join(lines)[:300])
        raise LostWorkerError(
            f"worker {own} has lost {name}, so it ends too: started again, all of them resume at "
            f"the newest checkpoint ({reason.strip()})"
        ) from error


def describe(strategy: tf.distribute.Strategy) -> str:
    """The strategy, in words."""
    devices = ", ".join(
        device.rpartition("/")[2].removeprefix("device:")
        for device in strategy.extended.worker_devices
    )
    workers = (
        f" of worker {worker_index(strategy)}, of {num_workers(strategy)} workers"
        if num_workers(strategy) > 1
        else ""
    )
    return f"{type(strategy).__name__} on {devices}{workers}"
