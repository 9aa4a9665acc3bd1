#!/usr/bin/env python3
"""Checks that the operations of training and of the export have kernels for GPUs.

It traces the training step of each architecture, and looks each operation up, with the types of its
tensors, among the kernels that this TensorFlow registers for GPUs. No GPU is needed. An operation
that has none runs on the CPU, with a copy of its tensors to and fro: those that do so on purpose
are listed in ON_CPU, with the reason; any other is an error (exit status 1).

  python scripts/check_gpu_ops.py
  python scripts/check_gpu_ops.py cnn transformer
  python scripts/check_gpu_ops.py --export out/docstrings/model/1    # what an export's text runs
"""

import argparse
import collections
import dataclasses
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 - an export holds its operations
from pydantic import TypeAdapter
from tensorflow.python.framework import kernels

from beam_jobs.contract.sections.loss import LossConfig
from beam_jobs.contract.sections.model import ModelConfig
from beam_jobs.contract.sections.optimizer import OptimizerConfig
from trainer.experiment import computing_in
from trainer.losses.losses import build_loss
from trainer.losses.sampled_negatives import LabelSampler
from trainer.models import VocabularyStatistics, build_model
from trainer.training.optimizers import build_optimizer
from trainer.training.train_step import make_train_steps

TOKENS, LABELS, BATCH_SIZE = 50, 8, 4

TREE = {"name": "bow_tree", "head_labels": 2, "cluster_labels": 2, "beam": 2}

# What is checked: by name, the sections `model`, `loss` and `optimizer`, and whether negatives are
# sampled.
CASES = {
    "bow": {"model": {"name": "bow", "dropout": 0.5}},
    "bow, pairs, squared hinge, linear decay": {
        "model": {"name": "bow", "bigram_buckets": 64, "dropout": 0.5},
        "loss": {"name": "squared_hinge"},
        "optimizer": {"schedule": "linear"},
    },
    "bow, sampled negatives": {"model": {"name": "bow"}, "loss": {"negatives": "sampled"}},
    "bow, average, clipping": {
        "model": {"name": "bow"},
        "optimizer": {"average_epochs": 1, "clip_norm": 1.0},
    },
    "bow_lwan": {"model": {"name": "bow_lwan", "bigram_buckets": 64}},
    "bow_tree": {"model": TREE},
    "bow_tree, divided, average, clipping": {
        "model": TREE | {"output_devices": 2},
        "optimizer": {"average_epochs": 1, "clip_norm": 1.0},
    },
    "mlp": {"model": {"name": "mlp"}},
    "cnn": {"model": {"name": "cnn"}},
    "cnn_lwan": {"model": {"name": "cnn_lwan"}},
    "lstm": {"model": {"name": "lstm", "units": 8}},
    "transformer": {"model": {"name": "transformer", "embedding_dim": 8, "heads": 2}},
    "transformer, bfloat16": {
        "model": {"name": "transformer", "embedding_dim": 8, "heads": 2},
        "precision": "bfloat16",
    },
    "cnn, float16": {"model": {"name": "cnn"}, "precision": "float16"},
    **{
        f"bow, {name}": {"model": {"name": "bow"}, "optimizer": {"name": name}}
        for name in ("row_adagrad", "adam", "adamw", "adagrad", "sgd", "rmsprop", "lion")
    },
    **{
        f"bow, {name}": {"model": {"name": "bow"}, "loss": {"name": name}}
        for name in ("focal", "asymmetric", "class_balanced", "distribution_balanced")
    },
}

# Operations that run on the CPU on purpose, and why.
ON_CPU = {
    "ScatterNd": (
        "of bool: Keras's adagrad and rmsprop mark the rows that a step touches, one bit a row; "
        "lazy_adam and row_adagrad do not"
    ),
}


@dataclasses.dataclass(frozen=True, order=True)
class Operation:
    """An operation of a graph, with the types that decide which kernel runs it."""

    name: str
    types: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        types = ", ".join(f"{attribute}={dtype}" for attribute, dtype in self.types)
        return f"{self.name}({types})" if types else self.name


