"""Weights that a SavedModel stores in half their size, see `export.weights`.

Matrices are stored as float16 or bfloat16 and cast to float32 once, when the model is loaded. A
plain half variable that each call casts is simpler, and slow: see
docs/experiments/half_precision.md.
"""

import contextlib
import hashlib

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.errors import UserError


class HalfPrecisionWeight(tf.saved_model.experimental.TrackableResource):
    """A float32 matrix, stored as `dtype` and cast back when the SavedModel is loaded.

    TensorFlow runs `_create_resource` and `_initialize` of a TrackableResource at loading, in
    Python and in TensorFlow Serving alike; a tf.Variable has no such hook.

    Args:
      value: float32, any shape.
      dtype: `float16` or `bfloat16`.
    """

    def __init__(self, value: tf.Tensor, dtype: str):
        super().__init__()
        self.stored = tf.Variable(tf.cast(value, dtype), trainable=False, name="half")
        # All models of a process share resources by name. The name is a hash of the content, so a
        # shared resource holds the right numbers; it is never destroyed, because another model may
        # still read it.
        digest = hashlib.blake2b(self.stored.numpy().tobytes(), digest_size=16).hexdigest()
        self._shared_name = f"float32-{digest}"
        self._initialize()

    def read(self) -> tf.Tensor:
        """The matrix as the model computes with it, float32."""
        value = tf.raw_ops.ReadVariableOp(resource=self.resource_handle, dtype=tf.float32)
        return tf.ensure_shape(value, self.stored.shape)

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(
            dtype=tf.float32, shape=self.stored.shape, shared_name=self._shared_name
        )

    def _initialize(self) -> None:
        value = tf.cast(self.stored, tf.float32)
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=value)


class HalfPrecisionWeights(tf.Module):
    """All weights of a model, the matrices among them in half their size.

    It holds the weights and not the model, whose float32 matrices would be saved too.

    Args:
      model: its weights as they are now.
      dtype: `float16` or `bfloat16`.
    """

    def __init__(self, model: keras.Model, dtype: str):
        super().__init__(name="half_precision")
        matrices = [variable for variable in model.variables if is_matrix(variable)]
        self._matrices = [HalfPrecisionWeight(variable.value, dtype) for variable in matrices]
        # A TrackableResource does not track its attributes, so the variables are tracked here.
        self._stored = [weight.stored for weight in self._matrices]
        self._others = [variable.value for variable in model.variables if not is_matrix(variable)]

        def scope() -> keras.StatelessScope:
            values = [weight.read() for weight in self._matrices]
            return keras.StatelessScope(list(zip(matrices, values, strict=True)))

        self._scope = scope

    def scope(self) -> contextlib.AbstractContextManager:
        """While it is entered, the model computes with the stored matrices."""
        return self._scope()


def is_matrix(variable: keras.Variable) -> bool:
    """Whether a weight is stored in half its size.

    Vectors are not: they are small, and the scores depend much on biases and IDF.
    """
    return variable.dtype == "float32" and len(variable.shape) > 1


def check_range(model: keras.Model, dtype: str) -> None:
    """Checks that no matrix of the model overflows `dtype`.

    Raises:
      UserError: a weight does.
    """
    half = tf.as_dtype(dtype)
    for variable in filter(is_matrix, model.variables):
        if not np.isfinite(tf.cast(tf.cast(variable.value, half), tf.float32)).all():
            raise UserError(
                f"export.weights: received {dtype}, and the model has weights beyond its largest "
                f"value, {half.max:g}; expected bfloat16 or float32"
            )
