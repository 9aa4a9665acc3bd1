"""Metrics of how a document's labels are ranked by score.

They are streamed as sums in the graph and summarized with NumPy. Sums add up over batches and
replicas as those of `trainer.metrics.classification`, whose names of arguments are used here too.
All averages are over all documents; a document without labels has recall, nDCG, coverage and
ranking loss 0 and average precision 1, as in scikit-learn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.metrics.classification import ratio
from trainer.metrics.columns import Columns
from trainer.metrics.pairs import Pairs, shape_of

# So many of the best-scored labels hold nearly all that a document has, and is given.
NUM_BEST = 64
# 2 MiB of float32: twice as fast as 20 MiB.
_SCORES_AT_A_TIME = 1 << 19


def propensities(
    train_positives: np.ndarray, num_documents: int, *, a: float = 0.55, b: float = 1.5
) -> np.ndarray:
    """How likely a label that is right was also assigned, by its train frequency: float64 [labels].

    1 / (1 + C exp(-a log(n + b))) with C = (log N - 1) (b + 1)^a (Jain, Prabhu and Varma 2016,
    Extreme multi-label loss functions for recommendation, tagging, ranking and other missing label
    applications, equation 3). At most 1: with fewer than 3 documents C would be negative.

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
    at_k: Sequence[int],
    label_propensities: np.ndarray | tf.Tensor,
) -> dict[str, tf.Tensor]:
    """What `summarize_ranking` needs to know of the k best-scored labels.

    Of equal scores the lower label id ranks first. Where k exceeds the number of labels, all labels
    are taken.

    Args:
      labels: multi-hot [batch, labels], or the pairs of these.
      scores: [batch, labels]; [1, labels] if all documents have the same.
      mask: [batch], 0 for padding.
      at_k: the k, each 1 or more.
      label_propensities: float64 [labels], see `propensities`.

    Returns:
      Sums over documents, each [len(at_k)]:
      hits: int64, positives among the k best;
      recall, ndcg: float64;
      propensity_gain: float64, the hits weighted by 1 / propensity;
      propensity_best: float64, the maximum of it that any k labels could give.
    """
    num_labels = scores.shape[1] or tf.shape(scores)[1]
    max_k = tf.minimum(max(at_k), num_labels)
    inverse = tf.cast(1 / tf.cast(label_propensities, tf.float64), tf.float32)
    positive, weight = Pairs.of(labels), tf.cast(mask, tf.float32)[:, tf.newaxis]
    best = best_scored(scores, max(at_k)).indices[:, :max_k]
    best = tf.broadcast_to(best, [tf.shape(weight)[0], max_k])
    hit = tf.cast(
        tf.reshape(
            Pairs.of_rows(best, num_columns=positive.num_columns).are_in(positive), [-1, max_k]
        ),
        tf.float32,
    )
    hit *= weight
    positives = positive.count_by_document()[:, tf.newaxis]
    ranks = tf.cast(tf.range(max_k), tf.float32)
    discounts = 1 / tf.math.log(ranks + 2)
    ideal = tf.cumsum(tf.where(ranks < positives, discounts, 0.0), axis=1)
    best_gains = _highest(tf.gather(inverse, positive.columns), positive, max_k) * weight
    gains = {
        "recall": tf.math.divide_no_nan(tf.cumsum(hit, axis=1), positives),
        "ndcg": tf.math.divide_no_nan(tf.cumsum(hit * discounts, axis=1), ideal),
        "propensity_gain": tf.cumsum(hit * tf.gather(inverse, best), axis=1),
        "propensity_best": tf.cumsum(best_gains, axis=1),
    }
    indices = tf.minimum(tf.constant(list(at_k)), num_labels) - 1
    hits = tf.cumsum(tf.cast(tf.reduce_sum(hit, axis=0), tf.int64))
    return {"hits": tf.gather(hits, indices)} | {
        name: tf.gather(tf.reduce_sum(tf.cast(gain, tf.float64), axis=0), indices)
        for name, gain in gains.items()
    }


