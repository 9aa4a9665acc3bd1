"""Batches of documents of like length, so that models that pad to the longest pad less."""

import tensorflow as tf


def group_by_length(
    records: tf.data.Dataset,
    *,
    batch_size: int,
    batches: int,
    first_batch: int,
    window: int,
    seed: int,
) -> tf.data.Dataset:
    """The same documents in another order: those of some batches are sorted by length and cut into batches anew, in a random order.

    The order of a window follows from its documents, the seed and its place in the epoch. A document's length is that of its record, in
    bytes: nothing needs to be split for it.

    Args:
      records: strings, without end, from the first batch of the window of `first_batch` on.
      batch_size: records of a batch.
      batches: of the epoch; what comes after them is left out.
      first_batch: the batch of the epoch that the result starts with.
      window: batches that are sorted together.
      seed: of the order of batches.
    """
    first_window = first_batch // window

    def permute(place: tf.Tensor, window_of: tf.Tensor) -> tf.Tensor:
        record = tf.reshape(window_of, [-1])
        by_length = tf.reshape(tf.argsort(tf.strings.length(record), stable=True), [-1, batch_size])
        keys = tf.random.stateless_uniform(
            [tf.shape(by_length)[0]], seed=tf.stack([tf.constant(seed, tf.int64), place])
        )
        order = tf.reshape(tf.gather(by_length, tf.argsort(keys, stable=True)), [-1])
        return tf.gather(record, order)

    whole = (
        records.batch(batch_size, drop_remainder=True)
        .take(batches - first_window * window)
        .batch(window)
    )
    permuted = (
        whole.enumerate(first_window)
        .map(permute, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .unbatch()
    )
    return permuted.skip((first_batch - first_window * window) * batch_size)
