"""Reading rows of a replica's own copy of a variable, and computing where a variable is."""

import contextlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf


def gather_rows(variable: Any, rows: tf.Tensor) -> tf.Tensor:
    """The rows [n, ...] of a variable, int [n], as tf.gather gives them.

    tf.gather copies the whole variable first if several replicas or workers have one each
    (TensorFlow 2.21), at every step and for each of an optimizer's tables.

    Args:
      variable: a Keras variable, or TensorFlow's.
      rows: int32 or int64 [n].
    """
    value = _value_of(variable)
    own = getattr(value, "_get_on_device_or_primary", None)
    return tf.gather(value if own is None else own(), rows)


def on_device_of(variable: Any) -> contextlib.AbstractContextManager:
    """While it is entered, operations are on the device of a variable, Keras's or TensorFlow's.

    One with a copy for each replica has many: its strategy decides.
    """
    value = _value_of(variable)
    if isinstance(value, tf.distribute.DistributedValues):
        return contextlib.nullcontext()
    return tf.device(value.device)


def computed_where(variable: Any, function: Callable[..., Any], *values: Any) -> Any:
    """function(*values), computed on the device of a variable, see `on_device_of`."""
    with on_device_of(variable):
        return function(*values)


def bytes_by_device(variables: Iterable[keras.Variable]) -> dict[str, int]:
    """The bytes of variables without replicas on each device, such as GPU:0."""
    sizes: dict[str, int] = {}
    for variable in variables:
        device = variable.value.device.rpartition("device:")[2]
        size = math.prod(variable.shape) * tf.as_dtype(variable.dtype).size
        sizes[device] = sizes.get(device, 0) + size
    return sizes


def _value_of(variable: Any) -> Any:
    """TensorFlow's variable of Keras's, or itself."""
    value = getattr(variable, "value", variable)
    return variable if callable(value) else value  # TensorFlow's own has a method of that name
