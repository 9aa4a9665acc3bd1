"""Prior correction: undoes the effect of a loss's weights on the logits of a trained model."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from beam_jobs.contract.sections.loss import (
    AsymmetricConfig,
    ClassBalancedConfig,
    DistributionBalancedConfig,
    FocalConfig,
    LossConfig,
    SquaredHingeConfig,
)
from trainer.losses.label_weights import label_weights, output_bias

_LOG_TINY = -80.0  # exp of it is still a normal float32
# The squared hinge tells the probability of a logit within the margin, up to this part of it.
_MARGIN_PART = 0.96


def prior_correction(
    config: LossConfig,
    *,
    positives: np.ndarray,
    num_documents: int,
    label_names: Sequence[str] = (),
) -> np.ndarray:
    """What to add to the logits to undo the loss's weights of labels, float32 [labels].

    The weighted cross-entropy of a label of probability p is minimal at the logit log(p / (1 - p))
    + log(w+ / w-), so the correction is log(w- / w+), exact at every p (Elkan 2001, The foundations
    of cost-sensitive learning, theorem 2). For the distribution-balanced loss it is `bias_scale`
    times the log-odds, which training adds to the logits (Wu et al. 2020, equation 8, with the sign
    of the authors' code). Focusing, label smoothing and weights by document cannot be undone by a
    shift; for the first two see `undo_loss_weighting`.
    """
    if isinstance(config, DistributionBalancedConfig):
        return np.float32(config.bias_scale) * output_bias(positives, num_documents)
    positive, negative = label_weights(
        config, positives=positives, num_documents=num_documents, label_names=label_names
    )
    return np.log(negative.astype(np.float64) / positive).astype(np.float32)


def undo_loss_weighting(
    config: LossConfig, logits: tf.Tensor, *, correction: tf.Tensor
) -> tf.Tensor:
    """The log-odds that correspond to the logits of a trained model, float32 [batch, labels].

    The expected loss p * positive(z) + (1 - p) * negative(z) is minimal where p / (1 - p) =
    negative'(z) / -positive'(z), so the log-odds are the log of that ratio (for focal loss
    Charoenphakdee et al. 2021, On focal loss for class-posterior probability estimation, theorem
    11). Label smoothing is undone by p = (q - e / 2) / (1 - e), clipped. The ratio never falls
    where the logit rises, except that a probability shift ties all logits whose negatives have no
    loss, which is why they get the lowest value.

    Args:
      config: the loss.
      logits: [batch, labels], of the trained model.
      correction: float32 [labels], `prior_correction` of the same loss.
    """
    logits = tf.cast(logits, tf.float32)
    if isinstance(config, AsymmetricConfig):
        logits = (
            _log_slope_ratio(
                logits, config.gamma_positive, config.gamma_negative, config.probability_shift
            )
            + correction
        )
    elif isinstance(config, SquaredHingeConfig):
        logits = _undo_squared_hinge(logits, config.margin) + correction
    elif isinstance(config, FocalConfig | ClassBalancedConfig):
        logits = _log_slope_ratio(logits, config.gamma, config.gamma) + correction
    elif isinstance(config, DistributionBalancedConfig):
        z, scaled = logits + correction, config.negative_scale * (logits + correction)
        logits = _log_negative_slope(scaled, config.gamma) - _log_positive_slope(z, config.gamma)
    else:
        logits = logits + correction
    if config.label_smoothing:
        half = config.label_smoothing / 2
        positive = tf.math.log(tf.maximum(tf.sigmoid(logits) - half, np.exp(_LOG_TINY)))
        logits = positive - tf.math.log(tf.maximum(tf.sigmoid(-logits) - half, np.exp(_LOG_TINY)))
    return logits


def _undo_squared_hinge(logits: tf.Tensor, margin: float) -> tf.Tensor:
    """log((1 + m) / (1 - m)) with m = logit / margin; beyond the margin it rises as the logit does.

    There the loss says no more about the probability than that it is near 0 or 1.
    """
    within = tf.clip_by_value(logits / margin, -_MARGIN_PART, _MARGIN_PART)
    return 2 * tf.math.atanh(within) + (logits - margin * within)


def _log_slope_ratio(
    logits: tf.Tensor, gamma_positive: float, gamma_negative: float, shift: float = 0.0
) -> tf.Tensor:
    return _log_negative_slope(logits, gamma_negative, shift) - _log_positive_slope(
        logits, gamma_positive
    )


def _log_positive_slope(z: tf.Tensor, gamma: float) -> tf.Tensor:
    """log of minus the derivative of -(1 - s)^g log(s): (1 - s)^g (1 - s - g s log(s))."""
    log_s, log_not_s = tf.math.log_sigmoid(z), tf.math.log_sigmoid(-z)
    # g s log(s) / (1 - s) is -g at s = 1, where both are 0.
    return (gamma + 1) * log_not_s + tf.math.log1p(
        -gamma * tf.exp(log_s) * log_s / tf.maximum(tf.exp(log_not_s), np.exp(_LOG_TINY))
    )


def _log_negative_slope(z: tf.Tensor, gamma: float, shift: float = 0.0) -> tf.Tensor:
    """log of the derivative of -p^g log(1 - p) for p = max(s - shift, 0)."""
    if not shift:
        return _log_positive_slope(-z, gamma)
    p = tf.maximum(tf.sigmoid(z) - shift, 1e-7)
    log_slope = gamma * tf.math.log(p) + tf.math.log(1 / (1 - p) - gamma * tf.math.log1p(-p) / p)
    return tf.where(
        tf.sigmoid(z) > shift,
        tf.math.log_sigmoid(z) + tf.math.log_sigmoid(-z) + log_slope,
        _LOG_TINY,
    )
