"""The losses over independent labels, from their papers, and how to undo what they do to the scores.

Every loss is a sum over labels of y * positive(z) + (1 - y) * negative(z), where z is the logit and
y the target. The papers average over labels; the sum keeps a step's size independent of how many labels
there are that a document does not have.
"""

import json
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.training_config import (
    AsymmetricConfig,
    ClassBalancedConfig,
    DistributionBalancedConfig,
    FocalConfig,
    LossConfig,
    WeightedBceConfig,
)
from trainer.losses.sampled_negatives import Candidates

# A label without positives, or without negatives, counts as if it had half a document of them.
_LEAST_COUNT = 0.5
_LOG_TINY = -80.0  # exp of it is still a normal float32

# (labels [batch, labels], logits float32 [batch, labels], document weights float32 [batch], candidates or None) -> float32 [batch]
Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, Candidates | None], tf.Tensor]


def build_loss(config: LossConfig, *, positives: np.ndarray, num_documents: int, label_names: Sequence[str] = ()) -> Loss:
    """The loss that the config section `loss` describes.

    Args:
      config: the section.
      positives: int [labels], train documents with each label.
      num_documents: number of train documents.
      label_names: by label id; only `pos_weight: file` needs them.

    Returns:
      (labels, logits, document_weights, candidates=None) -> float32 [batch]: each document's loss, summed over labels and multiplied by
      its weight, of which 0 masks padding. The caller divides the sum over documents by the global batch size. `labels` is [batch, labels] of
      0 and 1, any number or bool; `logits` is [batch, labels]; all finite logits give finite losses and gradients. With candidates,
      both are [batch, candidates] and hold every label that a document has; the expected loss is then that over all labels.

    Raises:
      UserError: the file with positive weights does not fit the labels.
    """
    positive_weight, negative_weight = (
        tf.constant(w) for w in label_weights(config, positives=positives, num_documents=num_documents, label_names=label_names)
    )

    def document_losses(labels: tf.Tensor, logits: tf.Tensor, document_weights: tf.Tensor, candidates: Candidates | None = None) -> tf.Tensor:
        def of_label(values: tf.Tensor) -> tf.Tensor:
            return values if candidates is None else tf.gather(values, candidates.labels)

        labels, logits = tf.cast(labels, tf.float32), tf.cast(logits, tf.float32)
        w_positive, w_negative = of_label(positive_weight), of_label(negative_weight)
        targets = labels * (1 - config.label_smoothing) + config.label_smoothing / 2
        # AutoGraph (2.21) cannot read `match`.
        if isinstance(config, WeightedBceConfig):
            positive, negative = tf.math.softplus(-logits), tf.math.softplus(logits)
        elif isinstance(config, AsymmetricConfig):
            positive, negative = _focused(logits, config.gamma_positive, config.gamma_negative, config.probability_shift)
        elif isinstance(config, DistributionBalancedConfig):
            moved = logits + of_label(bias)
            positive, _ = _focused(moved, config.gamma, config.gamma)
            _, negative = _focused(config.negative_scale * moved, config.gamma, config.gamma)
            weights = _rebalanced_weights(config, labels, of_label(inverse_counts))
            positive, negative = weights * positive, weights * negative / config.negative_scale
        else:  # focal and class-balanced
            positive, negative = _focused(logits, config.gamma, config.gamma)
        losses = targets * w_positive * positive + (1 - targets) * w_negative * negative
        if candidates is not None:
            losses *= tf.where(labels > 0, 1.0, candidates.negative_weights)
        return tf.reduce_sum(losses, axis=-1) * document_weights

    if isinstance(config, DistributionBalancedConfig):
        bias = tf.constant(calibration_shift(config, positives=positives, num_documents=num_documents, label_names=label_names))
        inverse_counts = tf.constant(1 / np.maximum(positives, _LEAST_COUNT), tf.float32)
    return document_losses


