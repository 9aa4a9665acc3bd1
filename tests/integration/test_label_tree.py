"""A bag of embeddings with a label tree, through the commands."""

import collections
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract import saved_model
from beam_jobs.contract.config import load_config
from beam_jobs.contract.sections.network_models import BowTreeConfig
from beam_jobs.contract.sections.optimizer import OptimizerConfig
from tests.command_lines import run_module, succeed, train
from tests.runs import (
    SETTINGS,
    assert_equal_within_tolerance,
    assert_same_bits,
    history,
    variables,
)
from tests.small_experiment import make_run
from tests.small_models import VOCABULARY
from trainer.evaluation import evaluator
from trainer.evaluation.evaluate import evaluate
from trainer.models import build_model
from trainer.runs.checkpoints import Checkpoints, RunState
from trainer.training.optimizers import build_optimizer

# One label of the five is always scored; of two clusters of two others one is in the beam.
MODEL = (
    "{name: bow_tree, head_labels: 1, cluster_labels: 2, beam: 1, embedding_dim: 16, dropout: 0.3}"
)
TWO_DEVICES = "model.output_devices=2"
IDS, LABELS = (
    tf.ragged.constant(values, tf.int64, 1, row_splits_dtype=tf.int64)
    for values in ([[2, 3, 2, 6], [4], [], [5, 1, 6, 6]], [[0, 9], [4], [], [10]])
)


@pytest.fixture(scope="module")
def place(small_dataset, tmp_path_factory):
    """A small dataset with a run that nothing interrupts."""
    root = tmp_path_factory.mktemp("label_tree") / "root"
    return make_run(small_dataset, root, MODEL, *SETTINGS)


@pytest.fixture(scope="module")
def divided(place):
    """The same run, with its leaves' weights on two devices."""
    printed = train(place, "train.run_dir=divided", *SETTINGS, TWO_DEVICES)
    assert re.search(r"optimizer's state: [\d.]+ MB on CPU:0, [\d.]+ MB on CPU:1\n", printed)
    return place / "divided"


def test_a_run_that_is_resumed_has_the_weights_and_the_tree_of_one_that_was_not(place):
    train(place, "train.run_dir=parts", *SETTINGS, "train.epochs=1")
    train(place, "train.run_dir=parts", *SETTINGS)
    assert_same_bits(place / "parts", place / "whole")


def test_it_is_evaluated_exported_and_predicts_the_labels_that_evaluation_saw(place, divided):
    config = ("--config", "small.yaml", "--set", "train.run_dir=divided", "--set", TWO_DEVICES)
    succeed("trainer.task", "evaluate", *config, cwd=place)
    succeed("trainer.task", "export", *config, "--set", "export.model_dir=model", cwd=place)
    text = "rocket orbit moon with some more"
    printed = succeed("trainer.task", "predict", "--model", "model", "--json", text, cwd=place)
    prediction = json.loads(printed)
    assert prediction["labels"][0] == "space" and "space" in prediction["assigned"]

    model = saved_model.load(str(place / "model"))
    scores = model.module.signatures["scores"](**{model.text_fields[0]: np.array([text])})
    names = [name.decode() for name in model.module.label_names().numpy()]
    by_label = dict(zip(names, scores["scores"].numpy()[0].tolist(), strict=True))
    assert 0.0 in by_label.values()  # a label that is not in the beam
    scored = [by_label[name] for name in prediction["labels"]]
    np.testing.assert_allclose(prediction["scores"], scored, rtol=1e-5)
    assert b"PU:1" not in (place / "model/1/saved_model.pb").read_bytes()  # no device but the first


def test_evaluation_in_columns_is_that_of_all_labels(place, monkeypatch):
    monkeypatch.chdir(place)
    records = []
    for model_in_columns in (evaluator.BagWithLabelTree, type(None)):
        monkeypatch.setattr(evaluator, "BagWithLabelTree", model_in_columns)
        settings = ["train.run_dir=whole", "evaluate.batch_size=7"]
        evaluate(load_config("small.yaml", overrides=settings))
        records.append((place / "whole/evaluation-validation.json").read_text())
    assert records[0] == records[1]


