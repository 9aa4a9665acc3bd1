"""Weights of positives and negatives by label, and the logits to start from."""

from collections.abc import Sequence

import numpy as np

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.json_files import read_json
from beam_jobs.contract.sections.loss import (
    ClassBalancedConfig,
    FocalConfig,
    LossConfig,
    SquaredHingeConfig,
    WeightedBceConfig,
)
from beam_jobs.contract.validation import canonical_label
from trainer.losses.rarity import MIN_COUNT, fourth_root_weights


def label_weights(
    config: LossConfig,
    *,
    positives: np.ndarray,
    num_documents: int,
    label_names: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """The weights of each label's positives and negatives in a loss: two of float32 [labels].

    Those of the distribution-balanced loss depend on the document's other labels, and are not
    included.
    """
    ones = np.ones(len(positives), np.float32)
    if isinstance(config, WeightedBceConfig):
        return positive_weights(config, positives, num_documents, label_names=label_names), ones
    if isinstance(config, SquaredHingeConfig) and config.pos_weight == "fourth_root":
        return fourth_root_weights(positives, num_documents).astype(np.float32), ones
    if isinstance(config, FocalConfig) and config.alpha is not None:
        return ones * np.float32(config.alpha), ones * np.float32(1 - config.alpha)
    if isinstance(config, ClassBalancedConfig):
        # Cui et al. 2019, equation 4 and section 4.1: the weights are normalised to a mean of 1.
        weights = 1 / effective_number(np.maximum(positives, 1), config.beta)
        weights = (weights / weights.mean()).astype(np.float32)
        return weights, weights
    return ones, ones


def positive_weights(
    config: WeightedBceConfig,
    positives: np.ndarray,
    num_documents: int,
    *,
    label_names: Sequence[str] = (),
) -> np.ndarray:
    """The weight of each label's positives in the weighted binary cross-entropy.

    They follow from the counts of the train split.

    Args:
      config: `none` gives 1, `balanced` negatives / positives, `sqrt` its square root,
        `effective_number` the ratio of the effective numbers (1 - beta^n) / (1 - beta) of both (Cui
        et al. 2019, equation 2); these are clipped to [1, max_pos_weight]. `file` reads them.
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
        beta = config.effective_number_beta
        positives, negatives = effective_number(positives, beta), effective_number(negatives, beta)

    ratio = np.divide(
        negatives, positives, out=np.full_like(positives, np.inf), where=positives > 0
    )
    weights = np.sqrt(ratio) if config.pos_weight == "sqrt" else ratio
    return np.clip(weights, 1, config.max_pos_weight).astype(np.float32)


def effective_number(count: np.ndarray, beta: float) -> np.ndarray:
    """(1 - beta^n) / (1 - beta), float64: the effective number of n documents that overlap.

    Cui et al. 2019, equation 2.
    """
    if beta == 0:
        return np.minimum(np.asarray(count, np.float64), 1)
    return -np.expm1(np.asarray(count, np.float64) * np.log(beta)) / (1 - beta)


def _weights_from_file(path: str, label_names: Sequence[str]) -> np.ndarray:
    expected = (
        "expected a JSON object with a number above 0 for each label, such as "
        '{"label a": 2.5, "label b": 1}'
    )
    weights = read_json(path, key="loss.pos_weight_file", expected=expected)
    if not isinstance(weights, dict):
        raise UserError(f"loss.pos_weight_file: {path} holds {type(weights).__name__}; {expected}")
    weights = {canonical_label(name): weight for name, weight in weights.items()}
    missing = [name for name in label_names if name not in weights]
    unknown = sorted(weights.keys() - set(label_names))

    if missing or unknown:
        parts = [
            f"{what} {', '.join(map(repr, names[:5]))}"
            for what, names in (("lacks", missing), ("has the unknown", unknown))
            if names
        ]
        more = f" ({len(missing)} missing, {len(unknown)} unknown of {len(label_names)} labels)"
        raise UserError(f"loss.pos_weight_file: {path} {' and '.join(parts)}{more}; {expected}")
    for name, weight in weights.items():
        if (
            isinstance(weight, bool)
            or not isinstance(weight, int | float)
            or not 0 < weight < float("inf")
        ):
            raise UserError(f"loss.pos_weight_file: {path} has {weight!r} for {name!r}; {expected}")
    return np.array([weights[name] for name in label_names], np.float32)


def output_bias(positives: np.ndarray, num_documents: int) -> np.ndarray:
    """The logits to start from: each label's log-odds in the train split.

    The log-odds are the plain ones. The best constant under `weighted_bce` is higher by
    log(pos_weight), but starting there gained nothing, and plain log-odds make an untrained model
    calibrated.

    Args:
      positives: int [labels], train documents with each label.
      num_documents: number of train documents, above 0.

    Returns:
      float32 [labels], log(positives / negatives), both counts at least a half so that it is
      finite.
    """
    positives = np.asarray(positives, np.float64)
    negatives = num_documents - positives
    return np.log(np.maximum(positives, MIN_COUNT) / np.maximum(negatives, MIN_COUNT)).astype(
        np.float32
    )
