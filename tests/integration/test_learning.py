"""What models and losses learn from made data."""

import json

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.sections.loss import LossConfig
from beam_jobs.contract.sections.model import ModelConfig
from tests.small_models import SMALL, VOCABULARY
from trainer.losses.losses import build_loss
from trainer.losses.prior_correction import prior_correction, undo_loss_weighting
from trainer.models import build_model
from trainer.training.optimizers import LazyAdam


@pytest.mark.parametrize("name", SMALL)
def test_a_tiny_task_is_learned(name):
    generator = np.random.default_rng(0)
    documents = [
        generator.integers(2, VOCABULARY.size + 2, generator.integers(1, 12)).tolist()
        for _ in range(64)
    ]
    labels = tf.constant(
        [
            [float(2 in d or 5 in d), float(min(d) > 6), float(len(d) > 0 and max(d) > 38)]
            for d in documents
        ]
    )
    larger = {"mlp": {"hidden_units": [32]}, "lstm": {"units": 12}}.get(name, {})
    options = {"name": name} | SMALL[name] | {"dropout": 0.0} | larger
    model = build_model(
        TypeAdapter(ModelConfig).validate_json(json.dumps(options)),
        vocabulary=VOCABULARY,
        num_labels=3,
        output_bias=np.array([-3.0, -1.0, 0.5], np.float32),
        seed=3,
    )
    tokens = tf.ragged.constant(documents, tf.int64, 1, row_splits_dtype=tf.int64)
    optimizer = LazyAdam(0.03)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(labels, model(tokens, training=True))
            )
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    first = step().numpy()
    for _ in range(80):
        last = step().numpy()
    assert last < 0.15 * first


def _expected_calibration_error(labels, scores, bins=15):
    """Naeini et al. 2015 over bins of equal width."""
    number = np.minimum((scores * bins).astype(int), bins - 1).ravel()
    gaps = np.bincount(number, (scores - labels).ravel(), bins)
    return np.abs(gaps).sum() / labels.size


@pytest.mark.parametrize(
    "values",
    [
        {"pos_weight": "balanced"},
        {"name": "squared_hinge"},
        {"name": "focal"},
        {"name": "asymmetric"},
    ],
    ids=["weighted_bce", "squared_hinge", "focal", "asymmetric"],
)
def test_calibration_brings_down_the_calibration_error_of_a_trained_model(values):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(20_000, 3)).astype(np.float32)
    truth = features @ generator.normal(size=(3, 4)) * 0.8 + [-3.0, -2.0, -1.0, 0.0]
    labels = (generator.random(truth.shape) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    half = 10_000
    config = TypeAdapter(LossConfig).validate_python({"name": "weighted_bce"} | values)
    positives = labels[:half].sum(0).astype(int)
    loss = build_loss(config, positives=positives, num_documents=half)
    # Features that let a linear model take the curved shape that focusing asks for.
    expand = np.concatenate([features, np.ones((len(features), 1), np.float32)], 1)
    expand = np.concatenate(
        [
            expand,
            expand[:, :3] * expand[:, :3],
            expand[:, :1] * expand[:, 1:3],
            expand[:, 1:2] * expand[:, 2:3],
        ],
        1,
    )
    weights = tf.Variable(tf.zeros([expand.shape[1], 4]))
    moment = tf.Variable(tf.zeros_like(weights))

    @tf.function
    def descend(x, y):
        for _ in tf.range(300):
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(loss(y, x @ weights, tf.ones(half)))
            moment.assign(0.9 * moment + tape.gradient(value, weights))
            weights.assign_sub(0.15 * moment)

    descend(tf.constant(expand[:half]), tf.constant(labels[:half]))
    logits = tf.constant(expand[half:]) @ weights
    correction = tf.constant(prior_correction(config, positives=positives, num_documents=half))
    after = undo_loss_weighting(config, logits, correction=correction)
    errors = [
        _expected_calibration_error(labels[half:], tf.sigmoid(z).numpy()) for z in (logits, after)
    ]
    assert errors[0] > 0.05
    assert errors[1] < 0.35 * errors[0], errors
    if config.name == "weighted_bce":
        np.testing.assert_allclose(after, logits + correction, rtol=1e-6)
        assert errors[1] < 0.02