def test_it_trains_in_mixed_precision_on_replicas_with_accumulation(place):
    replicas = ("train.precision=bfloat16", "train.strategy=mirrored", "train.replicas=2")
    train(place, "train.run_dir=replicas", "train.epochs=1", "train.accumulate_steps=2", *replicas)
    assert all(np.isfinite(weights).all() for weights in variables(place / "replicas").values())
    assert history(place / "replicas")[0]["validation_micro_f1"] > 0.5


# --- divided over two devices ------------------------------------------------------------


def test_divided_over_devices_a_run_has_the_losses_scores_and_checkpoints_of_one_that_is_not(
    place, divided
):
    assert_equal_within_tolerance(divided, place / "whole")


def test_a_divided_run_that_is_resumed_is_the_same(place, divided):
    train(place, "train.run_dir=same", *SETTINGS, TWO_DEVICES, "train.epochs=1")
    train(place, "train.run_dir=same", *SETTINGS, TWO_DEVICES)
    assert_same_bits(place / "same", divided)


def test_more_devices_than_the_process_has_end_training_with_one_message(place):
    settings = ("train.run_dir=none", "model.output_devices=3", "model.cluster_labels=1")
    ended = run_module(
        "trainer.task",
        "train",
        "--config",
        "small.yaml",
        *(f"--set={s}" for s in settings),
        cwd=place,
    )
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "model.output_devices: received 3, and TensorFlow uses 2 logical CPUs" in ended.stderr


def _with_optimizer(strategy, *, devices):
    with strategy.scope():
        tree = build_model(
            BowTreeConfig(
                name="bow_tree",
                head_labels=2,
                cluster_labels=3,
                embedding_dim=7,
                output_devices=devices,
            ),
            vocabulary=VOCABULARY,
            num_labels=11,
            output_bias=np.zeros(11, np.float32),
            seed=0,
        )
        section = {"name": "adamw", "clip_norm": 1.0, "average_epochs": 1}
        optimizer = build_optimizer(OptimizerConfig(**section), total_steps=4, epoch_steps=2)
        optimizer.build(tree.trainable_variables)
    return tree, optimizer


@pytest.mark.parametrize(("before", "now"), [(2, 1), (1, 2)])
def test_a_run_may_go_on_with_another_number_of_devices(tmp_path, before, now):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    tensors = []
    for devices in (before, now, before):
        tree, optimizer = _with_optimizer(strategy, devices=devices)
        checkpoints = Checkpoints(tmp_path, tree, optimizer, strategy=strategy)
        if tensors:
            assert checkpoints.restore_latest().step == len(tensors)
        else:
            for i, variable in enumerate(v for v in optimizer.variables if v.dtype == "float32"):
                variable.assign(
                    np.arange(variable.value.shape.num_elements()).reshape(variable.shape) + i
                )
        checkpoints.save(RunState(step=len(tensors) + 1))
        tensors.append(variables(tmp_path))
    for later in tensors[1:]:
        np.testing.assert_equal(later, tensors[0])


def test_what_is_computed_of_a_part_of_the_leaves_is_computed_on_its_device():
    """Of all that a step computes with a kernel's rows, each part has as many operations."""
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    tree, optimizer = _with_optimizer(strategy, devices=2)
    for variable in (*tree.variables, *optimizer.variables):
        assert variable.value.device[-5:] == (
            "CPU:1" if "_part_1_of_2" in variable.path else "CPU:0"
        )

    def step():
        with tf.GradientTape() as tape:
            found = tree.training_shortlist(IDS, LABELS)
            logits = [found.head_logits, found.cluster_logits, found.logits]
            loss = tf.add_n([tf.reduce_sum(part) for part in logits])
        gradients = tape.gradient(loss, tree.trainable_variables)
        optimizer.apply(gradients, tree.trainable_variables)

    graph = tf.function(lambda: strategy.run(step)).get_concrete_function().graph
    counts = {"CPU:0": collections.Counter(), "CPU:1": collections.Counter()}
    for operation in graph.get_operations():
        of_kernel = [t for t in operation.outputs if t.shape.rank == 3 and t.shape[2] == 7]
        if of_kernel and operation.type != "ReadVariableOp":  # which is where its variable is
            counts[operation.device[-5:]][operation.type] += 1
    assert counts["CPU:0"] == counts["CPU:1"]
    assert {"BatchMatMulV2", "ResourceGather", "Square", "Sqrt"} <= counts["CPU:0"].keys()
