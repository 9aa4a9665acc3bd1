"""Calibration: one map per label from log-odds to log-odds, after which scores are frequencies.

It is fitted on streamed histograms of the validation split, so its memory is at most labels x bins,
and saved as numbers, so that evaluation and export apply the same function.
"""

import dataclasses
import io
import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import tensorflow as tf

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.errors import UserError
from trainer.metrics.score_histograms import LOG_ODDS_LIMIT, bin_centers, ranks_above_chance

METHODS = ("none", "temperature", "platt", "isotonic")
KNOTS = 65  # of an isotonic map, 0.5 apart in log-odds; 260 bytes per label
_MAX_NEWTON_STEPS = 60
_MAX_HALVINGS = 30  # of one Newton step
_LABELS_AT_A_TIME = 1024  # arrays float64 [these, bins] then take 4 MB


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A map from a model's log-odds to calibrated ones.

    They are scale * z + bias, followed by a piecewise linear map if there is a table.

    Attributes:
      method: one of METHODS.
      scale: float32 [labels], above 0.
      bias: float32 [labels].
      table: float32 [labels, KNOTS] or None: log-odds at even steps from -LOG_ODDS_LIMIT to
        LOG_ODDS_LIMIT, never falling; linear between them, constant beyond.
    """

    method: str
    scale: np.ndarray
    bias: np.ndarray
    table: np.ndarray | None = None

    @classmethod
    def none(cls, num_labels: int) -> "Calibration":
        """The map that changes nothing."""
        return cls("none", np.ones(num_labels, np.float32), np.zeros(num_labels, np.float32))

    def log_odds(self, log_odds: tf.Tensor, label_ids: tf.Tensor | None = None) -> tf.Tensor:
        """Calibrates log-odds, in the graph.

        Args:
          log_odds: [batch, labels], of `trainer.experiment.Experiment.log_odds`; or [batch, n] of
            some labels.
          label_ids: int64 [n] or [batch, n], those; None: all labels.

        Returns:
          float32, in the shape of `log_odds`.
        """
        log_odds = tf.cast(log_odds, tf.float32)
        if self.method == "none":
            return log_odds

        def of_label(values: np.ndarray) -> tf.Tensor:
            return tf.constant(values) if label_ids is None else tf.gather(values, label_ids)

        linear = log_odds * of_label(self.scale) + of_label(self.bias)
        if self.table is None:
            return linear
        position = tf.clip_by_value(
            (linear + LOG_ODDS_LIMIT) * ((KNOTS - 1) / (2 * LOG_ODDS_LIMIT)), 0.0, KNOTS - 1.0
        )
        left = tf.minimum(tf.floor(position), KNOTS - 2.0)  # the knot to the left, in knots
        cells = (
            tf.cast(left, tf.int32) + of_label(np.arange(len(self.scale), dtype=np.int32)) * KNOTS
        )
        flat = tf.constant(self.table.reshape(-1))
        low, high = tf.gather(flat, cells), tf.gather(flat, cells + 1)
        return low + (high - low) * (position - left)

    def save(self, path: Path) -> None:
        """Writes the numbers as a NumPy archive, which `load` reads."""
        arrays = {"method": np.array(self.method), "scale": self.scale, "bias": self.bias}
        if self.table is not None:
            arrays["table"] = self.table
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        write_atomically(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path, *, num_labels: int) -> "Calibration":
        """Reads what `save` wrote.

        Raises:
          UserError: there is none, or it is not one of `num_labels` labels.
        """
        advice = (
            "expected the calibration that `python -m trainer.task evaluate` writes: run it first"
        )
        try:
            with np.load(path, allow_pickle=False) as arrays:
                calibration = cls(
                    str(arrays["method"]),
                    arrays["scale"],
                    arrays["bias"],
                    arrays["table"] if "table" in arrays else None,
                )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise UserError(f"cannot read {path}: {error}; {advice}") from None
        has_shapes = calibration.scale.shape == calibration.bias.shape == (num_labels,) and (
            calibration.table is None or calibration.table.shape == (num_labels, KNOTS)
        )
        if calibration.method not in METHODS or not has_shapes:
            raise UserError(
                f"{path} holds the calibration of {calibration.scale.shape} labels, expected "
                f"({num_labels},); {advice}"
            )
        return calibration


def fit(
    method: str,
    histogram: np.ndarray,
    *,
    min_positives: int,
    is_trained: np.ndarray | None = None,
) -> Calibration:
    """The calibration that is best on the validation split.

    `temperature`: one scale for all labels (Guo et al. 2017, section 4.2). `platt`: one scale and
    bias per label, with the targets of Platt 1999, Probabilistic outputs for support vector
    machines, section 2.2, instead of 0 and 1. `isotonic`: one non-decreasing map per label
    (Zadrozny and Elkan 2002, Transforming classifier scores into accurate multiclass probability
    estimates); the frequency of each of its levels is (positives + 1/2) / (documents + 1), which
    keeps log-odds finite.

    A label with fewer than `min_positives` positives or negatives takes the fit to all labels
    together. So does one whose scores do not rank above chance
    (`trainer.metrics.score_histograms.ranks_above_chance`), or for which a rising score means fewer
    positives. If that holds for all labels together, log-odds are left alone, and those of labels
    without train positives always are. Log-odds count as the centers of their bins.

    Args:
      method: one of METHODS.
      histogram: [2, labels, bins], summed `trainer.metrics.score_histograms.log_odds_histogram` of
        the validation split.
      min_positives: positives, and negatives, that a label needs for a fit of its own.
      is_trained: bool [labels], whether the train split has the label; None: all of them.
    """
    num_labels = histogram.shape[1]
    if is_trained is None:
        is_trained = np.ones(num_labels, bool)
    trained = histogram if is_trained.all() else histogram[:, is_trained]
    pooled = trained.sum(axis=1, keepdims=True)
    if method == "none" or pooled.sum(axis=-1).min() == 0 or not ranks_above_chance(pooled)[0]:
        return Calibration.none(num_labels)
    has_own_fit = (
        is_trained
        & (histogram.sum(axis=-1).min(axis=0) >= min_positives)
        & ranks_above_chance(histogram)
    )
    if method == "isotonic":
        table = _isotonic_table(histogram, pooled, has_own_fit)
        table[~is_trained] = np.linspace(-LOG_ODDS_LIMIT, LOG_ODDS_LIMIT, KNOTS)
        return Calibration(
            method, np.ones(num_labels, np.float32), np.zeros(num_labels, np.float32), table
        )
    scale, bias = _lines(histogram, pooled, has_own_fit if method == "platt" else None)
    scale[~is_trained], bias[~is_trained] = 1, 0
    return Calibration(method, scale.astype(np.float32), bias.astype(np.float32))


def _isotonic_table(
    histogram: np.ndarray, pooled: np.ndarray, has_own_fit: np.ndarray
) -> np.ndarray:
    """The maps of all labels, see `Calibration`: the pooled one of labels without their own."""
    table = np.repeat(_fit_isotonic(pooled[:, 0])[np.newaxis], len(has_own_fit), axis=0)
    for label in np.flatnonzero(has_own_fit):
        table[label] = _fit_isotonic(histogram[:, label])
    return table


def _lines(
    histogram: np.ndarray, pooled: np.ndarray, has_own_fit: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Scales and biases, float64 [labels]: the pooled ones of labels without their own.

    Where `has_own_fit` is None, all labels have one scale, and no bias.
    """
    num_labels = histogram.shape[1]
    pooled_scale, pooled_bias = _fit_line(pooled, with_bias=has_own_fit is not None)
    if pooled_scale[0] <= 0:  # a scale must not reverse a ranking
        pooled_scale, pooled_bias = np.ones(1), np.zeros(1)
    scale, bias = np.repeat(pooled_scale, num_labels), np.repeat(pooled_bias, num_labels)
    if has_own_fit is not None:
        for start in range(0, num_labels, _LABELS_AT_A_TIME):
            part = slice(start, start + _LABELS_AT_A_TIME)
            own_scale, own_bias = _fit_line(histogram[:, part], with_bias=True)
            is_used = has_own_fit[part] & (own_scale > 0)
            scale[part] = np.where(is_used, own_scale, scale[part])
            bias[part] = np.where(is_used, own_bias, bias[part])
    return scale, bias


