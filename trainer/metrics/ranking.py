"""Metrics of how a document's labels are ranked by score: streamed as sums in the graph, summarized with NumPy.

Sums add up over batches and replicas as those of `trainer.metrics.classification`, whose words for arguments hold here too. All averages are
over all documents; a document without labels has recall, nDCG, coverage and ranking loss 0 and average precision 1, as in scikit-learn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.metrics.classification import ratio


def propensities(
    train_positives: np.ndarray, num_documents: int, *, a: float = 0.55, b: float = 1.5
) -> np.ndarray:
    """How likely a label that is right was also assigned, by its train frequency: float64 [labels].

    1 / (1 + C exp(-a log(n + b))) with C = (log N - 1) (b + 1)^a (Jain, Prabhu and Varma 2016, Extreme multi-label loss functions for
    recommendation, tagging, ranking and other missing label applications, equation 3). At most 1: with fewer than 3 documents C would be negative.

    Args:
      train_positives: int [labels], train documents with each label.
      num_documents: N, train documents.
      a: slope; the paper's values are 0.5 for Wikipedia, 0.6 for Amazon, 0.55 elsewhere.
      b: the paper's values are 0.4, 2.6 and 1.5.
    """
    c = max(0.0, (np.log(max(num_documents, 1)) - 1) * (b + 1) ** a)
    return 1 / (1 + c * np.exp(-a * np.log(np.asarray(train_positives, np.float64) + b)))


# --- in the graph: one batch -> sums ---------------------------------------------------


def ranking_counts(
    labels: tf.Tensor,
    scores: tf.Tensor,
    mask: tf.Tensor,
    *,
    ranks: Sequence[int],
    label_propensities: np.ndarray,
) -> dict[str, tf.Tensor]:
    """What `summarize_ranking` needs to know of the k best-scored labels.

    Of equal scores the lower label id ranks first. Where k exceeds the number of labels, all labels are taken.

    Args:
      ranks: the k, each 1 or more.
      label_propensities: float [labels], see `propensities`.

    Returns:
      Sums over documents, each [len(ranks)]: hits, int64, positives among the k best; recall and ndcg, float64; propensity_gain and
      propensity_best, float64, the hits weighted by 1 / propensity and the most that any k labels could have given.
    """
    num_labels = scores.shape[1] or tf.shape(scores)[1]
    most = tf.minimum(max(ranks), num_labels)
    inverse = tf.constant(1 / np.asarray(label_propensities), tf.float32)
    positive, kept = tf.cast(labels, tf.float32), tf.cast(mask, tf.float32)[:, tf.newaxis]
    best = tf.math.top_k(tf.cast(scores, tf.float32), most).indices
    right = tf.gather(positive, best, batch_dims=1) * kept
    positives = tf.reduce_sum(positive, axis=1, keepdims=True)
    discounts = 1 / tf.math.log(tf.cast(tf.range(most), tf.float32) + 2)
    ideal = tf.cumsum(
        tf.where(tf.cast(tf.range(most), tf.float32) < positives, discounts, 0.0), axis=1
    )
    gains = {
        "recall": tf.math.divide_no_nan(tf.cumsum(right, axis=1), positives),
        "ndcg": tf.math.divide_no_nan(tf.cumsum(right * discounts, axis=1), ideal),
        "propensity_gain": tf.cumsum(right * tf.gather(inverse, best), axis=1),
        "propensity_best": tf.cumsum(tf.math.top_k(positive * inverse, most).values * kept, axis=1),
    }
    at = tf.minimum(tf.constant(list(ranks)), num_labels) - 1
    sums = {
        name: tf.gather(tf.reduce_sum(tf.cast(gain, tf.float64), axis=0), at)
        for name, gain in gains.items()
    }
    return {
        "hits": tf.gather(tf.cumsum(tf.cast(tf.reduce_sum(right, axis=0), tf.int64)), at)
    } | sums


def full_ranking_counts(
    labels: tf.Tensor, scores: tf.Tensor, mask: tf.Tensor
) -> dict[str, tf.Tensor]:
    """What `summarize_ranking` needs to know of the places of all positives, with ties counted against them, as in scikit-learn.

    It compares the scores with those of one positive of each document at a time, so its time grows with the most labels on one
    document of the batch and its memory does not. Sorting all labels took as long at 5,000 labels, three times as long at 480.

    Returns:
      Sums over documents: coverage, int64, labels down to the last positive (Tsoumakas et al. 2010); ranking_loss, float64, the
      fraction of pairs of a positive and a negative in which the negative scores as high (same); average_precision, float64, the mean over
      positives of the precision down to them.
    """
    positive, scores = tf.cast(labels, tf.bool), tf.cast(scores, tf.float32)
    num_labels = tf.cast(tf.shape(scores)[1], tf.float32)
    positives = tf.reduce_sum(tf.cast(positive, tf.int32), axis=1)
    most = tf.maximum(
        tf.reduce_max(positives), 0
    )  # the maximum of no documents is the smallest int32
    own = tf.math.top_k(
        tf.where(positive, scores, -np.inf), most
    ).values  # [batch, most]: scores of positives, then padding
    is_real = tf.sequence_mask(positives, most)

    def add_positive(
        place, coverage, wrong, precision
    ):  # `place`: the positive of each document that is compared
        bar, is_there = own[:, place : place + 1], is_real[:, place]
        reaching = tf.reduce_sum(tf.cast(scores >= bar, tf.float32), axis=1)
        right = tf.reduce_sum(tf.cast(is_real & (own >= bar), tf.float32), axis=1)
        sums = (
            tf.maximum(coverage, reaching),
            wrong + reaching - right,
            precision + right / tf.maximum(reaching, 1.0),
        )
        return place + 1, *(
            tf.where(is_there, new, old)
            for new, old in zip(sums, (coverage, wrong, precision), strict=True)
        )

    weight, count = tf.cast(mask, tf.float32), tf.cast(positives, tf.float32)
    none = tf.zeros_like(count)
    _, coverage, wrong, precision = tf.while_loop(
        lambda place, *_: place < most, add_positive, (0, none, none, none)
    )
    return {
        "coverage": tf.reduce_sum(tf.cast(weight * coverage, tf.int64)),
        "ranking_loss": tf.reduce_sum(
            tf.cast(weight * tf.math.divide_no_nan(wrong, count * (num_labels - count)), tf.float64)
        ),
        "average_precision": tf.reduce_sum(
            tf.cast(
                weight * tf.where(positives > 0, tf.math.divide_no_nan(precision, count), 1.0),
                tf.float64,
            )
        ),
    }


def top_k_decisions(scores: tf.Tensor, k: int) -> tf.Tensor:
    """The k best-scored labels of each document, the lower id first where scores are equal: bool [batch, labels]."""
    best = tf.math.top_k(tf.cast(scores, tf.float32), tf.minimum(k, tf.shape(scores)[1])).indices
    rows = tf.broadcast_to(tf.range(tf.shape(best)[0])[:, tf.newaxis], tf.shape(best))
    cells = tf.stack([rows, best], axis=-1)
    return (
        tf.tensor_scatter_nd_update(tf.zeros(tf.shape(scores)), cells, tf.ones(tf.shape(best))) > 0
    )


# --- on the host: sums -> numbers to read ----------------------------------------------


def summarize_ranking(
    counts: Mapping[str, np.ndarray], *, documents: int, ranks: Sequence[int]
) -> dict[str, Any]:
    """The metrics of a ranking, as plain JSON values.

    Args:
      counts: summed `ranking_counts`, with or without `full_ranking_counts` of the same documents.
      documents: the number of documents.
      ranks: the k that `ranking_counts` was given.

    Returns:
      precision_at {str(k): hits / (k * documents)}, divided by k also where k exceeds the number of labels; recall_at; ndcg_at;
      propensity_scored_precision_at, over the best attainable (Jain et al. 2016, section 4); and where `full_ranking_counts` are
      given coverage_error, ranking_loss and label_ranking_average_precision.
    """

    def at(values):
        return {str(k): float(value) for k, value in zip(ranks, values, strict=True)}

    summary: dict[str, Any] = {
        "precision_at": at(ratio(counts["hits"], np.array(ranks) * documents)),
        "recall_at": at(ratio(counts["recall"], documents)),
        "ndcg_at": at(ratio(counts["ndcg"], documents)),
        "propensity_scored_precision_at": at(
            ratio(counts["propensity_gain"], counts["propensity_best"])
        ),
    }
    names = {
        "coverage_error": "coverage",
        "ranking_loss": "ranking_loss",
        "label_ranking_average_precision": "average_precision",
    }
    return summary | {
        name: float(ratio(counts[key], documents)) for name, key in names.items() if key in counts
    }
