"""Every operation of a training step has a kernel for GPUs, or a stated reason to have none."""

import pytest
import tensorflow as tf

from scripts import check_gpu_ops
from scripts.check_gpu_ops import CASES, check_cases, without_gpu_kernel

ARCHITECTURES = [
    "bow, pairs, squared hinge, linear decay",
    "bow_lwan",
    "bow_tree, divided, average, clipping",
    "mlp",
    "lstm",
]


@pytest.mark.parametrize("name", [*ARCHITECTURES, "cnn, float16", "transformer, bfloat16"])
def test_a_gpu_runs_every_operation_of_the_training_step(name, capsys):
    assert check_cases([name])
    assert capsys.readouterr().out == f"{name}: ok\n"


def test_what_runs_on_the_cpu_is_found_with_its_types_and_its_reason(capsys, monkeypatch):
    monkeypatch.setitem(CASES, "own", {"model": {"name": "bow"}, "optimizer": {"name": "adagrad"}})
    assert check_cases(["own"])
    assert "ScatterNd(T=bool, Tindices=int64): of bool: Keras's adagrad" in capsys.readouterr().out
    monkeypatch.setattr(check_gpu_ops, "ON_CPU", {})
    assert not check_cases(["own"])
    assert capsys.readouterr().out.startswith("own: FAILED\n")


def test_operations_of_called_functions_are_looked_up_too():
    @tf.function
    def pad(ragged):
        return ragged.to_tensor()

    @tf.function
    def caller(ragged):
        return pad(ragged) + 1

    spec = tf.RaggedTensorSpec([2, None], tf.float32)
    missing = without_gpu_kernel(caller.get_concrete_function(spec))
    assert {operation.name for operation in missing} == {"RaggedTensorToTensor"}