def label_weights(config: LossConfig, *, positives: np.ndarray, num_documents: int, label_names: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """What a loss multiplies each label's positives and negatives by, in every document: two of float32 [labels].

    The weights of the distribution-balanced loss depend on the document's other labels and are not in them.
    """
    ones = np.ones(len(positives), np.float32)
    if isinstance(config, WeightedBceConfig):
        return positive_weights(config, positives, num_documents, label_names=label_names), ones
    if isinstance(config, FocalConfig) and config.alpha is not None:
        return ones * np.float32(config.alpha), ones * np.float32(1 - config.alpha)
    if isinstance(config, ClassBalancedConfig):
        # Cui et al. 2019, equation 4 and section 4.1: the weights are normalised to a mean of 1.
        weights = 1 / effective_number(np.maximum(positives, 1), config.beta)
        weights = (weights / weights.mean()).astype(np.float32)
        return weights, weights
    return ones, ones


def positive_weights(config: WeightedBceConfig, positives: np.ndarray, num_documents: int, *, label_names: Sequence[str] = ()) -> np.ndarray:
    """The weight of each label's positives in the weighted binary cross-entropy, from the train split's counts.

    Args:
      config: `none` gives 1, `balanced` negatives / positives, `sqrt` its square root, `effective_number` the ratio of the
        effective numbers (1 - beta^n) / (1 - beta) of both (Cui et al. 2019, equation 2); these are clipped to [1, max_pos_weight].
        `file` reads them.
      positives: int [labels], train documents with each label.
      num_documents: number of train documents.
      label_names: by label id, for `file`.

    Returns:
      float32 [labels]. A label without positives gets max_pos_weight, which no document then uses.

    Raises:
      UserError: the file cannot be read, or does not hold a weight for each label.
    """
    positives = np.asarray(positives, np.float64)
    if config.pos_weight == "none":
        return np.ones(positives.shape, np.float32)
    if config.pos_weight == "file":
        return _weights_from_file(config.pos_weight_file, label_names)
    negatives = num_documents - positives
    if config.pos_weight == "effective_number":
        positives, negatives = (effective_number(n, config.effective_number_beta) for n in (positives, negatives))
    ratio = np.divide(negatives, positives, out=np.full_like(positives, np.inf), where=positives > 0)
    weights = np.sqrt(ratio) if config.pos_weight == "sqrt" else ratio
    return np.clip(weights, 1, config.max_pos_weight).astype(np.float32)


def effective_number(count: np.ndarray, beta: float) -> np.ndarray:
    """(1 - beta^n) / (1 - beta), float64: how much n documents that overlap tell (Cui et al. 2019, equation 2)."""
    if beta == 0:
        return np.minimum(np.asarray(count, np.float64), 1)
    return -np.expm1(np.asarray(count, np.float64) * np.log(beta)) / (1 - beta)


def _weights_from_file(path: str, label_names: Sequence[str]) -> np.ndarray:
    expected = 'expected a JSON object with a number above 0 for each label, such as {"label a": 2.5, "label b": 1}'
    try:
        with open(path, encoding="utf-8") as stream:
            weights = json.load(stream)
    except (OSError, ValueError) as error:
        raise UserError(f"loss.pos_weight_file: cannot read {path}: {error}; {expected}") from None
    if not isinstance(weights, dict):
        raise UserError(f"loss.pos_weight_file: {path} holds {type(weights).__name__}; {expected}")
    missing, unknown = [name for name in label_names if name not in weights], sorted(weights.keys() - set(label_names))
    if missing or unknown:
        parts = [f"{what} {', '.join(map(repr, names[:5]))}" for what, names in (("lacks", missing), ("has the unknown", unknown)) if names]
        more = f" ({len(missing)} missing, {len(unknown)} unknown of {len(label_names)} labels)"
        raise UserError(f"loss.pos_weight_file: {path} {' and '.join(parts)}{more}; {expected}")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise UserError(f"loss.pos_weight_file: {path} has {weight!r} for {name!r}; {expected}")
    return np.array([weights[name] for name in label_names], np.float32)


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


# --- per label and document --------------------------------------------------------------


def _focused(logits: tf.Tensor, gamma_positive: float, gamma_negative: float, shift: float = 0.0) -> tuple[tf.Tensor, tf.Tensor]:
    """-(1 - s)^g+ log(s) and -p^g- log(1 - p), where s = sigmoid(logit) and p = max(s - shift, 0).

    Lin et al. 2017, equation 4, is the case of equal gammas without a shift; Ridnik et al. 2021, equation 7.
    """
    log_s, log_not_s = tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)
    positive = -tf.exp(gamma_positive * log_not_s) * log_s
    if not shift:
        return positive, -tf.exp(gamma_negative * log_s) * log_not_s
    above = tf.sigmoid(logits) - shift
    # A power's gradient at 0 is no number for exponents below 1, so it never sees a 0.
    p = tf.where(above > 0, above, 0.5)
    return positive, tf.where(above > 0, -tf.pow(p, gamma_negative) * tf.math.log1p(-p), 0.0)