def full_ranking_counts(
    labels: tf.Tensor, scores: tf.Tensor, mask: tf.Tensor, columns: Columns | None = None
) -> dict[str, tf.Tensor]:
    """What `summarize_ranking` needs to know of the ranks of all positives.

    Ties count against the positives, as in scikit-learn. A positive is compared with the best
    scores of its document, and with all of them only where it is not above the last of those. So
    many positives are compared at a time as a processor's cache holds, so the time grows with the
    positives of the batch, and the memory does not.

    Returns:
      Sums over documents:
      coverage: int64, labels down to the last positive (Tsoumakas et al. 2010);
      ranking_loss: float64, the fraction of pairs of a positive and a negative in which the
        negative scores at least as high (same);
      average_precision: float64, the mean over positives of the precision down to them.
    """
    positive, scores = Pairs.of(labels), tf.cast(scores, tf.float32)
    num_documents, num_labels = tf.shape(scores)[0], tf.cast(tf.shape(scores)[1], tf.float32)
    num_absent = tf.constant(0.0) if columns is None else tf.cast(columns.num_absent, tf.float32)
    num_labels += num_absent
    documents, own_scores = positive.documents, positive.values_of(scores)
    reaching = _scores_reaching(scores, documents, own_scores)
    # Labels without a column have the score 0.
    reaching += tf.where(own_scores <= 0, num_absent, 0.0)
    hits = _places_from_above(documents, own_scores)

    def sum_by_document(values):
        return tf.math.unsorted_segment_sum(values, documents, num_documents)

    coverage = tf.maximum(tf.math.unsorted_segment_max(reaching, documents, num_documents), 0.0)
    wrong, precision = (
        sum_by_document(reaching - hits),
        sum_by_document(hits / tf.maximum(reaching, 1.0)),
    )
    weight, count = tf.cast(mask, tf.float32), positive.count_by_document()
    ranking_loss = tf.math.divide_no_nan(wrong, count * (num_labels - count))
    average_precision = tf.where(count > 0, tf.math.divide_no_nan(precision, count), 1.0)
    return {
        "coverage": tf.reduce_sum(tf.cast(weight * coverage, tf.int64)),
        "ranking_loss": tf.reduce_sum(tf.cast(weight * ranking_loss, tf.float64)),
        "average_precision": tf.reduce_sum(tf.cast(weight * average_precision, tf.float64)),
    }