def operations(function: tf.types.experimental.ConcreteFunction) -> collections.Counter[Operation]:
    """The operations of a function and of the functions that it calls, counted."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for body in graph.library.function for node in body.node_def)]
    return collections.Counter(
        Operation(
            node.op,
            tuple(
                sorted(
                    (name, tf.as_dtype(value.type).name)
                    for name, value in node.attr.items()
                    if value.WhichOneof("value") == "type"
                )
            ),
        )
        for node in nodes
    )


def has_gpu_kernel(operation: Operation) -> bool:
    """Whether TensorFlow registers a kernel for GPUs, or for all devices, with these types."""
    types = dict(operation.types)
    return any(
        kernel.device_type in ("GPU", "DEFAULT")
        and all(
            types[constraint.name]
            in {tf.as_dtype(dtype).name for dtype in constraint.allowed_values.list.type}
            for constraint in kernel.constraint
            if constraint.name in types
        )
        for kernel in kernels.get_registered_kernels_for_op(operation.name).kernel
    )


def without_gpu_kernel(
    function: tf.types.experimental.ConcreteFunction,
) -> collections.Counter[Operation]:
    """The operations of a function that a GPU cannot run, counted."""
    found = operations(function)
    called = {body.signature.name for body in function.graph.as_graph_def().library.function}
    return collections.Counter(
        {
            operation: count
            for operation, count in found.items()
            if operation.name not in called and not has_gpu_kernel(operation)
        }
    )


# --- what is traced ----------------------------------------------------------------------------


def _section(kind: type, values: dict, default: str) -> object:
    return TypeAdapter(kind).validate_python({"name": default} | values)


def training_step(case: dict) -> tf.types.experimental.ConcreteFunction:
    """The compiled training function of a case of CASES."""
    rng = np.random.default_rng(0)
    positives, num_documents = rng.integers(1, 50, LABELS), 100
    vocabulary = VocabularyStatistics(
        size=TOKENS, document_counts=np.arange(TOKENS, 0, -1), num_documents=num_documents
    )
    with computing_in(case.get("precision", "float32")):
        model = build_model(
            _section(ModelConfig, case["model"], ""),
            vocabulary=vocabulary,
            num_labels=LABELS,
            output_bias=np.zeros(LABELS, np.float32),
            seed=0,
        )
    loss = _section(LossConfig, case.get("loss", {}), "weighted_bce")
    optimizer = build_optimizer(
        _section(OptimizerConfig, case.get("optimizer", {}), "lazy_adam"),
        total_steps=10,
        epoch_steps=5,
        scales_loss=case.get("precision") == "float16",
    )
    optimizer.build(model.trainable_variables)
    sampler = None
    if loss.negatives == "sampled":
        sampler = LabelSampler(positives, num_sampled=4, seed=0)
    strategy = tf.distribute.get_strategy()
    steps = make_train_steps(
        strategy,
        model,
        optimizer,
        loss=build_loss(loss, positives=positives, num_documents=num_documents),
        num_labels=LABELS,
        global_batch_size=BATCH_SIZE,
        sampler=sampler,
    )
    ids = tf.RaggedTensorSpec([BATCH_SIZE, None], tf.int64)
    numbers = tf.TensorSpec([BATCH_SIZE], tf.float32)
    batches = tf.data.Dataset.from_generator(
        lambda: iter(()),
        output_signature={"tokens": ids, "labels": ids, "weights": numbers, "mask": numbers},
    )
    return steps.get_concrete_function(iter(batches), tf.TensorSpec([], tf.int32))


# --- reports -----------------------------------------------------------------------------------


def check_cases(names: list[str]) -> bool:
    """Prints what runs on the CPU in each training step; whether all of it does so on purpose."""
    passed = True
    for name in names:
        missing = without_gpu_kernel(training_step(CASES[name]))
        faults = [operation for operation in missing if operation.name not in ON_CPU]
        print(f"{name}: {'FAILED' if faults else 'ok'}", flush=True)
        for operation, count in sorted(missing.items()):
            print(f"  {count} x {operation}: {ON_CPU.get(operation.name, 'no kernel for GPUs')}")
        passed &= not faults
    return passed


def check_export(path: Path) -> bool:
    """The same for the signatures of a SavedModel.

    Strings are in the host's memory alone, so what reads text runs on the CPU. Scores must not:
    an operation on floating-point numbers without a kernel is an error.
    """
    passed = True
    for name, signature in tf.saved_model.load(str(path)).signatures.items():
        missing = without_gpu_kernel(signature)
        faults = [
            operation
            for operation in missing
            if any(tf.as_dtype(dtype).is_floating for _, dtype in operation.types)
        ]
        print(f"{name}: {'FAILED' if faults else 'ok'}, {missing.total()} operations on text")
        for operation in sorted(faults):
            print(f"  {missing[operation]} x {operation}: no kernel for GPUs")
        passed &= not faults
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"one of: {'; '.join(CASES)}; default: all"
    )
    parser.add_argument("--export", metavar="DIR", type=Path, help="check a SavedModel instead")
    arguments = parser.parse_args()
    names = arguments.cases or list(CASES)
    if unknown := sorted(set(names) - set(CASES)):
        parser.error(f"received {', '.join(unknown)}; expected some of: {'; '.join(CASES)}")
    # A divided layer needs two devices; what GPUs there are does not count.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    (cpu, *_) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    passed = check_export(arguments.export) if arguments.export else check_cases(names)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
