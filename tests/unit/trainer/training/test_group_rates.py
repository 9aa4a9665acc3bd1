"""Learning rates of their own for embeddings, encoder and output."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.model import ModelConfig
from beam_jobs.contract.sections.optimizer import OptimizerConfig
from tests.small_models import SMALL, VOCABULARY
from trainer.models import build_model
from trainer.training.group_rates import group_of, layer_factors
from trainer.training.optimizers import build_optimizer

FACTORS = {"embeddings": 1.0, "encoder": 0.5, "output": 0.25}


@pytest.mark.parametrize("name", SMALL)
def test_every_architecture_has_embeddings_and_an_output_with_a_row_or_bias_for_each_label(name):
    model = build_model(
        TypeAdapter(ModelConfig).validate_json(json.dumps({"name": name} | SMALL[name])),
        vocabulary=VOCABULARY,
        num_labels=3,
        output_bias=np.zeros(3, np.float32),
        seed=0,
    )
    by_group = {group: [] for group in FACTORS}
    for variable in model.trainable_variables:
        by_group[group_of(variable)].append(variable)
    assert all(len(v.shape) == 2 and v.shape[0] > VOCABULARY.size for v in by_group["embeddings"])
    assert len(by_group["output"]) >= 2 and all(v.shape[0] == 3 for v in by_group["output"])
    assert bool(by_group["encoder"]) == (name != "bow")


def _weights():
    with keras.name_scope("layer"):
        return {
            "embeddings": keras.Variable(np.ones((3, 2)), dtype="float32", name="embeddings"),
            "encoder": keras.Variable(np.ones((3, 2)), dtype="float32", name="kernel"),
            "output": keras.Variable(np.ones((3, 2)), dtype="float32", name="outputs_kernel"),
        }


def _moves(gradient=0.5, **options):
    """How far one step moves a weight of each group."""
    weights = _weights()
    optimizer = build_optimizer(OptimizerConfig(learning_rate=0.1, **options), total_steps=10)
    optimizer.build(list(weights.values()))
    optimizer.apply([tf.fill([3, 2], gradient)] * 3, list(weights.values()))
    return {group: 1 - float(weight.numpy()[0, 0]) for group, weight in weights.items()}


@pytest.mark.parametrize("name", ["lazy_adam", "sgd", "row_adagrad", "lion"])
@pytest.mark.parametrize("schedule", ["constant", "plateau", "linear"])
def test_each_group_moves_at_its_own_rate_and_follows_the_schedule(name, schedule):
    common = _moves(name=name, schedule=schedule)
    rates = {f"learning_rate_{group}": 0.1 * factor for group, factor in FACTORS.items()}
    own = _moves(name=name, schedule=schedule, **rates)
    for group, factor in FACTORS.items():
        np.testing.assert_allclose(own[group], factor * common[group], rtol=1e-3)
    only = _moves(name=name, schedule=schedule, learning_rate_encoder=0.2)
    np.testing.assert_allclose(only["encoder"], 2 * common["encoder"], rtol=1e-3)
    np.testing.assert_allclose(only["output"], common["output"], rtol=1e-6)


def test_weight_decay_is_times_the_groups_rate():
    moves = _moves(0.0, name="sgd", weight_decay=0.5, learning_rate_output=0.02)
    np.testing.assert_allclose(
        [moves[group] for group in ("embeddings", "encoder", "output")],
        [0.0, 0.1 * 0.5, 0.02 * 0.5],
        rtol=1e-5,
    )


def test_lower_layers_of_an_encoder_move_less_and_what_stands_on_it_moves_as_it_is():
    names = {
        "token_embedding": "embeddings",
        "embeddings_layer_norm": "gamma",
        "transformer_layer_1": "kernel",
        "transformer_layer_2": "kernel",
        "head_0": "kernel",
        "logits": "bias",
    }
    weights = []
    for layer, name in names.items():
        with keras.name_scope(layer):
            weights.append(keras.Variable(np.ones(2), dtype="float32", name=name))
    assert layer_factors(weights, 0.5) == [0.25, 0.25, 0.5, 1.0, 1.0, 1.0]
    optimizer = build_optimizer(
        OptimizerConfig(name="sgd", learning_rate=0.1, learning_rate_output=0.4, layer_decay=0.5)
    )
    optimizer.build(weights)
    optimizer.apply([tf.ones(2)] * len(weights), weights)
    moved = [1 - float(weight.numpy()[0]) for weight in weights]
    np.testing.assert_allclose(moved, [0.025, 0.025, 0.05, 0.1, 0.4, 0.4], rtol=1e-5)
    others = [weight for weight in weights if "transformer" not in weight.path]
    assert layer_factors(others, 1.0) == [1.0] * len(others)
    with pytest.raises(UserError, match="layer_decay: received 0.5, and no layer of a pretrained"):
        layer_factors(others, 0.5)