def _fit_line(histogram: np.ndarray, *, with_bias: bool) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regressions on the log-odds z, by Newton's method with halved steps.

    Minimizes for each label the cross-entropy sum(count * log(1 + e^(scale z + bias)) - target *
    (scale z + bias)) over the bins (Lin, Lin and Weng 2007, A note on Platt's probabilistic outputs
    for support vector machines, algorithm 1).

    Args:
      histogram: [2, labels, bins].
      with_bias: fit a bias too; without it, it is 0.

    Returns:
      scale, bias: float64 [labels].
    """
    negatives, positives = histogram.astype(np.float64)
    z = bin_centers(histogram.shape[-1])
    counts = negatives + positives
    target = _smoothed_targets(negatives, positives) if with_bias else positives

    def loss(scale, bias):
        line = scale[:, None] * z + bias[:, None]
        return (counts * np.logaddexp(0, line) - target * line).sum(axis=-1)

    scale, bias = np.ones(len(counts)), np.zeros(len(counts))
    best = loss(scale, bias)
    for _ in range(_MAX_NEWTON_STEPS):
        scale_step, bias_step = _newton_steps(z, counts, target, scale, bias, with_bias=with_bias)
        size = np.ones_like(scale)
        for _ in range(_MAX_HALVINGS):
            new = loss(scale - size * scale_step, bias - size * bias_step)
            is_worse = ~(new <= best)
            if not is_worse.any():
                break
            size = np.where(is_worse, size / 2, size)
        size = np.where(is_worse, 0, size)
        scale, bias = scale - size * scale_step, bias - size * bias_step
        gained = best - np.where(is_worse, best, new)
        best = best - gained
        if (gained <= 1e-12 * np.abs(best)).all():
            break
    return scale, bias


def _smoothed_targets(negatives: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Positives per bin as Platt 1999, section 2.2, counts them.

    A positive counts (N+ + 1) / (N+ + 2) and a negative 1 / (N- + 2), where N+ and N- are the
    label's positives and negatives. A temperature is one number for all labels and needs no such
    smoothing.
    """
    total_negatives, total_positives = negatives.sum(axis=-1), positives.sum(axis=-1)
    return (
        positives * ((total_positives + 1) / (total_positives + 2))[:, None]
        + negatives * (1 / (total_negatives + 2))[:, None]
    )