def _rebalanced_weights(config: DistributionBalancedConfig, labels: tf.Tensor, inverse_counts: tf.Tensor) -> tf.Tensor:
    """Wu et al. 2020, equations 4 to 6, float32 [batch, labels]: how rare a label is beside the labels of its document, smoothed.

    A document without labels has all weights at their most, as in the authors' code.
    """
    repeats = tf.linalg.matvec(labels, inverse_counts)[:, None]
    ratio = tf.where(repeats > 0, inverse_counts / tf.where(repeats > 0, repeats, 1.0), np.inf)
    return config.alpha + tf.sigmoid(config.beta * (ratio - config.mu))


# --- calibration -------------------------------------------------------------------------


def calibration_shift(config: LossConfig, *, positives: np.ndarray, num_documents: int, label_names: Sequence[str] = ()) -> np.ndarray:
    """What to add to a trained model's logits so that the weighting of positives no longer shows: float32 [labels].

    A label of probability p has its least weighted cross-entropy at the logit log(p / (1 - p)) + log(w+ / w-), so the shift is
    log(w- / w+), exact at every p (Elkan 2001, The foundations of cost-sensitive learning, theorem 2). For the
    distribution-balanced loss it is `bias_scale` times the log-odds, which training adds to the logits (Wu et al. 2020,
    equation 8, with the sign of the authors' code). Focusing, label smoothing and weights by document are no shift; for the
    first two see `calibrated_logits`.
    """
    if isinstance(config, DistributionBalancedConfig):
        return np.float32(config.bias_scale) * output_bias(positives, num_documents)
    positive, negative = label_weights(config, positives=positives, num_documents=num_documents, label_names=label_names)
    return np.log(negative.astype(np.float64) / positive).astype(np.float32)


def calibrated_logits(config: LossConfig, logits: tf.Tensor, *, shift: tf.Tensor) -> tf.Tensor:
    """The log-odds that a model trained with the loss means by its logits, float32 [batch, labels].

    The expected loss p * positive(z) + (1 - p) * negative(z) is least where p / (1 - p) = negative'(z) / -positive'(z), so
    the logit's meaning is log of that ratio (for focal loss Charoenphakdee et al. 2021, On focal loss for class-posterior
    probability estimation, theorem 11). Label smoothing is undone by p = (q - e / 2) / (1 - e), clipped. The ratio never falls
    where the logit rises, except that a probability shift ties all logits whose negatives have no loss, which is why they get the least value.

    Args:
      config: the loss.
      logits: [batch, labels], of the trained model.
      shift: float32 [labels], `calibration_shift` of the same loss.
    """
    logits = tf.cast(logits, tf.float32)
    if isinstance(config, AsymmetricConfig):
        logits = _log_slope_ratio(logits, config.gamma_positive, config.gamma_negative, config.probability_shift) + shift
    elif isinstance(config, FocalConfig | ClassBalancedConfig):
        logits = _log_slope_ratio(logits, config.gamma, config.gamma) + shift
    elif isinstance(config, DistributionBalancedConfig):
        z, scaled = logits + shift, config.negative_scale * (logits + shift)
        logits = _log_negative_slope(scaled, config.gamma) - _log_positive_slope(z, config.gamma)
    else:
        logits = logits + shift
    if config.label_smoothing:
        half = config.label_smoothing / 2
        positive = tf.math.log(tf.maximum(tf.sigmoid(logits) - half, np.exp(_LOG_TINY)))
        logits = positive - tf.math.log(tf.maximum(tf.sigmoid(-logits) - half, np.exp(_LOG_TINY)))
    return logits


