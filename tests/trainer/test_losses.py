import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.contract.config import LossConfig
from trainer import losses


def _reference_and_gradient(labels, logits, pos_weight, document_weights):
    """Per-document losses and their gradient in the logits, in float64."""
    softplus_of_minus = np.logaddexp(0, -logits)
    softplus = np.logaddexp(0, logits)
    per_label = pos_weight * labels * softplus_of_minus + (1 - labels) * softplus
    sigmoid = np.exp(-softplus_of_minus)
    gradient = (1 - labels) * sigmoid - pos_weight * labels * np.exp(-softplus)
    return per_label.sum(1) * document_weights, gradient * document_weights[:, None]


def _random_batch(seed, scale):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, (6, 5)).astype(np.float64)
    logits = np.float64(np.float32(generator.normal(0, scale, (6, 5))))
    pos_weight = np.float64(np.float32(generator.uniform(1, 20, 5)))
    document_weights = np.float64(np.float32(generator.uniform(0, 3, 6)))
    return labels, logits, pos_weight, document_weights


def _loss_and_gradient(labels, logits, pos_weight, document_weights):
    logits = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.weighted_bce(
            tf.constant(labels, tf.float32),
            logits,
            pos_weight=tf.constant(pos_weight, tf.float32),
            document_weights=tf.constant(document_weights, tf.float32),
        )
    return loss.numpy(), tape.gradient(loss, logits).numpy()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 3.0, 30.0]))
def test_loss_and_gradient_equal_the_float64_reference(seed, scale):
    batch = _random_batch(seed, scale)
    for got, expected in zip(_loss_and_gradient(*batch), _reference_and_gradient(*batch), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_extreme_logits_give_exact_finite_losses_and_gradients(label, logit):
    batch = np.array([[label]]), np.array([[logit]]), np.array([7.0]), np.array([1.0])
    for got, expected in zip(_loss_and_gradient(*batch), _reference_and_gradient(*batch), strict=True):
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-30)


def test_bool_and_integer_labels_count_like_floats():
    labels, logits, pos_weight, document_weights = _random_batch(0, 1.0)
    arguments = dict(pos_weight=tf.constant(pos_weight, tf.float32), document_weights=tf.constant(document_weights, tf.float32))
    expected = losses.weighted_bce(tf.constant(labels, tf.float32), tf.constant(logits, tf.float32), **arguments)
    for dtype in (tf.bool, tf.int64):
        got = losses.weighted_bce(tf.cast(labels, dtype), tf.constant(logits, tf.float32), **arguments)
        np.testing.assert_array_equal(got, expected)


def test_a_document_of_weight_0_adds_neither_loss_nor_gradient():
    labels, logits, pos_weight, document_weights = _random_batch(1, 1.0)
    document_weights[2] = 0
    loss, gradient = _loss_and_gradient(labels, logits, pos_weight, document_weights)
    assert loss[2] == 0
    assert not gradient[2].any()
    assert loss[[0, 1, 3, 4, 5]].all()


@pytest.mark.parametrize(
    ("pos_weight", "max_pos_weight", "expected"),
    [
        # 100 documents; labels with 0, 1, 20, 50, 99 and 100 positives
        ("none", 20.0, [1, 1, 1, 1, 1, 1]),
        ("balanced", 20.0, [20, 20, 4, 1, 1, 1]),
        ("balanced", 3.0, [3, 3, 3, 1, 1, 1]),
        ("sqrt", 20.0, [20, 99**0.5, 2, 1, 1, 1]),
        ("sqrt", 5.0, [5, 5, 2, 1, 1, 1]),
    ],
)
def test_positive_weights_follow_the_counts_and_stay_clipped(pos_weight, max_pos_weight, expected):
    config = LossConfig(pos_weight=pos_weight, max_pos_weight=max_pos_weight)
    weights = losses.positive_weights(config, np.array([0, 1, 20, 50, 99, 100]), 100)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_output_bias_is_the_log_odds_and_finite_for_labels_on_none_or_all_documents():
    bias = losses.output_bias(np.array([0, 1, 25, 50, 100]), 100)
    assert bias.dtype == np.float32
    np.testing.assert_allclose(bias, [np.log(0.5 / 100), np.log(1 / 99), np.log(1 / 3), 0, np.log(100 / 0.5)], rtol=1e-6)


def test_output_bias_minimises_the_unweighted_loss():
    labels = np.zeros((100, 2))
    labels[:3, 0] = labels[:40, 1] = 1
    bias = losses.output_bias(labels.sum(0).astype(int), 100)
    _, gradient = _loss_and_gradient(labels, np.tile(bias, (100, 1)), np.ones(2), np.ones(100))
    np.testing.assert_allclose(gradient.sum(0), 0, atol=1e-4)