def _newton_steps(
    z: np.ndarray,
    counts: np.ndarray,
    target: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    with_bias: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The inverse Hessian times the gradient of the cross-entropy: steps of scale and of bias."""
    p = 1 / (1 + np.exp(-np.clip(scale[:, None] * z + bias[:, None], -500, 500)))
    slope = counts * p - target  # derivatives by scale * z + bias
    curvature = counts * p * (1 - p) + 1e-12
    scale_gradient = (slope * z).sum(axis=-1)
    scale_hessian = (curvature * z * z).sum(axis=-1)
    if not with_bias:
        return scale_gradient / scale_hessian, np.zeros_like(scale_gradient)
    bias_gradient = slope.sum(axis=-1)
    bias_hessian = curvature.sum(axis=-1)
    mixed_hessian = (curvature * z).sum(axis=-1)
    determinant = np.maximum(scale_hessian * bias_hessian - mixed_hessian * mixed_hessian, 1e-12)
    return (
        (scale_gradient * bias_hessian - bias_gradient * mixed_hessian) / determinant,
        (bias_gradient * scale_hessian - scale_gradient * mixed_hessian) / determinant,
    )


def _fit_isotonic(histogram: np.ndarray) -> np.ndarray:
    """The isotonic regression of one label.

    Args:
      histogram: [2, bins].

    Returns:
      Its log-odds at the knots, float32 [KNOTS].
    """
    centers = bin_centers(histogram.shape[-1])
    knot_of_bin = np.rint((centers + LOG_ODDS_LIMIT) * ((KNOTS - 1) / (2 * LOG_ODDS_LIMIT)))
    negatives, positives = (np.bincount(knot_of_bin.astype(int), side, KNOTS) for side in histogram)
    filled = np.flatnonzero(negatives + positives)
    counts, positives = (negatives + positives)[filled], positives[filled]
    from sklearn.isotonic import isotonic_regression  # scikit-learn takes half a second

    level = isotonic_regression(positives / counts, sample_weight=counts)
    _, block = np.unique(level, return_inverse=True)
    smoothed = (np.bincount(block, positives) + 0.5) / (np.bincount(block, counts) + 1)
    # Smoothing may reverse the order of two levels with few documents.
    smoothed = np.maximum.accumulate(smoothed)[block]
    log_odds = np.log(smoothed) - np.log1p(-smoothed)
    return np.interp(np.arange(KNOTS), filled, log_odds).astype(np.float32)
