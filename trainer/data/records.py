"""Records of a split, read outside the input pipeline."""

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from trainer.data.dataset import Dataset, compression_of
from trainer.data.shards import explain_corrupt_shards

_BATCH_RECORDS = 1024


def read_records(
    dataset: Dataset, split: str, names: Sequence[str], *, skip_corrupt: bool = False
) -> Iterator[dict[str, Any]]:
    """Yields batches of a split's records, in order, as values by feature name.

    A value is a NumPy array, or a tf.RaggedTensor if the feature is ragged. With `skip_corrupt`,
    what follows a corrupt record in its shard is left out.

    Raises:
      UserError: a shard is corrupt.
    """
    shards = dataset.fetch(dataset.shards(split))
    compression = compression_of(shards)

    def read(shard: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(shard, compression_type=compression).ignore_errors()

    if skip_corrupt:
        records = tf.data.Dataset.from_tensor_slices(shards).flat_map(read)
    else:
        records = tf.data.TFRecordDataset(shards, compression_type=compression)
    with explain_corrupt_shards(dataset, split):
        # Not in a graph: to make one takes longer than to parse a thousand records.
        for serialized in records.batch(_BATCH_RECORDS):
            parsed = dataset.record_spec.parse_batch(serialized, names)
            yield {
                name: value if isinstance(value, tf.RaggedTensor) else value.numpy()
                for name, value in parsed.items()
            }
