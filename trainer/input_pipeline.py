"""Shards -> batches, streamed: read in parallel, shuffled, parsed and vectorized a batch at a time.

The order of an epoch is a function of the seed and the epoch's number alone, so training resumes in
the middle of an epoch by skipping what was consumed.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract import records
from trainer.dataset import Dataset

SHARDS_AT_ONCE = 8
READ_BUFFER_BYTES = 4 << 20  # 4 MiB for each open shard

# A batch is a dict:
#   tokens: tf.RaggedTensor int64 [batch, None], ids of the vectorizer (1 is out of vocabulary, 0 does not occur).
#   labels: tf.RaggedTensor int64 [batch, None], sorted label ids.
#   weights: float32 [batch], the documents' weights in the loss; 0 for padding.
#   mask: float32 [batch], 1 for a document and 0 for padding, so that each document counts once.
Batch = dict[str, Any]


def make_vectorizer(vocabulary: list[str]) -> keras.layers.TextVectorization:
    """The layer that maps analyzed strings [batch] to token ids, tf.RaggedTensor int64 [batch, None].

    The analyzer has done all cleaning: the layer only splits at spaces and looks tokens up.
    """
    return keras.layers.TextVectorization(standardize=None, split="whitespace", output_mode="int", ragged=True, vocabulary=vocabulary)


def num_steps(examples: int, global_batch_size: int) -> int:
    """Steps that see every example once; the last batch is padded."""
    return -(-examples // global_batch_size)


def train_batches(
    dataset: Dataset,
    vectorizer: keras.layers.TextVectorization,
    strategy: tf.distribute.Strategy,
    *,
    global_batch_size: int,
    shuffle_buffer: int,
    seed: int,
    epoch: int,
    first_step: int = 0,
) -> Any:
    """One epoch of the train split, shuffled, from its `first_step` on.

    Returns:
      A distributed dataset that yields, for each step, a Batch of global_batch_size / replicas to each replica.
    """
    order = np.random.default_rng([seed, epoch])
    shards = order.permutation(dataset.shards("train")).tolist()
    shuffle_seed = int(order.integers(1 << 31))
    serialized = _read(shards).shuffle(shuffle_buffer, seed=shuffle_seed, reshuffle_each_iteration=False)
    serialized = serialized.skip(first_step * global_batch_size)
    steps = num_steps(dataset.examples("train"), global_batch_size) - first_step
    return _distribute(serialized, vectorizer, strategy, global_batch_size, steps)


def evaluation_batches(
    dataset: Dataset, split: str, vectorizer: keras.layers.TextVectorization, strategy: tf.distribute.Strategy, *, global_batch_size: int
) -> Any:
    """A split in its own order, each document once; see `train_batches`."""
    steps = num_steps(dataset.examples(split), global_batch_size)
    return _distribute(_read(dataset.shards(split)), vectorizer, strategy, global_batch_size, steps)


def _read(shards: list[str]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(shards).interleave(
        lambda shard: tf.data.TFRecordDataset(shard, buffer_size=READ_BUFFER_BYTES),
        cycle_length=min(SHARDS_AT_ONCE, len(shards)),
        block_length=16,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _distribute(
    serialized: tf.data.Dataset, vectorizer: keras.layers.TextVectorization, strategy: tf.distribute.Strategy, global_batch_size: int, steps: int
) -> Any:
    """Pads the records to whole steps and gives each replica its share of every step."""
    batch_size = global_batch_size // strategy.num_replicas_in_sync
    padding = records.encode({"id": b"", "text": b"", "labels": [], "weight": 0.0})
    real = serialized.map(lambda record: (record, 1.0), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    padded = real.concatenate(tf.data.Dataset.from_tensors((padding, 0.0)).repeat()).take(steps * global_batch_size)

    def to_batch(record: tf.Tensor, mask: tf.Tensor) -> Batch:
        parsed = records.parse_batch(record, ["text", "labels", "weight"])
        return {"tokens": vectorizer(parsed["text"]), "labels": parsed["labels"], "weights": parsed["weight"], "mask": mask}

    batches = padded.batch(batch_size, drop_remainder=True).map(to_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return strategy.distribute_datasets_from_function(lambda _: batches.prefetch(tf.data.AUTOTUNE))
