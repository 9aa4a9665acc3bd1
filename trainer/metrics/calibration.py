"""Calibration: a map a label from log-odds to log-odds, fitted on the validation split, after which scores are frequencies.

It is fitted on streamed histograms, so its memory is labels x bins at most, and saved as numbers, so that evaluation and export apply
the same function.
"""

import dataclasses
import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.isotonic import isotonic_regression

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.errors import UserError
from trainer.metrics.score_histograms import LOG_ODDS_LIMIT, bin_centers

METHODS = ("none", "temperature", "platt", "isotonic")
KNOTS = 65  # of an isotonic map: every half of log-odds; 260 bytes a label
_NEWTON_STEPS = 60
_LABELS_AT_A_TIME = 1024  # arrays float64 [these, bins] then take 4 MB


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What turns a model's log-odds into calibrated ones: scale * z + bias, and then a piecewise linear map where there is a table.

    Attributes:
      method: one of METHODS.
      scale: float32 [labels], above 0.
      bias: float32 [labels].
      table: float32 [labels, KNOTS] or None: log-odds at even places from -LOG_ODDS_LIMIT to LOG_ODDS_LIMIT, which never fall; linear
        between them, constant beyond.
    """

    method: str
    scale: np.ndarray
    bias: np.ndarray
    table: np.ndarray | None = None

    @classmethod
    def none(cls, num_labels: int) -> "Calibration":
        """The map that changes nothing."""
        return cls("none", np.ones(num_labels, np.float32), np.zeros(num_labels, np.float32))

    def log_odds(self, log_odds: tf.Tensor) -> tf.Tensor:
        """Log-odds [batch, labels], of `trainer.experiment.Experiment.log_odds`, to calibrated ones, float32 [batch, labels]; in the graph."""
        log_odds = tf.cast(log_odds, tf.float32)
        if self.method == "none":
            return log_odds
        moved = log_odds * tf.constant(self.scale) + tf.constant(self.bias)
        if self.table is None:
            return moved
        place = tf.clip_by_value(
            (moved + LOG_ODDS_LIMIT) * ((KNOTS - 1) / (2 * LOG_ODDS_LIMIT)), 0.0, KNOTS - 1.0
        )
        left = tf.minimum(tf.floor(place), KNOTS - 2.0)
        cells = tf.cast(left, tf.int32) + tf.range(len(self.scale)) * KNOTS
        flat = tf.constant(self.table.reshape(-1))
        low, high = tf.gather(flat, cells), tf.gather(flat, cells + 1)
        return low + (high - low) * (place - left)

    def save(self, path: Path) -> None:
        """Writes the numbers as a NumPy archive, which `load` reads."""
        arrays = {"method": np.array(self.method), "scale": self.scale, "bias": self.bias} | (
            {} if self.table is None else {"table": self.table}
        )
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        write_atomically(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path, *, num_labels: int) -> "Calibration":
        """Reads what `save` wrote.

        Raises:
          UserError: there is none, or it is not that of `num_labels` labels.
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
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise UserError(f"cannot read {path}: {error}; {advice}") from None
        expected = (num_labels,), (num_labels,), (num_labels, KNOTS)
        shapes = (
            calibration.scale.shape,
            calibration.bias.shape,
            expected[2] if calibration.table is None else calibration.table.shape,
        )
        if calibration.method not in METHODS or shapes != expected:
            raise UserError(
                f"{path} holds the calibration of {calibration.scale.shape} labels, expected ({num_labels},); {advice}"
            )
        return calibration


