"""Which split a document is in, decided by its content alone."""

import numpy as np

from beam_jobs.contract.config import SplitsConfig
from beam_jobs.contract.manifest import SPLITS


def assign(split_keys: np.ndarray, splits: SplitsConfig) -> np.ndarray:
    """uint64 [documents], uniformly distributed -> int8 [documents]: an index into SPLITS."""
    fractions = [getattr(splits, name) for name in SPLITS]
    bounds = np.cumsum(fractions)[:-1]
    # The upper 53 bits are exact as a float64 in [0, 1).
    uniform = (split_keys >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    return np.searchsorted(bounds, uniform, side="right").astype(np.int8)
