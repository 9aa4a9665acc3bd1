"""The strategy a config and the surroundings lead to.

Multi-worker strategies are tested with real processes, in tests/integration.
"""

import json

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from trainer.distribution import strategy as strategy_module
from trainer.distribution.meeting import LostWorkerError
from trainer.distribution.strategy import (
    check_agreement,
    describe,
    explain_lost_workers,
    gather_over_workers,
    is_chief,
    make_strategy,
    num_workers,
    output_devices,
    sum_over_workers,
)

TWO_WORKERS = json.dumps(
    {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 0}}
)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "CLUSTER_SPEC", "SLURM_STEP_NUM_TASKS", "MULTIHOT_WORKERS"):
        monkeypatch.delenv(name, raising=False)


def settings(**values):
    return config_from_dict(
        {"name": "x", "data": {"source": "python_docstrings"}, "train": values}, what=""
    ).train


def have_gpus(monkeypatch, count):
    monkeypatch.setattr(
        tf.config,
        "list_physical_devices",
        lambda kind=None: [f"gpu{i}" for i in range(count)] if kind == "GPU" else ["cpu"],
    )


@pytest.mark.parametrize(
    ("gpus", "strategy", "made"),
    [
        (0, "auto", ("one", "/cpu:0")),
        (1, "auto", ("one", "/gpu:0")),
        (3, "auto", ("mirrored", ["/gpu:0", "/gpu:1", "/gpu:2"])),
        (3, "one_device", ("one", "/gpu:0")),
        (3, "mirrored", ("mirrored", ["/gpu:0", "/gpu:1", "/gpu:2"])),
    ],
)
def test_strategy_follows_from_the_gpus_there_are(monkeypatch, gpus, strategy, made):
    have_gpus(monkeypatch, gpus)

    def record(kind):
        def make(devices):
            count = len(devices) if kind == "mirrored" else 1
            return type("Made", (), {"made": (kind, devices), "num_replicas_in_sync": count})

        return make

    monkeypatch.setattr(tf.distribute, "OneDeviceStrategy", record("one"))
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", record("mirrored"))
    assert make_strategy(settings(strategy=strategy, batch_size=12)).made == made


def test_cluster_of_one_worker_is_no_cluster(monkeypatch):
    monkeypatch.setenv(
        "TF_CONFIG",
        json.dumps(
            {"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}}
        ),
    )
    strategy = make_strategy(settings())
    assert (num_workers(strategy), is_chief(strategy)) == (1, True)
    assert describe(strategy) == "OneDeviceStrategy on CPU:0" or "GPU" in describe(strategy)


@pytest.mark.parametrize(
    ("environment", "gpus", "values", "expected"),
    [
        (
            {},
            0,
            {"strategy": "multi_worker"},
            "train.strategy: received 'multi_worker', and no cluster; expected TF_CONFIG",
        ),
        (
            {"TF_CONFIG": TWO_WORKERS},
            0,
            {"strategy": "one_device"},
            "received 'one_device' in a cluster of 2 workers (TF_CONFIG); expected 'auto' or",
        ),
        (
            {"TF_CONFIG": TWO_WORKERS},
            0,
            {"strategy": "mirrored"},
            "received 'mirrored' in a cluster of 2 workers (TF_CONFIG); expected 'auto' or",
        ),
        ({"TF_CONFIG": "{"}, 0, {}, "TF_CONFIG: received '{', which is not JSON"),
        (
            {"TF_CONFIG": TWO_WORKERS},
            0,
            {"num_output_devices": 2},
            "model.output_devices: received 2 in a cluster of 2 workers (TF_CONFIG); expected 1",
        ),
        (
            {},
            2,
            {"num_output_devices": 3},
            "model.output_devices: received 3, expected at most 2, the number of GPUs",
        ),
        (
            {},
            2,
            {"strategy": "mirrored", "replicas": 4},
            "train.replicas: received 4, expected at most 2, the number of GPUs",
        ),
    ],
)
def test_strategy_that_cannot_be_had_is_told(monkeypatch, environment, gpus, values, expected):
    have_gpus(monkeypatch, gpus)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    devices = {name: values[name] for name in values if name == "num_output_devices"}
    with pytest.raises(UserError) as raised:
        make_strategy(settings(**{k: v for k, v in values.items() if k not in devices}), **devices)
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("gpus", "count", "devices"),
    [(3, 1, [None]), (3, 2, ["/gpu:0", "/gpu:1"]), (0, 2, ["/cpu:0", "/cpu:1"])],
)
def test_an_output_layer_is_divided_over_the_first_gpus_or_else_cpus(
    monkeypatch, gpus, count, devices
):
    have_gpus(monkeypatch, gpus)
    assert output_devices(count) == devices


