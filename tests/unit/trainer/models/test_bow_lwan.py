"""bow_lwan is bow, plus what cnn_lwan adds for the labels that bow scores highest."""

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.sections.network_models import BowConfig, BowLwanConfig, CnnLwanConfig
from tests.small_models import VOCABULARY
from trainer.models import build_model

NUM_LABELS = 7
TOKENS = tf.ragged.constant(
    [[2, 3, 2, 6], [4], [], [5, 1, 6, 6, 6, 2, 9, 17]], tf.int64, 1, row_splits_dtype=tf.int64
)
BAG = {"embedding_dim": 6, "bigram_buckets": 8, "dropout": 0.0}
ATTENTION = {"filters": 5, "filter_width": 3, "dropout": 0.0, "max_tokens": 6}


def _build(config):
    return build_model(
        config,
        vocabulary=VOCABULARY,
        num_labels=NUM_LABELS,
        output_bias=np.linspace(-1, 1, NUM_LABELS).astype(np.float32),
        seed=0,
    )


def _both(**options):
    return BowLwanConfig(name="bow_lwan", **(BAG | ATTENTION | options))


@pytest.fixture(scope="module")
def weights():
    """The weights of a bow_lwan, grown so that nothing hides in values near 0."""
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.5, w.shape) for w in _build(_both()).trainable_variables]


def _with(weights, config):
    model = _build(config)
    for variable, value in zip(model.trainable_variables, weights, strict=True):
        variable.assign(value)
    return model


@pytest.fixture(scope="module")
def parts(weights):
    """The logits of the bag and of the attention alone, as bow and cnn_lwan have them."""
    num_bag_weights = 3  # embeddings, kernel and bias of the last layer
    bag = _with(weights[:num_bag_weights], BowConfig(**BAG))(TOKENS)
    attention = CnnLwanConfig(name="cnn_lwan", embedding_dim=6, **ATTENTION)
    bias = np.zeros(NUM_LABELS)
    return bag.numpy(), _with([bias, *weights[num_bag_weights:]], attention)(TOKENS).numpy()


@pytest.mark.parametrize("candidates", [NUM_LABELS, 64])
def test_with_all_labels_as_candidates_it_is_the_sum_of_both_models(weights, parts, candidates):
    logits = _with(weights, _both(candidates=candidates))(TOKENS)
    np.testing.assert_allclose(logits, sum(parts), rtol=1e-4, atol=1e-5)


def test_the_bags_best_labels_get_the_attention_and_the_others_keep_the_bags_logits(weights, parts):
    bag, attention = parts
    logits = _with(weights, _both(candidates=2))(TOKENS)
    is_candidate = bag >= np.sort(bag)[:, -2:-1]
    assert (is_candidate.sum(axis=1) == 2).all()
    np.testing.assert_allclose(
        logits, np.where(is_candidate, bag + attention, bag), rtol=1e-4, atol=1e-5
    )


def test_the_attentions_gradient_touches_the_candidates_alone_and_the_bags_all_labels(
    weights, parts
):
    model = _with(weights, _both(candidates=2))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(TOKENS, training=True))
    gradients = {
        variable.path: gradient
        for variable, gradient in zip(
            model.trainable_variables,
            tape.gradient(total, model.trainable_variables),
            strict=True,
        )
    }
    candidates = set(np.argsort(-parts[0])[:, :2].ravel())
    assert len(candidates) < NUM_LABELS
    for name in ("queries_kernel", "outputs_kernel"):
        rows = gradients[f"label_attention/{name}"].indices.numpy()
        assert sorted(rows) == sorted(candidates)  # each once
    assert np.any(gradients["label_attention/convolution_kernel"])
    np.testing.assert_array_equal(gradients["logits/bias"], len(parts[0]))


def test_only_the_convolution_stops_at_max_tokens(weights):
    model = _with(weights, _both(candidates=NUM_LABELS, max_tokens=2))
    bow = _with(weights[:3], BowConfig(**BAG))

    def attention(tokens):
        tokens = tf.ragged.constant([tokens], tf.int64, 1, row_splits_dtype=tf.int64)
        return (model(tokens) - bow(tokens)).numpy()

    np.testing.assert_allclose(attention([2, 3]), attention([2, 3, 9, 8]), atol=1e-5)
    assert not np.allclose(attention([2, 3]), attention([2, 4]), atol=1e-3)


def test_of_several_texts_all_bags_together_choose_the_candidates():
    generator = np.random.default_rng(1)
    texts = (TOKENS, TOKENS[::-1])
    options = {"num_texts": 2, "num_labels": NUM_LABELS, "seed": 0, "vocabulary": VOCABULARY}
    bias = np.linspace(-1, 1, NUM_LABELS).astype(np.float32)
    every, few = (
        build_model(_both(candidates=n), output_bias=bias, **options) for n in (NUM_LABELS, 2)
    )
    bags = build_model(BowConfig(**BAG), output_bias=bias, **options)
    for variable, other in zip(every.trainable_variables, few.trainable_variables, strict=True):
        variable.assign(generator.normal(0, 0.5, variable.shape))
        other.assign(variable)
    of_bags = [v for bag in every._bags for v in bag.trainable_variables]
    for variable, value in zip(bags.trainable_variables, of_bags, strict=True):
        variable.assign(value)
    bag = bags(texts).numpy()
    is_candidate = bag >= np.sort(bag)[:, -2:-1]
    np.testing.assert_allclose(
        few(texts), np.where(is_candidate, every(texts), bag), rtol=1e-4, atol=1e-5
    )
