"""Sums and concatenations over workers, within a compiled step."""

import tensorflow as tf

_GROUP = 1 << 20  # TensorFlow's strategies number their groups of devices from 1


def _capacities() -> list[int]:
    capacities = [0, 64]
    while capacities[-1] < 1 << 30:
        capacities.append(capacities[-1] * 9 // 8)
    return capacities


_CAPACITIES = _capacities()


class Collectives:
    """Exchanges tensors among workers of one CPU replica each; of one step of a compiled function.

    TensorFlow's strategies give each exchange a new key whenever a function is called. So a
    function that makes several steps uses a key several times, and TensorFlow refuses that where
    sizes differ ("Shape mismatch in the collective instance", 2.21); and the workers agree on each
    new key by a call to the first, which takes as long as the exchange of a small tensor. Here
    exchanges of one place in a step and of one size have one key, and sizes are rounded up to one
    of a few.

    Each worker must make the same exchanges; the order of those that are independent may differ.

    Args:
      workers: how many there are.

    Attributes:
      sent_bytes: float32 [], what a worker sends by the exchanges that have been made.
    """

    def __init__(self, workers: int):
        self.workers = workers
        self.sent_bytes = tf.constant(0.0)
        self._places = 0

    def gather(self, values: tf.Tensor) -> tf.Tensor:
        """Values [n, ...] of all workers, [workers, n, ...]; their shape is static and equal."""
        self._count(values, self.workers - 1)
        gathered = tf.raw_ops.CollectiveGatherV2(input=values, **self._options(0))
        return tf.reshape(gathered, [self.workers, *values.shape])

    def gather_padded(self, values: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Values [n, ...] of all workers, padded with 0: [workers, n', ...], n' at least `size`.

        Args:
          values: whose first dimension differs among workers.
          size: int32 [], the largest of them, equal on all workers.
        """
        place = tf.searchsorted(_CAPACITIES, [size])[0]
        capacity = tf.gather(_CAPACITIES, place)
        missing = [[0, capacity - tf.shape(values)[0]], *[[0, 0]] * (values.shape.rank - 1)]
        padded = tf.pad(values, missing)
        self._count(padded, self.workers - 1)
        gathered = tf.raw_ops.CollectiveGatherV2(input=padded, **self._options(place))
        return tf.reshape(gathered, [self.workers, capacity, *values.shape[1:]])

    def sum(self, values: tf.Tensor) -> tf.Tensor:
        """The sum over the workers of values, whose shape is static and equal."""
        self._count(values, 2 * (self.workers - 1) / self.workers)
        return tf.raw_ops.CollectiveReduceV2(
            input=values, merge_op="Add", final_op="Id", **self._options(0)
        )

    def _count(self, values: tf.Tensor, times: float) -> None:
        self.sent_bytes += tf.cast(tf.size(values), tf.float32) * values.dtype.size * times

    def _options(self, size_index: tf.Tensor | int) -> dict:
        first_key, self._places = self._places * len(_CAPACITIES), self._places + 1
        return {
            "group_size": self.workers,
            "group_key": _GROUP,
            "instance_key": first_key + size_index,
            "ordering_token": [],
            "communication_hint": "ring",
        }
