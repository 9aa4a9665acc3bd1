import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.loss import LossConfig
from beam_jobs.contract.sections.model import ModelConfig
from trainer.losses.losses import build_loss
from trainer.losses.sampled_negatives import LabelSampler
from trainer.models import VocabularyStatistics, build_model
from trainer.training.train_step import make_label_sampler

NUM_LABELS, DRAWS = 12, 4000
POSITIVES = np.array([3, 40, 7, 1, 0, 25, 9, 2, 60, 4, 5, 11])
LABEL_IDS = tf.ragged.constant([[1, 8], [], [3], [0, 5, 8]], dtype=tf.int64)


def _for_each_step(function, steps):
    """A function's float32 results for steps 0, 1, ..., in one graph, as float64."""
    run = tf.function(lambda: tf.map_fn(function, tf.range(steps), fn_output_signature=tf.float32))
    return run().numpy().astype(np.float64)


def test_labels_are_drawn_as_often_as_their_weights_say():
    sampler = LabelSampler(POSITIVES, num_sampled=5, seed=3)

    def draw(step):
        """How often each label is drawn, and what it weighs then."""
        drawn = sampler.draw(step)
        columns = tf.stack([tf.ones_like(drawn.negative_weights), drawn.negative_weights], axis=1)
        return tf.scatter_nd(drawn.label_ids[:, None], columns, [NUM_LABELS, 2])

    counts, weights = np.moveaxis(_for_each_step(draw, DRAWS), 2, 0)
    assert counts.max() == 1  # the labels of a draw are distinct
    weights = weights.max(axis=0)
    np.testing.assert_allclose(
        counts.mean(axis=0), 1 / weights, atol=5 * 0.5 / DRAWS**0.5
    )  # five standard errors at most
    assert (
        np.diff(weights[np.argsort(-POSITIVES, kind="stable")]) > 0
    ).all()  # the rarer a label, the more it weighs


def test_a_sample_follows_from_seed_and_step():
    def draw(seed, step):
        return (
            LabelSampler(POSITIVES, num_sampled=5, seed=seed)
            .draw(tf.constant(step))
            .label_ids.numpy()
            .tolist()
        )

    assert draw(0, 1) == draw(0, 1)
    assert len({tuple(draw(seed, step)) for seed in range(3) for step in range(3)}) > 6


def test_the_rarest_of_many_labels_can_be_drawn():
    sampler = LabelSampler(np.arange(2_000_000, 0, -1), num_sampled=100_000, seed=0)
    ranks = np.concatenate(
        [sampler.draw(tf.constant(step)).label_ids.numpy() for step in range(20)]
    )
    assert ranks.max() < 2_000_000
    last = ranks[ranks >= 1_000_000]
    assert (
        len(np.unique(last % 2)) == 2 and len(np.unique(last)) > 0.9 * len(last) / 2
    )  # no grid of representable numbers


def test_every_draw_of_a_single_label_is_that_label():
    drawn = LabelSampler(np.array([4]), num_sampled=3, seed=0).draw(tf.constant(0))
    assert drawn.label_ids.numpy().tolist() == [0] and drawn.negative_weights.numpy().tolist() == [
        1.0
    ]


def test_candidates_hold_each_documents_labels_and_others_labels_weigh_nothing():
    sampler = LabelSampler(POSITIVES, num_sampled=2, seed=0)
    for step in range(20):
        candidates, multi_hot = sampler.candidates(LABEL_IDS, tf.constant(step))
        ids, drawn = candidates.label_ids.numpy(), sampler.draw(tf.constant(step))
        assert [set(ids[row > 0]) for row in multi_hot.numpy()] == [
            set(row) for row in LABEL_IDS.to_list()
        ]
        assert set(ids) == {0, 1, 3, 5, 8} | set(drawn.label_ids.numpy()) and len(set(ids)) == len(
            ids
        )
        expected = dict(zip(drawn.label_ids.numpy(), drawn.negative_weights.numpy(), strict=True))
        np.testing.assert_array_equal(
            candidates.negative_weights, [expected.get(label, 0.0) for label in ids]
        )