def _log_slope_ratio(logits: tf.Tensor, gamma_positive: float, gamma_negative: float, shift: float = 0.0) -> tf.Tensor:
    return _log_negative_slope(logits, gamma_negative, shift) - _log_positive_slope(logits, gamma_positive)


def _log_positive_slope(z: tf.Tensor, gamma: float) -> tf.Tensor:
    """log of minus the derivative of -(1 - s)^g log(s): (1 - s)^g (1 - s - g s log(s))."""
    log_s, log_not_s = tf.math.log_sigmoid(z), tf.math.log_sigmoid(-z)
    # g s log(s) / (1 - s) is -g at s = 1, where both are 0.
    return (gamma + 1) * log_not_s + tf.math.log1p(-gamma * tf.exp(log_s) * log_s / tf.maximum(tf.exp(log_not_s), np.exp(_LOG_TINY)))


def _log_negative_slope(z: tf.Tensor, gamma: float, shift: float = 0.0) -> tf.Tensor:
    """log of the derivative of -p^g log(1 - p) for p = max(s - shift, 0)."""
    if not shift:
        return _log_positive_slope(-z, gamma)
    p = tf.maximum(tf.sigmoid(z) - shift, 1e-7)
    log_slope = gamma * tf.math.log(p) + tf.math.log(1 / (1 - p) - gamma * tf.math.log1p(-p) / p)
    return tf.where(tf.sigmoid(z) > shift, tf.math.log_sigmoid(z) + tf.math.log_sigmoid(-z) + log_slope, _LOG_TINY)


# --- what is told before training ----------------------------------------------------------


def plan_text(config: LossConfig, *, positives: np.ndarray, num_documents: int, label_names: Sequence[str] = ()) -> str:
    """The loss and its weights for head, mid and tail labels, a line each, to be printed before training.

    Head labels are the most frequent ones, as many as hold half of all positives; mid labels those that hold them up to nine tenths.
    """
    positives = np.asarray(positives)
    weights = label_weights(config, positives=positives, num_documents=num_documents, label_names=label_names)
    shift = calibration_shift(config, positives=positives, num_documents=num_documents, label_names=label_names)
    hidden = {"name"} if config.negatives == "sampled" else {"name", "negatives", "num_sampled"}
    options = ", ".join(f"{key} {value}" for key, value in config.model_dump().items() if key not in hidden and value is not None)
    rows = [f"loss {config.name} ({options})"]
    for group, ids in label_groups(positives).items():
        if not len(ids):
            continue
        least, most = positives[ids].min(), positives[ids].max()
        means = [f"{np.mean(w[ids]):.2f}" for w in weights]
        rows.append(
            f"  {group}: {len(ids):,} labels on {least:,} to {most:,} of {num_documents:,} documents; mean weight of positives {means[0]}, "
            f"of negatives {means[1]}; logits to be shifted by {np.mean(shift[ids]):+.2f}"
        )
    if isinstance(config, DistributionBalancedConfig):
        least, most = (config.alpha + 1 / (1 + np.exp(-config.beta * (r - config.mu))) for r in (0, 1))
        rows.append(f"  times {least:.2f} to {most:.2f} by how rare the label is beside the document's labels")
    return "\n".join(rows)


def label_groups(positives: np.ndarray) -> dict[str, np.ndarray]:
    """Label ids in `head`, `mid` and `tail`, see `plan_text`; the most frequent come first, ties by id."""
    order = np.argsort(-np.asarray(positives), kind="stable")
    before = np.cumsum(np.asarray(positives)[order]) - np.asarray(positives)[order]
    total = max(1, int(np.sum(positives)))
    ends = np.searchsorted(before / total, [0.5, 0.9])
    return dict(zip(("head", "mid", "tail"), np.split(order, ends), strict=True))
