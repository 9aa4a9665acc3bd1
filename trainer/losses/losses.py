"""The losses over independent labels, from their papers.

Every loss is a sum over labels of y * positive(z) + (1 - y) * negative(z), where z is the logit and
y the target. The papers average over labels; the sum keeps a step's size independent of how many
labels there are that a document does not have.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from beam_jobs.contract.sections.loss import (
    AsymmetricConfig,
    DistributionBalancedConfig,
    LossConfig,
    SquaredHingeConfig,
    WeightedBceConfig,
)
from trainer.losses.label_weights import label_weights
from trainer.losses.prior_correction import prior_correction
from trainer.losses.rarity import MIN_COUNT
from trainer.losses.sampled_negatives import Candidates

# (labels [batch, labels], logits float32 [batch, labels], document weights float32 [batch],
# candidates or None) -> float32 [batch]
Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, Candidates | None], tf.Tensor]


def build_loss(
    config: LossConfig,
    *,
    positives: np.ndarray,
    num_documents: int,
    label_names: Sequence[str] = (),
) -> Loss:
    """The loss that the config section `loss` describes.

    Args:
      config: the section.
      positives: int [labels], train documents with each label.
      num_documents: number of train documents.
      label_names: by label id; only `pos_weight: file` needs them.

    Returns:
      (labels, logits, document_weights, candidates=None) -> float32 [batch]: each document's loss,
      summed over labels and multiplied by its weight, which is 0 for padding. The caller divides
      the sum over documents by the global batch size.

      `labels` is [batch, labels] of 0 and 1, of any numeric type or bool; `logits` is
      [batch, labels]. All finite logits give finite losses and gradients. With candidates, both are
      [batch, candidates], and the candidates include every label that a document has; the expected
      loss is then that over all labels.

    Raises:
      UserError: the file with positive weights does not fit the labels.
    """
    statistics = {
        "positives": positives,
        "num_documents": num_documents,
        "label_names": label_names,
    }
    weights_of_labels = label_weights(config, **statistics)
    positive_weight, negative_weight = map(tf.constant, weights_of_labels)

    def document_losses(
        labels: tf.Tensor,
        logits: tf.Tensor,
        document_weights: tf.Tensor,
        candidates: Candidates | None = None,
    ) -> tf.Tensor:
        def of_label(values: tf.Tensor) -> tf.Tensor:
            return values if candidates is None else tf.gather(values, candidates.label_ids)

        labels, logits = tf.cast(labels, tf.float32), tf.cast(logits, tf.float32)
        w_positive, w_negative = of_label(positive_weight), of_label(negative_weight)
        targets = labels * (1 - config.label_smoothing) + config.label_smoothing / 2
        if isinstance(config, DistributionBalancedConfig):
            logits += of_label(bias)
        positive, negative = _positive_and_negative(config, logits)
        if isinstance(config, DistributionBalancedConfig):
            weights = _rebalanced_weights(config, labels, of_label(inverse_counts))
            positive, negative = weights * positive, weights * negative / config.negative_scale
        losses = targets * w_positive * positive + (1 - targets) * w_negative * negative
        if candidates is not None:
            losses *= tf.where(labels > 0, 1.0, candidates.negative_weights)
        return tf.reduce_sum(losses, axis=-1) * document_weights

    if isinstance(config, DistributionBalancedConfig):
        bias = tf.constant(prior_correction(config, **statistics))
        inverse_counts = tf.constant(1 / np.maximum(positives, MIN_COUNT), tf.float32)
    return document_losses


# --- per label and document --------------------------------------------------------------


def _positive_and_negative(config: LossConfig, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The loss of each logit if the document has the label, and if it does not; not weighted."""
    # AutoGraph (2.21) cannot read `match`.
    if isinstance(config, WeightedBceConfig):
        return tf.math.softplus(-logits), tf.math.softplus(logits)
    if isinstance(config, SquaredHingeConfig):
        margins = logits / config.margin
        return tf.square(tf.nn.relu(1 - margins)), tf.square(tf.nn.relu(1 + margins))
    if isinstance(config, AsymmetricConfig):
        return _focused(
            logits, config.gamma_positive, config.gamma_negative, config.probability_shift
        )
    if isinstance(config, DistributionBalancedConfig):
        positive, _ = _focused(logits, config.gamma, config.gamma)
        _, negative = _focused(config.negative_scale * logits, config.gamma, config.gamma)
        return positive, negative
    return _focused(logits, config.gamma, config.gamma)  # focal and class-balanced


def _focused(
    logits: tf.Tensor, gamma_positive: float, gamma_negative: float, shift: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """-(1 - s)^g+ log(s) and -p^g- log(1 - p), where s = sigmoid(logit) and p = max(s - shift, 0).

    Lin et al. 2017, equation 4, is the case of equal gammas without a shift; Ridnik et al. 2021,
    equation 7.
    """
    log_s, log_not_s = tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)
    positive = -tf.exp(gamma_positive * log_not_s) * log_s
    if not shift:
        return positive, -tf.exp(gamma_negative * log_s) * log_not_s
    above = tf.sigmoid(logits) - shift
    # A power's gradient at 0 is not a number for exponents below 1, so 0 is replaced.
    p = tf.where(above > 0, above, 0.5)
    return positive, tf.where(above > 0, -tf.pow(p, gamma_negative) * tf.math.log1p(-p), 0.0)


def _rebalanced_weights(
    config: DistributionBalancedConfig, labels: tf.Tensor, inverse_counts: tf.Tensor
) -> tf.Tensor:
    """How rare a label is among the labels of its document, smoothed; float32 [batch, labels].

    Wu et al. 2020, equations 4 to 6. A document without labels has the highest weights, as in the
    authors' code.
    """
    repeats = tf.linalg.matvec(labels, inverse_counts)[:, None]
    ratio = tf.where(repeats > 0, inverse_counts / tf.where(repeats > 0, repeats, 1.0), np.inf)
    return config.alpha + tf.sigmoid(config.beta * (ratio - config.mu))