def test_more_cpus_than_tensorflow_has_begun_with_are_refused():
    tf.config.list_logical_devices()
    with pytest.raises(UserError, match="received 3, and TensorFlow uses 2 logical CPUs in this"):
        make_strategy(settings(), num_output_devices=3)


def test_one_worker_agrees_with_itself():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    assert sum_over_workers(strategy, {"a": 3}) == {"a": 3}
    check_agreement(strategy, 7, what="a number")
    assert gather_over_workers(strategy, {"a": 3}) == [{"a": 3}]


def test_every_worker_gathers_what_all_have_from_one_sum(monkeypatch):
    values = [
        {
            "ids": np.array([i, -(2**60)]),
            "nested": {"score": np.float32(i / 3), "empty": np.zeros((0, 2))},
        }
        for i in range(3)
    ]
    sent = []

    def gather(worker, reduce):
        monkeypatch.setattr(strategy_module, "num_workers", lambda _: 3)
        monkeypatch.setattr(strategy_module, "worker_index", lambda _: worker)
        monkeypatch.setattr(strategy_module, "sum_over_workers", reduce)
        return gather_over_workers(None, values[worker])

    for worker in range(3):
        gather(worker, lambda _, rows: sent.append(rows) or rows)
    total = tf.nest.map_structure(lambda *rows: sum(rows), *sent)
    for worker in range(3):
        for gathered, expected in zip(gather(worker, lambda *_: total), values, strict=True):
            tf.nest.map_structure(np.testing.assert_array_equal, gathered, expected)
            assert (
                gathered["ids"].dtype == np.int64
                and gathered["nested"]["score"].dtype == np.float32
            )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Graph execution error:\n\nDetected at node x\nSocket closed\nAdditional information "
            "from /job:worker/replica:0/task:1 while calling RecvBuf of /job:worker/task:0",
            "worker 0 has lost worker 1, so it ends too: started again, all of them resume at the "
            "newest checkpoint (Additional information from /job:worker/replica:0/task:1",
        ),
        ("Graph execution error:\n\nNCCL", "has lost another worker, .*error:  NCCL"),
    ],
)
def test_a_lost_worker_is_named_by_those_that_lose_it(monkeypatch, text, expected):
    monkeypatch.setattr(strategy_module, "num_workers", lambda strategy: 2)
    error = tf.errors.UnavailableError(None, None, text)
    with pytest.raises(LostWorkerError, match=expected.replace("(", r"\(")):
        with explain_lost_workers(tf.distribute.OneDeviceStrategy("/cpu:0")):
            raise error


@pytest.mark.parametrize(
    ("cores", "environment", "already", "expected"),
    [(1, {}, 0, [4]), (8, {}, 0, []), (1, {"TF_NUM_INTEROP_THREADS": "1"}, 0, []), (1, {}, 2, [])],
)
def test_a_worker_of_few_cores_has_threads_for_what_waits_unless_the_user_has_set_them(
    monkeypatch, cores, environment, already, expected
):
    threads = []
    monkeypatch.delenv("TF_NUM_INTEROP_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    threading = tf.config.threading
    monkeypatch.setattr(threading, "get_inter_op_parallelism_threads", lambda: already)
    monkeypatch.setattr(threading, "set_inter_op_parallelism_threads", threads.append)
    strategy_module._compute_while_waiting()
    assert threads == expected
