"""bow_tree is bow, of which only the labels of the best clusters have logits."""

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.network_models import BowConfig, BowTreeConfig
from tests.small_models import VOCABULARY
from trainer.models import build_model
from trainer.models.bow_tree import NOT_SCORED
from trainer.models.label_tree import NO_LABEL

NUM_LABELS = 11  # of 4 clusters, one has an empty slot
BIAS = np.linspace(-2, 1, NUM_LABELS).astype(np.float32)
TOKENS = tf.ragged.constant(
    [[2, 3, 2, 6], [4], [], [5, 1, 6, 6, 6, 2, 9, 17]], tf.int64, 1, row_splits_dtype=tf.int64
)
LABELS = tf.ragged.constant([[0, 9], [4], [], [10]], tf.int64, 1, row_splits_dtype=tf.int64)
BAG = {"embedding_dim": 6, "bigram_buckets": 8, "dropout": 0.0}


def _build(config, num_texts=1):
    return build_model(
        config,
        vocabulary=VOCABULARY,
        num_labels=NUM_LABELS,
        output_bias=BIAS,
        seed=0,
        num_texts=num_texts,
    )


def _tree(beam, num_texts=1, head_labels=0, output_devices=1):
    """A model whose labels are not in the order of their ids, with weights that are not near 0."""
    sizes = {"cluster_labels": 3, "beam": beam, "head_labels": head_labels}
    config = BowTreeConfig(name="bow_tree", output_devices=output_devices, **sizes, **BAG)
    model = _build(config, num_texts=num_texts)
    generator = np.random.default_rng(0)
    model.set_tree(model.tree_of(generator.normal(size=(NUM_LABELS, 3)).astype(np.float32)))
    for variable in model.trainable_variables:
        variable.assign(generator.normal(0, 0.5, variable.shape))
    return model


def _slots(model):
    return next(v for v in model.variables if v.name == "labels_of_clusters").numpy()


def _weights(model):
    """Of clusters and of labels by id: kernel and bias each."""
    (head_kernel, cluster_kernel, label_kernel), (head_bias, cluster_bias, label_bias) = (
        [v.numpy() for v in model.trainable_variables if v.path.endswith(end)]
        for end in ("logits/kernel", "logits/bias")
    )
    head = next(v for v in model.variables if v.name == "head_labels").numpy()
    slots = np.concatenate([head, _slots(model).reshape(-1)])
    order = np.argsort(slots)[(slots == NO_LABEL).sum() :]
    kernel = np.concatenate([head_kernel, label_kernel.reshape(-1, head_kernel.shape[1])])
    bias = np.concatenate([head_bias, label_bias])
    return cluster_kernel, cluster_bias, kernel[order], bias[order]


def _full(tree):
    """A bow whose weights are those of a tree's bag and labels."""
    model = _build(BowConfig(**BAG))
    *_, kernel, bias = _weights(tree)
    for variable, value in zip(
        model.trainable_variables, (tree.trainable_variables[0].numpy(), kernel, bias), strict=True
    ):
        variable.assign(value)
    return model


@pytest.mark.parametrize(("beam", "head_labels"), [(4, 0), (50, 0), (50, 5), (1, 10), (1, 99)])
def test_with_all_clusters_in_the_beam_it_is_bow(beam, head_labels):
    tree = _tree(beam, head_labels=head_labels)
    np.testing.assert_allclose(tree(TOKENS), _full(tree)(TOKENS), rtol=1e-4, atol=1e-5)


def test_the_labels_of_the_best_clusters_have_the_logits_of_bow_and_no_others_any():
    tree = _tree(2)
    vectors = tree.vectors(TOKENS).numpy()
    kernel, bias, *_ = _weights(tree)
    best = np.argsort(-(vectors @ kernel.T + bias), axis=1)[:, :2]
    expected = np.full((4, NUM_LABELS), NOT_SCORED, np.float32)
    for logits, full, clusters in zip(expected, _full(tree)(TOKENS).numpy(), best, strict=True):
        labels = _slots(tree)[clusters].reshape(-1)
        labels = labels[labels != NO_LABEL]
        logits[labels] = full[labels]
    np.testing.assert_allclose(tree(TOKENS), expected, rtol=1e-4, atol=1e-5)


def test_a_step_learns_from_the_own_clusters_and_the_best_ones_alone():
    tree = _tree(1)
    *_, cluster_biases, label_biases = (v for v in tree.trainable_variables if "bias" in v.path)
    with tf.GradientTape() as tape:
        found = tree.training_shortlist(TOKENS, LABELS)
        loss = tf.reduce_sum(found.logits) + tf.reduce_sum(found.cluster_logits)
    clusters, labels = tape.gradient(loss, [cluster_biases, label_biases])
    np.testing.assert_array_equal(clusters, 4.0)

    slots = _slots(tree)
    cluster_of = {label: c for c, row in enumerate(slots) for label in row if label != NO_LABEL}
    kernel, bias, *_ = _weights(tree)
    best = np.argmax(tree.vectors(TOKENS).numpy() @ kernel.T + bias, axis=1)
    pairs = {(d, int(cluster)) for d, cluster in enumerate(best)}
    own = {(d, cluster_of[label]) for d, ids in enumerate(LABELS.to_list()) for label in ids}
    rows = sorted(pairs | own)
    np.testing.assert_array_equal(found.documents, [document for document, _ in rows])
    np.testing.assert_array_equal(found.label_ids, slots[[cluster for _, cluster in rows]])
    np.testing.assert_array_equal(
        np.argwhere(found.has_cluster.numpy()).tolist(), sorted(map(list, own))
    )
    given = {(d, int(label)) for d, ids in enumerate(LABELS.to_list()) for label in ids}
    np.testing.assert_array_equal(
        found.has_label,
        [[(d, int(label)) in given for label in slots[cluster]] for d, cluster in rows],
    )
    touched = np.zeros(slots.size)
    np.add.at(touched, labels.indices.numpy(), labels.values.numpy())
    expected = np.zeros(slots.shape)
    for _, cluster in rows:
        expected[cluster] += 1
    np.testing.assert_array_equal(touched, expected.reshape(-1))


