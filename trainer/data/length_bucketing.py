"""Batches of documents of similar length, so that models that pad to the longest pad less."""

import tensorflow as tf


def group_by_length(
    records: tf.data.Dataset,
    *,
    batch_size: int,
    batches: int,
    first_batch: int,
    bucket_steps: int,
    seed: int,
) -> tf.data.Dataset:
    """Sorts the documents of several batches by length, and cuts them into batches anew.

    The batches of such a bucket come in a random order.

    The order of a bucket is decided by its documents, the seed and its index in the epoch. A
    document's length is that of its record, in bytes, for which nothing needs to be split.

    Args:
      records: strings, endless, from the first batch of the bucket of `first_batch` on.
      batch_size: records of a batch.
      batches: of the epoch; the records after them are left out.
      first_batch: the batch of the epoch that the result starts with.
      bucket_steps: batches that are sorted together.
      seed: of the order of batches.
    """
    first_bucket = first_batch // bucket_steps

    def permute(index: tf.Tensor, bucket: tf.Tensor) -> tf.Tensor:
        record = tf.reshape(bucket, [-1])
        by_length = tf.reshape(tf.argsort(tf.strings.length(record), stable=True), [-1, batch_size])
        keys = tf.random.stateless_uniform(
            [tf.shape(by_length)[0]], seed=tf.stack([tf.constant(seed, tf.int64), index])
        )
        order = tf.reshape(tf.gather(by_length, tf.argsort(keys, stable=True)), [-1])
        return tf.gather(record, order)

    buckets = (
        records.batch(batch_size, drop_remainder=True)
        .take(batches - first_bucket * bucket_steps)
        .batch(bucket_steps)
    )
    permuted = (
        buckets.enumerate(first_bucket)
        .map(permute, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .unbatch()
    )
    return permuted.skip((first_batch - first_bucket * bucket_steps) * batch_size)
