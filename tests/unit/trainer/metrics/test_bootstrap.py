import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score

from trainer.metrics import bootstrap


def weights_of(ids, *, replicates=200, seed=0):
    return bootstrap.resample(
        bootstrap.document_key(tf.constant(ids)), replicates=replicates, seed=seed
    ).numpy()


def counts_of(labels, decisions, weights, *, with_labels=True):
    counts = bootstrap.resampled_counts(
        labels, decisions, weights, np.ones(len(labels), np.float32), with_labels=with_labels
    )
    return {name: value.numpy() for name, value in counts.items()}


def test_weights_are_poisson_distributed_and_independent():
    weights = weights_of([f"doc {i}" for i in range(20_000)], replicates=20)
    frequency = np.bincount(weights.astype(int).ravel(), minlength=6) / weights.size
    np.testing.assert_allclose(
        frequency[:6], [0.36788, 0.36788, 0.18394, 0.06131, 0.01533, 0.00307], atol=0.002
    )
    correlation = np.corrcoef(weights.T)
    assert np.abs(correlation - np.eye(20)).max() < 0.04


def test_a_documents_weights_follow_from_its_id_and_the_seed_alone():
    ids = [f"doc {i}" for i in range(50)]
    weights = weights_of(ids)
    np.testing.assert_array_equal(weights_of(ids[::-1]), weights[::-1])
    assert (weights_of(ids, seed=1) != weights).any(axis=1).all()


def test_counts_equal_those_of_repeated_documents_and_add_up_over_batches():
    random = np.random.default_rng(0)
    labels, decisions = (
        (random.random((30, 4)) < 0.4).astype(np.float32),
        random.random((30, 4)) < 0.4,
    )
    weights = weights_of([str(i) for i in range(30)], replicates=7)
    counts = counts_of(labels, decisions, weights)
    values = bootstrap.intervals(counts, num_labels=4)
    micro, macro = [], []
    for replicate in range(7):
        repeated = np.repeat(np.arange(30), weights[:, replicate].astype(int))
        micro.append(f1_score(labels[repeated], decisions[repeated], average="micro"))
        present = labels[repeated].any(axis=0)
        macro.append(
            f1_score(labels[repeated][:, present], decisions[repeated][:, present], average="macro")
        )
    assert values["micro_f1"] == pytest.approx(np.quantile(micro, [0.025, 0.975]))
    assert values["macro_f1_present"] == pytest.approx(np.quantile(macro, [0.025, 0.975]))
    left, right = (
        counts_of(labels[:11], decisions[:11], weights[:11]),
        counts_of(labels[11:], decisions[11:], weights[11:]),
    )
    pooled = counts_of(labels, decisions, weights, with_labels=False)
    for name in ("tp", "fp", "fn"):
        np.testing.assert_array_equal(left[name] + right[name], counts[name])
        np.testing.assert_array_equal(pooled[name][0], counts[name].sum(axis=0))
    assert bootstrap.intervals(pooled, num_labels=4) == {"micro_f1": values["micro_f1"]}


def test_padding_counts_in_no_replicate():
    ones = np.ones((2, 1), np.float32)
    counts = bootstrap.resampled_counts(
        ones, ones > 0, np.full((2, 3), 2, np.float32), np.float32([1, 0]), with_labels=True
    )
    assert counts["tp"].numpy().tolist() == [[2, 2, 2]]


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(1)
    covered = 0
    for run in range(60):
        labels = random.random((400, 1)) < 0.5
        decisions = labels ^ (random.random((400, 1)) < 0.2)  # precision = recall = F1 = 0.8
        weights = weights_of([f"{run} {i}" for i in range(400)])
        low, high = bootstrap.intervals(
            counts_of(labels.astype(np.float32), decisions, weights), num_labels=1
        )["micro_f1"]
        covered += low <= 0.8 <= high
    assert 51 <= covered <= 60


def test_macro_counts_of_many_labels_are_left_out():
    assert bootstrap.macro_counts_fit_memory(
        5000, replicates=400
    ) and not bootstrap.macro_counts_fit_memory(200_000, replicates=400)
