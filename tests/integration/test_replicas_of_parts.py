"""Every architecture and optimizer on two replicas trains to the weights of one device."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.sections.model import ModelConfig
from beam_jobs.contract.sections.optimizer import OptimizerConfig
from tests.small_models import SMALL, VOCABULARY
from trainer.models import build_model
from trainer.training.optimizers import LazyAdam, build_optimizer
from trainer.training.weight_averages import averaged_weights

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
def test_architectures_on_two_replicas_train_to_the_weights_of_one_device(name):
    still = {"dropout": 0.0} | ({"spatial_dropout": 0.0} if name == "lstm" else {})
    options = {"name": name} | SMALL[name] | still
    one = _train(options, tf.distribute.OneDeviceStrategy("CPU:0"), [DOCUMENTS])
    for a, b in zip(one, _mirrored(options), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_dropout_on_two_replicas_trains():
    options = {"name": "mlp"} | SMALL["mlp"] | {"dropout": 0.5}
    assert all(np.isfinite(weights).all() for weights in _mirrored(options))


def _optimize(config, strategy, rows_of_replica):
    """The table and the bias after three steps, and their averages."""
    with strategy.scope():
        table = keras.Variable(np.ones((4, 2), np.float32), name="embeddings")
        bias = keras.Variable(np.ones(2, np.float32), name="bias")
        optimizer = build_optimizer(config, total_steps=3, epoch_steps=3)
        optimizer.build([table, bias])

    def step(rows):
        values = tf.cast(rows, tf.float32)[:, None] * [[1.0, -2.0]] + 1
        slices = tf.IndexedSlices(values, rows, tf.constant([4, 2], tf.int64))
        optimizer.apply([slices, tf.reduce_sum(values, axis=0)], [table, bias])

    run = tf.function(lambda rows: strategy.run(step, (rows,)))
    for _ in range(3):
        run(
            strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(
                    rows_of_replica[context.replica_id_in_sync_group], tf.int64
                )
            )
        )
    result = [table.numpy(), bias.numpy()]
    with averaged_weights(optimizer, [table, bias]):
        return [*result, table.numpy(), bias.numpy()]


@pytest.mark.parametrize("name", ["lazy_adam", "row_adagrad"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.5, "average_epochs": 0.5, "schedule": "cosine", "warmup_fraction": 0.4},
    ],
)
def test_optimizers_on_two_replicas_equal_one_device_with_the_sum_of_their_gradients(name, options):
    config = OptimizerConfig(name=name, learning_rate=0.1, **options)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    two = _optimize(config, mirrored, [[0, 1], [1, 3]])
    one = _optimize(config, tf.distribute.OneDeviceStrategy("CPU:0"), [[0, 1, 1, 3]])
    for a, b in zip(two, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert (one[0][2] == 1).all() and (one[0][[0, 1, 3]] != 1).all()
    assert np.allclose(one[0], one[2]) == (not options)