def _scores_reaching(scores: tf.Tensor, documents: tf.Tensor, own_scores: tf.Tensor) -> tf.Tensor:
    """How many scores of its document reach each positive's own.

    Args:
      scores: float32 [batch, labels].
      documents: int64 [positives], the document of each.
      own_scores: float32 [positives].

    Returns:
      float32 [positives], at least 1.
    """

    def count(rows, documents, own_scores):
        return _in_parts(
            lambda part_documents, own: tf.reduce_sum(
                tf.cast(tf.gather(rows, part_documents) >= own[:, tf.newaxis], tf.float32), axis=1
            ),
            (documents, own_scores),
            tf.maximum(_SCORES_AT_A_TIME // tf.shape(rows)[1], 1),
        )

    best = best_scored(scores, NUM_BEST).values
    # Below the last of the best, others may reach it too.
    others = tf.where(own_scores <= tf.gather(best[:, -1], documents))
    return tf.tensor_scatter_nd_update(
        count(best, documents, own_scores),
        others,
        count(scores, tf.gather(documents, others[:, 0]), tf.gather(own_scores, others[:, 0])),
    )


def _places_from_above(documents: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """How many of the pairs [n] of a document and a score reach each within its document.

    Args:
      documents: int64 [n], rising.
      scores: float32 [n].

    Returns:
      float32 [n], at least 1.
    """
    # The bits of a float rise with it from 0 on, and fall below; adding 0 makes -0 to 0.
    bits = tf.bitcast(scores + 0.0, tf.int32)
    falling = tf.where(bits < 0, tf.bitwise.bitwise_and(bits, 2**31 - 1), -1 - bits)
    first_keys = tf.bitwise.left_shift(documents, tf.constant(33, tf.int64))
    keys = first_keys + tf.cast(falling, tf.int64)
    ends = tf.searchsorted(tf.sort(keys), keys, side="right", out_type=tf.int64)
    starts = tf.searchsorted(documents, documents, out_type=tf.int64)
    return tf.cast(ends - starts, tf.float32)


def best_scored(scores: tf.Tensor, k: int) -> Any:
    """The k best-scored labels of each document or some more, all labels at most.

    What asks for few labels of the same scores gets the same operation, which the graph computes
    once.

    Returns:
      values and indices [batch, n], the best first; ties go to the lower label id.
    """
    num_labels = scores.shape[1] or tf.shape(scores)[1]
    return tf.math.top_k(tf.cast(scores, tf.float32), tf.minimum(max(k, NUM_BEST), num_labels))


def _highest(values: tf.Tensor, pairs: Pairs, k: tf.Tensor) -> tf.Tensor:
    """The k highest of each document's values, or 0 where it has fewer: float32 [batch, k].

    Args:
      values: float32 [n], above 0, of pairs.
      pairs: their documents rise.
      k: how many.
    """
    rows = tf.RaggedTensor.from_value_rowids(
        values, pairs.documents, nrows=pairs.num_documents, validate=False
    ).to_tensor()
    return tf.math.top_k(tf.pad(rows, [[0, 0], [0, k]]), k).values


def _in_parts(function, columns: tuple[tf.Tensor, ...], size: tf.Tensor) -> tf.Tensor:
    """The function's values [n] of columns [n], computed for `size` entries at a time."""
    num_parts = tf.maximum(1, -(-tf.size(columns[0]) // size))

    def add_part(index, parts):
        part = tuple(column[index * size : (index + 1) * size] for column in columns)
        return index + 1, parts.write(index, function(*part))

    parts = tf.TensorArray(tf.float32, size=num_parts, infer_shape=False, element_shape=[None])
    _, parts = tf.while_loop(lambda index, _: index < num_parts, add_part, (0, parts))
    return parts.concat()


def best_eligible(
    scores: tf.Tensor, k: int, is_eligible: np.ndarray | tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The best-scored labels of each document among those that may be given.

    They are taken out of `best_scored`, unless these hold too few.

    Args:
      scores: float32 [batch, labels], not negative.
      k: so many that are eligible are among them, if there are.
      is_eligible: bool [labels]; None: all are.

    Returns:
      values float32 and indices int32 [batch, n], the best first, ties go to the lower label id;
      the value of a label that is not eligible is -1;
      bound: float32 [batch, 1], which no eligible label exceeds that is not among them.
    """
    best = best_scored(scores, k)
    if is_eligible is None:
        return best.values, best.indices, best.values[:, -1:]
    is_eligible = tf.convert_to_tensor(is_eligible)

    def of_best():
        values = tf.where(tf.gather(is_eligible, best.indices), best.values, -1.0)
        ordered = tf.math.top_k(values, tf.shape(values)[1])
        indices = tf.gather(best.indices, ordered.indices, batch_dims=1)
        return ordered.values, indices, best.values[:, -1:]

    def of_all():
        ordered = best_scored(tf.where(is_eligible, scores, -1.0), k)
        return ordered.values, ordered.indices, tf.maximum(ordered.values[:, -1:], 0.0)

    found = tf.math.count_nonzero(tf.gather(is_eligible, best.indices), axis=1)
    wanted = tf.minimum(tf.math.count_nonzero(is_eligible), k)
    return tf.cond(tf.reduce_all(found >= wanted), of_best, of_all)


def top_k_pairs(
    scores: tf.Tensor, k: int, is_eligible: np.ndarray | tf.Tensor | None = None
) -> Pairs:
    """The k best-scored labels of each document that are eligible; ties go to the lower id."""
    values, indices, _ = best_eligible(scores, k, is_eligible)
    best = Pairs.of_rows(indices[:, :k], num_columns=shape_of(scores)[1])
    return best.where(tf.reshape(values[:, :k], [-1]) >= 0)


# --- on the host: sums -> numbers to read ----------------------------------------------


def summarize_ranking(
    counts: Mapping[str, np.ndarray], *, documents: int, at_k: Sequence[int]
) -> dict[str, Any]:
    """The metrics of a ranking, as plain values.

    Args:
      counts: summed `ranking_counts`, with or without `full_ranking_counts` of the same documents.
      documents: the number of documents.
      at_k: the k that `ranking_counts` was given.

    Returns:
      precision_at: {k: hits / (k * documents)}, divided by k also where k exceeds the number of
        labels;
      recall_at, ndcg_at: by k;
      propensity_scored_precision_at: by k, over the best attainable (Jain et al. 2016, section 4);
      and with `full_ranking_counts` coverage_error, ranking_loss, label_ranking_average_precision.
    """

    def by_k(values):
        return {k: float(value) for k, value in zip(at_k, values, strict=True)}

    summary: dict[str, Any] = {
        "precision_at": by_k(ratio(counts["hits"], np.array(at_k) * documents)),
        "recall_at": by_k(ratio(counts["recall"], documents)),
        "ndcg_at": by_k(ratio(counts["ndcg"], documents)),
        "propensity_scored_precision_at": by_k(
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
