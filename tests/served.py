"""What SavedModels answer."""

from typing import Any

import numpy as np
import tensorflow as tf


def answers_of(model: Any, texts: list[str]) -> dict[str, Any]:
    """By signature its outputs, by name, as JSON holds them; and the analyzed texts."""
    given = tf.constant(texts)
    out = {
        name: {key: _plain(value) for key, value in model.signatures[name](given).items()}
        for name in ("serving_default", "scores", "decide")
    }
    return out | {"analyzed": _plain(model.signatures["analyze"](given)["analyzed"])}


def _plain(value: tf.Tensor) -> Any:
    values = value.numpy()
    if values.dtype == object:  # UTF-8
        values = np.vectorize(bytes.decode, otypes=[object])(values)
    return values.tolist()