@pytest.mark.parametrize(
    "loss",
    [
        {"name": "weighted_bce", "label_smoothing": 0.1},
        {"name": "focal"},
        {"name": "asymmetric"},
        {"name": "class_balanced"},
        {"name": "distribution_balanced"},
    ],
)
def test_the_mean_of_sampled_losses_and_gradients_is_that_over_all_labels(loss):
    random = np.random.default_rng(0)
    table = tf.Variable(random.normal(size=(NUM_LABELS, 3)), dtype=tf.float32)
    vectors = tf.constant(random.normal(size=(4, 3)), tf.float32)
    weights = tf.constant([1.0, 0.5, 2.0, 0.0])
    loss = build_loss(
        TypeAdapter(LossConfig).validate_python(loss), positives=POSITIVES, num_documents=100
    )
    sampler = LabelSampler(POSITIVES, num_sampled=6, seed=1)

    def full():
        multi_hot = tf.reduce_max(tf.one_hot(LABEL_IDS.to_tensor(-1), NUM_LABELS), axis=1)
        return loss(multi_hot, tf.matmul(vectors, table, transpose_b=True), weights)

    def sampled(step):
        candidates, multi_hot = sampler.candidates(LABEL_IDS, step)
        logits = tf.matmul(vectors, tf.gather(table, candidates.label_ids), transpose_b=True)
        return loss(multi_hot, logits, weights, candidates)

    def losses_and_gradient(step):
        with tf.GradientTape() as tape:
            documents = sampled(step) if step is not None else full()
            total = tf.reduce_sum(documents)
        return tf.concat(
            [documents, tf.reshape(tf.convert_to_tensor(tape.gradient(total, table)), [-1])], 0
        )

    expected = losses_and_gradient(None).numpy()
    draws = _for_each_step(losses_and_gradient, 1500)
    errors = draws.std(axis=0) / len(draws) ** 0.5
    assert (np.abs(draws.mean(axis=0) - expected) < 5 * errors + 1e-4).all()
    assert errors.max() > 1e-3  # it is a sample indeed


@pytest.mark.parametrize(
    "name", ["bow", "mlp", "cnn", "lstm", "cnn_lwan", "bow_lwan", "transformer"]
)
@pytest.mark.parametrize("num_texts", [1, 2])
def test_models_give_the_logits_of_some_labels_as_they_give_all_and_touch_only_their_rows(
    name, num_texts
):
    statistics = VocabularyStatistics(
        size=10, document_counts=np.arange(10, 0, -1), num_documents=20
    )
    config = TypeAdapter(ModelConfig).validate_python(
        {"name": name, "embedding_dim": 8} | ({"wide": True} if name == "bow" else {})
    )
    bias = np.linspace(-1, 1, 7).astype(np.float32)
    model = build_model(
        config, vocabulary=statistics, num_labels=7, output_bias=bias, seed=0, num_texts=num_texts
    )
    for weight in model.trainable_variables:
        weight.assign(weight + 0.01 * np.random.default_rng(0).normal(size=weight.shape))
    tokens = tf.RaggedTensor.from_row_lengths(
        tf.constant([2, 3, 4, 9, 1], tf.int64), tf.constant([4, 0, 1], tf.int64)
    )
    tokens = tokens if num_texts == 1 else (tokens, tokens[::-1])
    label_ids = tf.constant([5, 0, 3], tf.int64)
    np.testing.assert_allclose(
        model(tokens, label_ids=label_ids),
        tf.gather(model(tokens), label_ids, axis=1),
        rtol=1e-5,
        atol=1e-6,
    )
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(tokens, label_ids=label_ids))
    for gradient, weight in zip(
        tape.gradient(total, model.trainable_variables), model.trainable_variables, strict=True
    ):
        if weight.shape[0] == 7 and "embeddings" not in weight.path:
            assert isinstance(gradient, tf.IndexedSlices), weight.path
            assert set(gradient.indices.numpy()) == {0, 3, 5}


class _AllLogits(keras.Model):
    def call(self, tokens, training=False):
        return tokens


class _OldParameter(keras.Model):
    def call(self, tokens, training=False, labels=None):
        return tokens


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        (_AllLogits, "$"),
        (_OldParameter, "; its parameter `labels` is now called `label_ids`$"),
    ],
)
def test_a_custom_model_that_gives_only_all_logits_is_refused(model, hint):
    config = types.SimpleNamespace(
        loss=TypeAdapter(LossConfig).validate_python({"name": "focal", "negatives": "sampled"}),
        model=types.SimpleNamespace(),
    )
    config.model.name = "custom"
    with pytest.raises(
        UserError,
        match=r"loss.negatives: received 'sampled', and the model custom .*"
        r"call\(tokens, training=False, label_ids=None\)`.*" + hint,
    ):
        make_label_sampler(types.SimpleNamespace(config=config, model=model()))
