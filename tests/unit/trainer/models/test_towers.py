"""Documents with several texts: a tower each, of any architecture."""

import json

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.model import ModelConfig
from tests.small_models import SMALL, VOCABULARY
from trainer.models import build_model

TITLES = tf.ragged.constant(
    [[2, 3], [], [7, 1, 4], []], dtype=tf.int64, ragged_rank=1, row_splits_dtype=tf.int64
)
BODIES = tf.ragged.constant(
    [[5], [2, 2, 9, 17, 30], [], []], dtype=tf.int64, ragged_rank=1, row_splits_dtype=tf.int64
)
BIAS = np.array([0.5, -1.0, 2.0], np.float32)


def build(options: dict, *, num_texts: int = 2, seed: int = 3):
    config = TypeAdapter(ModelConfig).validate_json(json.dumps(options))
    return build_model(
        config,
        vocabulary=VOCABULARY,
        num_labels=3,
        output_bias=BIAS,
        seed=seed,
        num_texts=num_texts,
    )


@pytest.mark.parametrize("name", SMALL)
def test_each_text_has_a_tower_of_its_own_and_the_bias_counts_once(name):
    model = build({"name": name} | SMALL[name])
    logits = model((TITLES, BODIES), training=False)
    assert logits.shape == (4, 3) and np.isfinite(logits).all()
    assert not np.allclose(logits, model((BODIES, TITLES), training=False), atol=1e-6)
    no_titles = model((TITLES[3:], BODIES[1:2]), training=False)
    np.testing.assert_allclose(
        no_titles[0], logits[1], rtol=1e-5, atol=1e-6
    )  # a document's logits are its own
    if name == "bow":
        np.testing.assert_allclose(logits[3], BIAS)
    one = build({"name": name} | SMALL[name], num_texts=1)
    assert len(model.trainable_variables) == 2 * len(one.trainable_variables)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model((TITLES, BODIES), training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    again = build({"name": name} | SMALL[name])
    np.testing.assert_array_equal(again((TITLES, BODIES), training=False), logits)


def test_towers_of_bow_are_one_dense_layer_over_both_vectors_side_by_side():
    model = build({"name": "bow", "embedding_dim": 4, "dropout": 0.0})
    title, body = model._towers
    vectors = []
    for tower, tokens in ((title, TITLES), (body, BODIES)):
        rows, bags = tower._bag._terms(tokens)
        vectors.append(tf.sparse.sparse_dense_matmul(bags, tower._bag._table(rows)))
    kernel = np.concatenate([tower._dense._kernel.numpy().T for tower in (title, body)])
    np.testing.assert_array_equal(body._dense._bias, np.zeros(3))
    np.testing.assert_allclose(
        model((TITLES, BODIES)),
        np.concatenate(vectors, axis=1) @ kernel + BIAS,
        rtol=1e-5,
        atol=1e-6,
    )
    assert not np.allclose(
        title._bag._table.trainable_variables[0], body._bag._table.trainable_variables[0]
    )


class FirstTextOnly(tf.keras.Model):
    def __init__(self, inputs):
        super().__init__()
        self.num_texts, self.num_labels = inputs.num_texts, inputs.num_labels
        self.built = True

    def call(self, tokens, training=False):
        if not isinstance(tokens, tuple) or len(tokens) != self.num_texts:
            raise UserError(f"received {type(tokens).__name__}")
        return tf.zeros([tokens[0].nrows(), self.num_labels])


def first_text_only(options, inputs):
    return FirstTextOnly(inputs)


def test_a_model_of_ones_own_is_called_with_all_texts():
    model = build(
        {"name": "custom", "build": "tests.unit.trainer.models.test_towers:first_text_only"},
        num_texts=3,
    )
    assert model((TITLES, BODIES, BODIES), training=False).shape == (4, 3)
