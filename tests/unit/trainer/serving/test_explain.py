"""Contributions of words sum to the logit, and words are ranked by the size of their effects."""

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.sections.network_models import BowConfig
from tests.weighted_bow import LABELS, VOCABULARY, bow
from trainer.data.input_pipeline import make_vectorizer
from trainer.serving import explain

NGRAMS = ((0, 1), (4, 5, 6))
CONFIGS = {
    "plain": ({}, {}),
    "pairs": ({"bigram_buckets": 3}, {}),  # so few that pairs share rows
    "pairs of their own": ({"bigram_buckets": 3, "bigram_dim": 2, "wide": True}, {}),
    "wide": ({"wide": True, "bigram_buckets": 16, "token_weights": "uniform"}, {}),
    "n-grams": ({"wide": True}, {"ngrams": NGRAMS, "ngram_document_counts": np.array([2, 3])}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_contributions_and_bias_sum_to_the_logits(name):
    config, statistics = CONFIGS[name]
    model = bow(BowConfig(embedding_dim=4, **config), **statistics)
    vectorizer = make_vectorizer(VOCABULARY)
    for text in (
        "goal team goal team song",
        "moon rocket bread moon",
        "goal",
        "unknown",
        "",
        "goal unknown team soup soup soup",
    ):
        tokens = vectorizer(tf.constant([text]))
        contributions, bias = model.contributions(tokens)
        assert contributions.shape == (len(text.split()), len(LABELS))
        logits = model(tokens, training=False)[0]
        np.testing.assert_allclose(tf.reduce_sum(contributions, axis=0) + bias, logits, atol=1e-5)
        if text:
            assert not np.any(contributions.numpy()[[word == "unknown" for word in text.split()]])


def test_a_pair_counts_half_for_each_of_its_words_and_occurrences_share_alike():
    model = bow(BowConfig(embedding_dim=4, bigram_buckets=1024))
    vectorizer = make_vectorizer(VOCABULARY)
    rows, shares = model._bag._terms.shares(vectorizer(tf.constant(["goal team goal"])))
    dense = tf.scatter_nd(shares.indices, shares.values, shares.dense_shape).numpy()
    _, bags = model._bag._terms(vectorizer(tf.constant(["goal team goal"])))
    np.testing.assert_allclose(dense.sum(axis=0), tf.sparse.to_dense(bags)[0], rtol=1e-6)
    row = {int(row): dense[:, i] for i, row in enumerate(rows.numpy())}
    goal, team = row[2], row[3]
    assert goal[0] == goal[2] > 0 == goal[1] and team[1] > 0 == team[0] == team[2]
    for pair in (values for number, values in row.items() if number > 9):
        assert sorted(pair)[0] == 0 and sorted(pair)[1] == sorted(pair)[2]


def test_words_are_ranked_by_the_size_of_their_effect():
    label = explain.Explanation(
        "sport", 0.5, True, (np.array([0.5, -2.0, 0.25, 0.0], np.float32),), 0.0
    )
    found = explain.Explanations("exact", {"text": ["goal", "song", "goal", "the"]}, [label])
    assert explain._top_words(found, label) == [(-2.0, "song"), (0.75, "goal")]
    by_occlusion = explain.Explanations(
        "occlusion", {"text": ["goal", "song", "goal", "the"]}, [label]
    )
    assert explain._top_words(by_occlusion, label) == [(-2.0, "song"), (0.25, "goal")]