def fit(method: str, histogram: np.ndarray, *, min_positives: int) -> Calibration:
    """The calibration that is best on the validation split.

    `temperature`: one scale for all labels (Guo et al. 2017, section 4.2). `platt`: scale and bias a label, with the targets of Platt
    1999, Probabilistic outputs for support vector machines, section 2.2, instead of 0 and 1. `isotonic`: a map a label that only rises
    (Zadrozny and Elkan 2002, Transforming classifier scores into accurate multiclass probability estimates); the frequency of each level of it is
    (positives + 1/2) / (documents + 1), which keeps log-odds finite. A label with fewer than `min_positives` positives or
    negatives, or whose scores do not rise with them, takes the fit to all labels together; where those do not rise either, they stay.
    Log-odds count as the middles of their bins.

    Args:
      method: one of METHODS.
      histogram: [2, labels, bins], summed `trainer.metrics.score_histograms.log_odds_histogram` of the validation split.
      min_positives: positives, and negatives, that a label needs for a fit of its own.
    """
    num_labels = histogram.shape[1]
    pooled = histogram.sum(axis=1, keepdims=True)
    if method == "none" or pooled.sum(axis=-1).min() == 0:
        return Calibration.none(num_labels)
    own = histogram.sum(axis=-1).min(axis=0) >= min_positives
    scale, bias = (
        np.repeat(values, num_labels) for values in _fit_line(pooled, with_bias=method == "platt")
    )
    if num_labels and scale[0] <= 0:  # a scale may turn no ranking round
        scale, bias = np.ones(num_labels), np.zeros(num_labels)
    if method == "platt":
        for start in range(0, num_labels, _LABELS_AT_A_TIME):
            part = slice(start, start + _LABELS_AT_A_TIME)
            own_scale, own_bias = _fit_line(histogram[:, part], with_bias=True)
            is_used = own[part] & (own_scale > 0)
            scale[part], bias[part] = (
                np.where(is_used, own_scale, scale[part]),
                np.where(is_used, own_bias, bias[part]),
            )
    if method != "isotonic":
        return Calibration(method, scale.astype(np.float32), bias.astype(np.float32))
    table = np.repeat(_fit_rising(pooled[:, 0])[np.newaxis], num_labels, axis=0)
    for label in np.flatnonzero(own):
        table[label] = _fit_rising(histogram[:, label])
    return Calibration(
        "isotonic", np.ones(num_labels, np.float32), np.zeros(num_labels, np.float32), table
    )


def _fit_line(histogram: np.ndarray, *, with_bias: bool) -> tuple[np.ndarray, np.ndarray]:
    """(scale, bias), float64 [labels]: logistic regressions on the log-odds, by Newton's method with halved steps."""
    negatives, positives = histogram.astype(np.float64)
    z = bin_centers(histogram.shape[-1])
    counts, total = negatives + positives, (negatives.sum(axis=-1), positives.sum(axis=-1))
    target = positives
    if with_bias:  # a temperature is one number for all labels, and needs no smoothed targets
        target = (
            positives * ((total[1] + 1) / (total[1] + 2))[:, None]
            + negatives * (1 / (total[0] + 2))[:, None]
        )

    def loss(scale, bias):
        line = scale[:, None] * z + bias[:, None]
        return (counts * np.logaddexp(0, line) - target * line).sum(axis=-1)

    scale, bias = np.ones(len(counts)), np.zeros(len(counts))
    best = loss(scale, bias)
    for _ in range(_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(scale[:, None] * z + bias[:, None], -500, 500)))
        slope, curve = counts * p - target, counts * p * (1 - p) + 1e-12
        g, h = (slope * z).sum(axis=-1), (curve * z * z).sum(axis=-1)
        if with_bias:
            g0, h0, h01 = slope.sum(axis=-1), curve.sum(axis=-1), (curve * z).sum(axis=-1)
            determinant = np.maximum(h * h0 - h01 * h01, 1e-12)
            steps = (g * h0 - g0 * h01) / determinant, (g0 * h - g * h01) / determinant
        else:
            steps = g / h, np.zeros_like(g)
        size = np.ones_like(scale)
        for _ in range(30):
            new = loss(scale - size * steps[0], bias - size * steps[1])
            is_worse = ~(new <= best)
            if not is_worse.any():
                break
            size = np.where(is_worse, size / 2, size)
        size = np.where(is_worse, 0, size)
        scale, bias, gained = (
            scale - size * steps[0],
            bias - size * steps[1],
            best - np.where(is_worse, best, new),
        )
        best = best - gained
        if (gained <= 1e-12 * np.abs(best)).all():
            break
    return scale, bias


def _fit_rising(histogram: np.ndarray) -> np.ndarray:
    """float32 [KNOTS]: the isotonic regression of one label's [2, bins], as log-odds at the knots."""
    nearest = np.rint(
        (bin_centers(histogram.shape[-1]) + LOG_ODDS_LIMIT) * ((KNOTS - 1) / (2 * LOG_ODDS_LIMIT))
    ).astype(int)
    negatives, positives = (np.bincount(nearest, side, KNOTS) for side in histogram)
    filled = np.flatnonzero(negatives + positives)
    counts, right = (negatives + positives)[filled], positives[filled]
    level = isotonic_regression(right / counts, sample_weight=counts)
    _, block = np.unique(level, return_inverse=True)
    smoothed = (np.bincount(block, right) + 0.5) / (np.bincount(block, counts) + 1)
    smoothed = np.maximum.accumulate(smoothed)[block]  # smoothing may turn two small levels round
    limit = np.log(smoothed) - np.log1p(-smoothed)
    return np.interp(np.arange(KNOTS), filled, limit).astype(np.float32)
