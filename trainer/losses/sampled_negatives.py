"""Sampled negatives: a step computes the logits of its documents' labels and of a sample."""

import dataclasses

import numpy as np
import tensorflow as tf

from trainer.data.labels import multi_hot


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The labels whose logits a step computes.

    Attributes:
      label_ids: int64 [candidates], distinct; or [batch, candidates] where each document has
        others.
      negative_weights: float32 in the shape of `label_ids`, what a document's loss of a label that
        it does not have is multiplied by.
    """

    label_ids: tf.Tensor
    negative_weights: tf.Tensor


class LabelSampler:
    """Draws labels for a step, with weights that make the expected loss that over all labels.

    Frequent labels are drawn more often.

    Ranks of labels by frequency are drawn with replacement from the log-uniform distribution q(r) =
    ln((r + 2) / (r + 1)) / ln(labels + 1), as in TensorFlow's log_uniform_candidate_sampler. Of n
    draws, label l is among them with the probability p(l) = 1 - (1 - q(l))^n, and the sum over the
    distinct labels drawn of loss(l) / p(l) has the sum over all labels as its expectation (Horvitz
    & Thompson 1952, A generalization of sampling without replacement from a finite universe,
    equation 5; the same correction for softmax is in Jean et al. 2015, On Using Very Large Target
    Vocabulary for Neural Machine Translation, section 3). Gradients are unbiased likewise, as the
    loss is a sum over labels.

    A step's sample follows from the seed and the step's number: a resumed run draws the same, and
    so do all replicas.

    Args:
      positives: int [labels], train documents with each label.
      num_sampled: draws a step; the distinct labels among them are fewer.
      seed: the run's.
    """

    def __init__(self, positives: np.ndarray, *, num_sampled: int, seed: int):
        self._by_rank = tf.constant(np.argsort(-np.asarray(positives), kind="stable"), tf.int64)
        self._num_labels, self._num_sampled, self._seed = len(positives), num_sampled, seed

    def draw(self, step: tf.Tensor) -> Candidates:
        """The sample of a step, an integer."""
        # float64: in float32 the highest of a million ranks would be too coarse to be drawn at all.
        uniform = tf.random.stateless_uniform(
            [self._num_sampled],
            seed=tf.stack([tf.cast(self._seed, tf.int64), tf.cast(step, tf.int64)]),
            dtype=tf.float64,
        )
        log_range = np.log(self._num_labels + 1.0)
        ranks = tf.minimum(tf.cast(tf.exp(uniform * log_range), tf.int64) - 1, self._num_labels - 1)
        ranks = tf.unique(ranks)[0]
        q = tf.math.log1p(1 / (tf.cast(ranks, tf.float64) + 1)) / log_range
        drawn = -tf.math.expm1(self._num_sampled * tf.math.log1p(-q))
        return Candidates(tf.gather(self._by_rank, ranks), tf.cast(1 / drawn, tf.float32))

    def candidates(
        self, label_ids: tf.RaggedTensor, step: tf.Tensor
    ) -> tuple[Candidates, tf.Tensor]:
        """The sample of a step with the labels of its documents.

        A document's own labels always count in full. Labels that only other documents have get the
        weight 0 as negatives, so that a document's loss does not depend on the documents beside it,
        nor on the number of replicas.

        Args:
          label_ids: int64 [batch, None], of the documents.
          step: the step's number.

        Returns:
          the candidates, and float32 [batch, candidates]: 1 where the document has the label.
        """
        sample = self.draw(step)
        size = tf.size(sample.label_ids)
        labels, positions = tf.unique(
            tf.concat([sample.label_ids, label_ids.values], 0), out_idx=tf.int64
        )
        weights = tf.concat([sample.negative_weights, tf.zeros([tf.size(labels) - size])], 0)
        own_positions = label_ids.with_values(positions[size:])
        num_candidates = tf.size(labels, label_ids.row_splits.dtype)
        return Candidates(labels, weights), multi_hot(own_positions, num_candidates)
