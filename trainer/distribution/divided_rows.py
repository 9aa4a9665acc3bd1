"""Weights whose rows are divided in blocks over the devices of a process."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record

# How the variables of a divided weight are told from others, and those of an optimizer for them,
# whose names have theirs in them.
_PART = re.compile(r"_part_\d+_of_\d+")


@dataclasses.dataclass(frozen=True)
class Division:
    """Rows in blocks of neighbours, each on a device.

    Attributes:
      num_rows: of all blocks.
      devices: one a block, by name; None alone: the strategy of the run decides, and there may be
        replicas.
    """

    num_rows: int
    devices: Sequence[str | None] = (None,)

    def add_weight(
        self,
        layer: keras.layers.Layer,
        name: str,
        shape: tuple[int, ...],
        initializer: Callable[..., tf.Tensor],
    ) -> list[keras.Variable]:
        """A layer's weight of this shape, whose first axis is a multiple of the rows: its parts.

        The first values do not depend on the division. The host holds all of them once.
        """
        with tf.device("/cpu:0"):
            whole = initializer(shape, layer.variable_dtype)
        parts = []
        for number, (device, block) in enumerate(
            zip(self.devices, self._blocks(shape[0]), strict=True)
        ):
            with _creating_on(device):
                part = layer.add_weight(
                    name=name
                    if len(self.devices) == 1
                    else f"{name}_part_{number}_of_{len(self.devices)}",
                    shape=(block.stop - block.start, *shape[1:]),
                    initializer=lambda shape, dtype, block=block: tf.cast(whole[block], dtype),
                )
            parts.append(part)
        return parts

    def assign(self, parts: Sequence[keras.Variable], values: np.ndarray) -> None:
        """Sets the parts that `add_weight` gave."""
        for part, block in zip(parts, self._blocks(len(values)), strict=True):
            part.assign(values[block])

    def of_blocks(
        self, compute: Callable[..., tf.Tensor], rows: tf.Tensor, *others: tf.Tensor
    ) -> tf.Tensor:
        """What is computed of rows int [n], and of other tensors [n, ...]: float32 [n, k].

        Args:
          compute: (number of the block, rows within it [m], those of the others [m, ...]) ->
            float32 [m, k].
          rows: of all blocks.
          others: what belongs to each row.
        """
        if len(self.devices) == 1:
            return compute(0, rows, *others)
        places, results = [], []
        for number, block in enumerate(self._blocks(self.num_rows)):
            mine = tf.where((rows >= block.start) & (rows < block.stop))
            of_mine = [tf.gather(values, mine[:, 0]) for values in (rows - block.start, *others)]
            places.append(mine)
            results.append(compute(number, *of_mine))
        values = tf.concat(results, axis=0)
        shape = tf.concat([tf.shape(rows, tf.int64), tf.shape(values, tf.int64)[1:]], axis=0)
        return tf.scatter_nd(tf.concat(places, axis=0), values, shape)

    def _blocks(self, size: int) -> list[slice]:
        """Of an axis on which each row has as many places."""
        count, of_row = len(self.devices), size // self.num_rows
        bounds = [self.num_rows * i // count * of_row for i in range(count + 1)]
        return [slice(*pair) for pair in zip(bounds[:-1], bounds[1:], strict=True)]


@contextlib.contextmanager
def _creating_on(device: str | None) -> Iterator[None]:
    """Variables are created on a device, also within a OneDeviceStrategy's scope for another."""
    if device is None:
        yield
        return
    with tf.device(device):
        there = tf.zeros([])

        def create(next_creator: Callable[..., Any], **options: Any) -> Any:
            return next_creator(**options | {"colocate_with": there})

        with tf.variable_creator_scope(create):
            yield


def computed_on(
    device: str | None,
    function: Callable[[tf.Tensor], tf.Tensor],
    values: tf.Tensor,
    *,
    variables: Sequence[keras.Variable],
) -> tf.Tensor:
    """function(values), computed on a device, with its gradient.

    A tape computes the gradients of all where it is asked for them, whatever the device of the
    operations; `tf.custom_gradient` reads the variables whole.

    Args:
      device: by name; None: where it is called.
      function: may read rows of the variables.
      values: float32.
      variables: those that get a gradient.
    """
    if device is None:
        return function(values)
    with tf.device(device), tf.GradientTape() as tape:
        tape.watch(values)
        inner = function(values)
        result = tf.identity(inner)  # for which what is recorded here replaces the tape's own

    def gradient(upstream: tf.Tensor) -> list[Any]:
        with tf.device(device):
            of_values, *of_variables = tape.gradient(
                inner, [values, *variables], output_gradients=upstream
            )
            # The rows of a tf.gather are summed before they leave the device.
            return [tf.convert_to_tensor(of_values), *of_variables]

    handles = [variable.value.handle for variable in variables]
    record.record_operation("computed_on", [result], [values, *handles], gradient)
    return result


def wholes(variables: Sequence[keras.Variable]) -> list[Any]:
    """What a checkpoint holds of variables, in their order: the same whatever the division.

    The parts of a weight, and those of an optimizer's variables for it, are one tensor, of which
    each is a slice.
    """
    groups: dict[Any, list[tf.Variable]] = {}
    for variable in variables:
        is_part = _PART.search(variable.path)
        key = _PART.sub("", variable.path) if is_part else id(variable)
        groups.setdefault(key, []).append(variable.value)
    sharded = tf.__internal__.distribute.ShardedVariable
    return [parts[0] if len(parts) == 1 else sharded(parts) for parts in groups.values()]
