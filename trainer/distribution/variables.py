"""Reading rows of a replica's own copy of a variable."""

from typing import Any

import tensorflow as tf


def gather_rows(variable: Any, rows: tf.Tensor) -> tf.Tensor:
    """The rows [n, ...] of a variable, int [n], as tf.gather gives them.

    tf.gather copies the whole variable first if several replicas or workers have one each
    (TensorFlow 2.21), at every step and for each of an optimizer's tables.

    Args:
      variable: a Keras variable, or TensorFlow's.
      rows: int32 or int64 [n].
    """
    value = getattr(variable, "value", variable)
    if callable(value):  # TensorFlow's own variable
        value = variable
    own = getattr(value, "_get_on_device_or_primary", None)
    return tf.gather(value if own is None else own(), rows)
