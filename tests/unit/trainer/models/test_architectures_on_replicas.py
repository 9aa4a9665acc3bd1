"""Every architecture on two replicas trains to the weights of one device."""

import json

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.training_config import ModelConfig
from tests.small_models import SMALL, VOCABULARY
from trainer.models import build_model
from trainer.training.optimizers import LazyAdam

DOCUMENTS = [[2, 3, 2, 6], [4], [], [5, 1, 6, 6, 6, 2]]


def _train(options, strategy, documents_of_replica):
    """The weights after two steps."""
    with strategy.scope():
        model = build_model(
            TypeAdapter(ModelConfig).validate_json(json.dumps(options)),
            vocabulary=VOCABULARY,
            num_labels=3,
            output_bias=np.zeros(3, np.float32),
            seed=0,
        )
        optimizer = LazyAdam(0.01)
        optimizer.build(model.trainable_variables)

    def step(tokens):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(tokens, training=True) - 1)) / 4
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    def tokens_of(context):
        return tf.ragged.constant(
            documents_of_replica[context.replica_id_in_sync_group],
            tf.int64,
            1,
            row_splits_dtype=tf.int64,
        )

    run = tf.function(lambda tokens: strategy.run(step, (tokens,)))
    for _ in range(2):
        run(strategy.experimental_distribute_values_from_function(tokens_of))
    return [v.numpy() for v in model.trainable_variables]


def _mirrored(options):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return _train(options, strategy, [DOCUMENTS[:2], DOCUMENTS[2:]])


@pytest.mark.parametrize("name", SMALL)
def test_two_replicas_train_to_the_weights_of_one_device(name):
    still = {"dropout": 0.0} | ({"spatial_dropout": 0.0} if name == "lstm" else {})
    options = {"name": name} | SMALL[name] | still
    one = _train(options, tf.distribute.OneDeviceStrategy("CPU:0"), [DOCUMENTS])
    for a, b in zip(one, _mirrored(options), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_dropout_on_two_replicas_trains():
    options = {"name": "mlp"} | SMALL["mlp"] | {"dropout": 0.5}
    assert all(np.isfinite(weights).all() for weights in _mirrored(options))