def test_the_most_frequent_labels_are_always_scored_and_trained():
    tree = _tree(1, head_labels=4)
    head = [7, 8, 9, 10]  # BIAS rises
    logits = tree(TOKENS).numpy()
    np.testing.assert_allclose(logits[:, head], _full(tree)(TOKENS).numpy()[:, head], rtol=1e-4)
    assert (logits == NOT_SCORED).any()
    found = tree.training_shortlist(TOKENS, LABELS)
    np.testing.assert_array_equal(found.head_ids, head)
    np.testing.assert_allclose(found.head_logits, logits[:, head], rtol=1e-5)
    np.testing.assert_array_equal(np.argwhere(found.has_head.numpy()), [[0, 2], [3, 3]])
    assert found.has_label.numpy().sum() == 2  # 0 and 4


def test_no_documents_and_empty_ones_give_finite_logits_and_gradients():
    tree = _tree(2, head_labels=1)
    empty = tf.RaggedTensor.from_row_lengths(tf.zeros([0], tf.int64), tf.zeros([2], tf.int64))
    with tf.GradientTape() as tape:
        found = tree.training_shortlist(empty, empty)
        logits = [found.head_logits, found.logits, found.cluster_logits]
        loss = tf.add_n([tf.reduce_sum(part) for part in logits])
    gradients = tape.gradient(loss, tree.trainable_variables)
    assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients)
    np.testing.assert_allclose(tree(empty)[0], tree(TOKENS)[2], rtol=1e-6)
    assert tree(empty[:0]).shape == (0, NUM_LABELS)


def test_an_untrained_models_biases_are_log_odds_and_those_of_clusters_of_their_union():
    tree = _build(BowTreeConfig(name="bow_tree", cluster_labels=3, head_labels=2, **BAG))
    _, cluster_bias, _, label_bias = _weights(tree)
    np.testing.assert_allclose(label_bias, BIAS, rtol=1e-5)
    without = 1 / (1 + np.exp(BIAS[_slots(tree)[0]]))
    union = 1 - without.prod()
    np.testing.assert_allclose(cluster_bias[0], np.log(union / (1 - union)), rtol=1e-5)


def test_of_several_texts_the_vectors_are_side_by_side():
    tree = _tree(4, num_texts=2)
    vectors = tree.vectors((TOKENS, TOKENS[::-1]))
    assert vectors.shape == (4, 12)
    other = tree.vectors((TOKENS, TOKENS))
    np.testing.assert_allclose(vectors[:, :6], other[:, :6])
    assert not np.allclose(vectors[:, 6:], other[:, 6:])
    assert tree((TOKENS, TOKENS)).shape == (4, NUM_LABELS)


@pytest.mark.parametrize("tokens", [TOKENS, TOKENS[:1], TOKENS[:0]])
def test_divided_over_two_devices_it_gives_and_learns_the_same(tokens):
    whole, divided = _tree(1, head_labels=2), _tree(1, head_labels=2, output_devices=2)
    kernel, bias = whole.trainable_variables[-2:]
    assert [v.value.device[-5:] for v in divided.trainable_variables[-4:]] == ["CPU:0", "CPU:1"] * 2
    # Of equal parts: two clusters of three slots each.
    for variable, value in zip(
        divided.trainable_variables,
        (*(v.numpy() for v in whole.trainable_variables[:-2]), *_halves(kernel), *_halves(bias)),
        strict=True,
    ):
        variable.assign(value)
    np.testing.assert_allclose(divided(tokens), whole(tokens), rtol=1e-5)

    found, gradients = zip(*(_learned(tree, tokens) for tree in (whole, divided)), strict=True)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5)
    *shared, kernel, bias = gradients[0]
    for one, other in zip((*shared, *_halves(kernel), *_halves(bias)), gradients[1], strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


def _halves(values):
    return np.split(values.numpy(), 2)


def _learned(tree, tokens):
    """What a step learns from, and the gradients of a loss of it, dense."""
    labels = LABELS[: tokens.nrows()]
    with tf.GradientTape() as tape:
        found = tree.training_shortlist(tokens, labels)
        logits = [found.head_logits, found.cluster_logits, found.logits]
        loss = tf.add_n([tf.reduce_sum(tf.square(part - 1)) for part in logits])
    gradients = tape.gradient(loss, tree.trainable_variables)
    return found, [tf.convert_to_tensor(gradient) for gradient in gradients]


def test_the_first_weights_do_not_depend_on_the_devices():
    config = {"name": "bow_tree", "cluster_labels": 3, "head_labels": 2, **BAG}
    whole, divided = (_build(BowTreeConfig(output_devices=n, **config)) for n in (1, 2))
    (kernel, bias), parts = whole.trainable_variables[-2:], divided.trainable_variables[-4:]
    for part, values in zip(parts, (*_halves(kernel), *_halves(bias)), strict=True):
        np.testing.assert_array_equal(part, values)


def test_more_devices_than_clusters_are_refused():
    with pytest.raises(UserError, match="output_devices: received 2, expected at most 1, the clus"):
        _build(BowTreeConfig(name="bow_tree", output_devices=2, cluster_labels=64, **BAG))
