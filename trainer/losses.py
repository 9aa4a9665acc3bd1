"""The loss: weighted binary cross-entropy over independent labels."""

import numpy as np
import tensorflow as tf

from beam_jobs.contract.config import LossConfig

# A label without positives, or without negatives, starts as if it had half a document of them.
_LEAST_COUNT = 0.5


def positive_weights(config: LossConfig, positives: np.ndarray, num_documents: int) -> np.ndarray:
    """The weight of each label's positives in the loss, from the train split's counts.

    Args:
      config: `none` gives 1, `balanced` negatives / positives, `sqrt` its square root; the
        latter two are clipped to [1, max_pos_weight].
      positives: int [labels], train documents with each label.
      num_documents: number of train documents.

    Returns:
      float32 [labels]. A label without positives gets max_pos_weight, which no document then uses.
    """
    positives = np.asarray(positives, np.float64)
    if config.pos_weight == "none":
        return np.ones(positives.shape, np.float32)
    ratio = np.divide(num_documents - positives, positives, out=np.full_like(positives, np.inf), where=positives > 0)
    weights = np.sqrt(ratio) if config.pos_weight == "sqrt" else ratio
    return np.clip(weights, 1, config.max_pos_weight).astype(np.float32)


def output_bias(positives: np.ndarray, num_documents: int) -> np.ndarray:
    """The logits to start from: each label's log-odds in the train split.

    The log-odds are the plain ones. The best constant under `weighted_bce` is higher by log(pos_weight), but
    starting there gained nothing, and plain log-odds make an untrained model calibrated.

    Args:
      positives: int [labels], train documents with each label.
      num_documents: number of train documents, above 0.

    Returns:
      float32 [labels], log(positives / negatives), both counts at least a half so that it is finite.
    """
    positives = np.asarray(positives, np.float64)
    negatives = num_documents - positives
    return np.log(np.maximum(positives, _LEAST_COUNT) / np.maximum(negatives, _LEAST_COUNT)).astype(np.float32)


def weighted_bce(labels: tf.Tensor, logits: tf.Tensor, *, pos_weight: tf.Tensor, document_weights: tf.Tensor) -> tf.Tensor:
    """Weighted binary cross-entropy, summed over labels: -(w * y * log(s) + (1 - y) * log(1 - s)) with s = sigmoid(logit).

    The caller divides the sum over documents by the global batch size. The sum over labels keeps the
    step's size independent of how many labels there are that a document does not have.

    Args:
      labels: [batch, labels] of 0 and 1, any number or bool.
      logits: float32 [batch, labels].
      pos_weight: float32 [labels], see `positive_weights`.
      document_weights: float32 [batch], which multiply the documents' losses; 0 masks padding.

    Returns:
      float32 [batch], finite for all finite logits.
    """
    losses = tf.nn.weighted_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits, pos_weight)
    return tf.reduce_sum(losses, axis=-1) * document_weights
