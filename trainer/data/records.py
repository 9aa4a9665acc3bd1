"""Records of a split, read outside the input pipeline."""

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from trainer.data.dataset import Dataset, compression_of
from trainer.data.shards import explain_corrupt_shards

_BATCH_RECORDS = 1024


def read_records(dataset: Dataset, split: str, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields batches of a split's records, in order, as values by feature name.

    A value is a NumPy array, or a tf.RaggedTensor if the feature is ragged.

    Raises:
      UserError: a shard is corrupt.
    """
    shards = dataset.shards(split)
    records = tf.data.TFRecordDataset(shards, compression_type=compression_of(shards))
    batches = records.batch(_BATCH_RECORDS).map(
        lambda serialized: dataset.record_spec.parse_batch(serialized, names)
    )
    with explain_corrupt_shards(dataset, split):
        for parsed in batches:
            yield {
                name: value if isinstance(value, tf.RaggedTensor) else value.numpy()
                for name, value in parsed.items()
            }
