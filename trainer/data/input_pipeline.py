"""Shards -> batches, streamed: read in parallel, shuffled, parsed and vectorized a batch at a time.

The order of an epoch is a function of the seed and the epoch's number alone, so training resumes in
the middle of an epoch by skipping what was consumed.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.records import RecordSpec
from trainer.data.dataset import Dataset, compression_of
from trainer.data.length_bucketing import group_by_length
from trainer.data.shards import SplitPlan, plan_split, shuffled_at_once
from trainer.distribution.strategy import num_workers, worker_index

SHARDS_AT_ONCE = 8
READ_BLOCK = 16  # records of a shard that follow each other
READ_BUFFER_BYTES = 4 << 20  # 4 MiB for each open shard

# A batch is a dict:
#   tokens: tf.RaggedTensor int64 [batch, None], ids of the vectorizer (1 is out of vocabulary,
#     0 does not occur); a tuple of them if documents have several texts. Where documents are
#     encoded already, float32 [batch, size], their vectors.
#   labels: tf.RaggedTensor int64 [batch, None], sorted label ids.
#   weights: float32 [batch], the documents' weights in the loss; 0 for padding.
#   mask: float32 [batch], 1 for a document and 0 for padding, so that each document counts once.
#   lengths: int64 [batch], the tokens of each document; in annotated batches only.
Batch = dict[str, Any]


def make_vectorizer(vocabulary: list[str]) -> keras.layers.TextVectorization:
    """The layer that maps analyzed strings [batch] to token ids.

    They are a tf.RaggedTensor int64 [batch, None].

    The analyzer has done all cleaning: the layer only splits at spaces and looks tokens up.
    """
    vectorizer = keras.layers.TextVectorization(
        standardize=None,
        split=_split_at_spaces,
        output_mode="int",
        ragged=True,
        vocabulary=vocabulary,
    )
    # No token is empty, and the search for empty ones takes half as long as the look-up.
    vectorizer._lookup_layer.mask_token = None
    return vectorizer


def _split_at_spaces(texts: tf.Tensor) -> tf.RaggedTensor:
    """Strings [batch] -> their tokens [batch, None].

    It takes 0.6 times as long as tf.strings.split, which also knows other white space.
    """
    indices, tokens, _ = tf.raw_ops.StringSplit(input=texts, delimiter=" ")
    splits = tf.searchsorted(
        indices[:, 0], tf.range(tf.size(texts, tf.int64) + 1), out_type=tf.int64
    )
    return tf.RaggedTensor.from_row_splits(tokens, splits, validate=False)


def token_ids(
    vectorizer: Callable[[tf.Tensor], Any], texts: Sequence[tf.Tensor]
) -> tf.RaggedTensor | tuple[tf.RaggedTensor, ...]:
    """Analyzed strings [batch] of each text field -> the argument of the model.

    It is the token ids; a tuple of them if there are several fields.
    """
    tokens = tuple(vectorizer(text) for text in texts)
    return tokens if len(tokens) > 1 else tokens[0]


def train_batches(
    dataset: Dataset,
    vectorizer: Callable[[tf.Tensor], Any],
    strategy: tf.distribute.Strategy,
    *,
    plan: SplitPlan,
    global_batch_size: int,
    shuffle_buffer: int,
    seed: int,
    epoch: int,
    first_step: int = 0,
    skip_corrupt: bool = False,
    length_bucket_steps: int = 1,
) -> Any:
    """One epoch of the train split, shuffled, from its `first_step` on.

    Args:
      dataset: the dataset.
      vectorizer: analyzed strings -> token ids.
      strategy: the run's.
      plan: how the split is divided among the workers.
      global_batch_size: documents a step, over all replicas.
      shuffle_buffer: documents in the shuffle buffer of each worker, fewer where they are so long
        that it would hold more than 1 GiB.
      seed: the run's.
      epoch: from 0.
      first_step: steps of the epoch that are done.
      skip_corrupt: leave out what follows a corrupt record in its shard; otherwise it raises
        tf.errors.DataLossError.
      length_bucket_steps: steps whose documents are sorted by length together, see
        `trainer.data.length_bucketing`.

    Returns:
      A distributed dataset that yields, for each step, a Batch of global_batch_size / replicas to
      each replica; after the last document it yields padding, endlessly.
    """
    order = np.random.default_rng([seed, epoch])
    shards = plan.by_file[worker_index(strategy)] if plan.by_file else dataset.shards("train")
    shards = order.permutation(dataset.fetch(shards)).tolist()
    shuffle_seed = int(order.integers(1 << 31))
    serialized = _read(shards, skip_corrupt=skip_corrupt).shuffle(
        shuffled_at_once(dataset.manifest.splits["train"].shards, shuffle_buffer),
        seed=shuffle_seed,
        reshuffle_each_iteration=False,
    )
    options = {
        "first_step": first_step,
        "length_bucket_steps": length_bucket_steps,
        "seed": shuffle_seed,
    }
    return _distribute(
        serialized, dataset.record_spec, vectorizer, strategy, plan, global_batch_size, **options
    )


def evaluation_batches(
    dataset: Dataset,
    split: str,
    vectorizer: Callable[[tf.Tensor], Any],
    strategy: tf.distribute.Strategy,
    *,
    global_batch_size: int,
    plan: SplitPlan | None = None,
    annotate: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]] | None = None,
) -> Any:
    """A split in its own order, each document once over all workers, for `plan.steps` steps.

    See `train_batches`.

    `annotate`: parsed records -> further entries of a Batch, numbers only, because no string goes
    to a GPU; it runs on the CPU.
    """
    plan = plan or plan_split(
        dataset, split, num_workers=num_workers(strategy), global_batch_size=global_batch_size
    )
    shards = plan.by_file[worker_index(strategy)] if plan.by_file else dataset.shards(split)
    return _distribute(
        _read(dataset.fetch(shards)),
        dataset.record_spec,
        vectorizer,
        strategy,
        plan,
        global_batch_size,
        last_step=plan.steps,
        annotate=annotate,
    )


def _read(shards: Sequence[str], *, skip_corrupt: bool = False) -> tf.data.Dataset:
    compression = compression_of(shards)

    @tf.autograph.experimental.do_not_convert
    def read_shard(shard: tf.Tensor) -> tf.data.Dataset:
        serialized = tf.data.TFRecordDataset(
            shard, compression_type=compression, buffer_size=READ_BUFFER_BYTES
        )
        return (serialized.ignore_errors() if skip_corrupt else serialized).batch(READ_BLOCK)

    return (
        tf.data.Dataset.from_tensor_slices(tf.constant(shards, tf.string, shape=[len(shards)]))
        .interleave(
            read_shard,
            cycle_length=max(1, min(SHARDS_AT_ONCE, len(shards))),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .unbatch()
    )


def _distribute(
    serialized: tf.data.Dataset,
    record_spec: RecordSpec,
    vectorizer: Callable[[tf.Tensor], Any],
    strategy: tf.distribute.Strategy,
    plan: SplitPlan,
    global_batch_size: int,
    *,
    first_step: int = 0,
    last_step: int | None = None,
    length_bucket_steps: int = 1,
    seed: int = 0,
    annotate: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]] | None = None,
) -> Any:
    """Pads the records to whole steps, and gives each replica its share of every step."""
    workers, worker = num_workers(strategy), worker_index(strategy)
    worker_replicas = strategy.num_replicas_in_sync // workers
    replica_batch_size = global_batch_size // strategy.num_replicas_in_sync
    padding = _padding_record(record_spec)

    @tf.autograph.experimental.do_not_convert  # reading it takes longer than a thousand documents
    def to_batch(records: tf.Tensor) -> Batch:
        missing = tf.repeat(padding, replica_batch_size - tf.size(records))
        records = tf.ensure_shape(tf.concat([records, missing], axis=0), [replica_batch_size])
        batch = _parse_batch(records, record_spec, vectorizer, annotate)
        return batch | {"mask": tf.cast(records != padding, tf.float32)}

    step_size = global_batch_size // workers if plan.by_file else global_batch_size
    records = serialized.skip(first_step // length_bucket_steps * length_bucket_steps * step_size)
    if length_bucket_steps > 1:
        records = group_by_length(
            records.concatenate(tf.data.Dataset.from_tensors(padding).repeat()),
            batch_size=step_size,
            batches=plan.steps,
            first_batch=first_step,
            bucket_steps=length_bucket_steps,
            seed=seed,
        )
    # Records are padded batch by batch: one by one would cost a twentieth of the whole.
    batches = records.batch(replica_batch_size).concatenate(
        tf.data.Dataset.from_tensors(tf.constant([], tf.string)).repeat()
    )
    if workers > 1 and not plan.by_file:
        own = batches.enumerate().filter(
            lambda index, _: index // worker_replicas % workers == worker
        )
        batches = own.map(lambda _, record: record)
    batches = batches.map(to_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if last_step is not None:
        batches = batches.take((last_step - first_step) * worker_replicas)
    else:
        # Several workers would ask each other at every step whether a dataset that may end has.
        batches = batches.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
    return strategy.distribute_datasets_from_function(lambda _: batches.prefetch(tf.data.AUTOTUNE))


def _parse_batch(
    records: tf.Tensor,
    record_spec: RecordSpec,
    vectorizer: Callable[[tf.Tensor], Any],
    annotate: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]] | None,
) -> Batch:
    """Serialized records [batch] -> their tokens, labels, weights and annotations."""
    features = None if annotate else [*record_spec.input_names, "labels", "weight"]
    parsed = record_spec.parse_batch(records, features)
    batch = {
        "tokens": token_ids(vectorizer, [parsed[name] for name in record_spec.input_names]),
        "labels": parsed["labels"],
        "weights": parsed["weight"],
    }
    if annotate:
        texts = [parsed[name] for name in record_spec.text_names]
        batch |= {"lengths": _lengths(batch["tokens"], texts), **annotate(parsed)}
    return batch


def _lengths(tokens: Any, texts: Sequence[tf.Tensor]) -> tf.Tensor:
    """int64 [batch]: the tokens of all texts of each document."""
    parts = tokens if isinstance(tokens, tuple) else (tokens,)
    if not isinstance(parts[0], tf.RaggedTensor):  # they are vectors
        parts = map(_split_at_spaces, texts)
    return tf.add_n([part.row_lengths() for part in parts])


def _padding_record(record_spec: RecordSpec) -> bytes:
    """A record that no document has, because each document has a token."""
    strings = (*record_spec.text_names, *record_spec.metadata_names)
    return record_spec.encode(
        {"id": b"", "labels": [], "weight": 0.0, **dict.fromkeys(strings, b"")}
    )


class BatchIterator:
    """Iterates over distributed batches; at the end it is deleted in a thread of its own.

    Among several workers TensorFlow 2.21 takes up to a minute to delete the iterator of an epoch
    (seen in half the epochs, in tf.data's RootDataset::Iterator::~Iterator), and all workers wait
    for the one that does. The process waits for the thread when it ends: a thread that Python ends
    within TensorFlow's code aborts the process ("exception not rethrown").

    Args:
      batches: of `train_batches` or `evaluation_batches`.

    Attributes:
      iterator: what the compiled step takes its batches from. Nothing else may refer to it when the
        `with` block ends.
    """

    def __init__(self, batches: Any):
        self.iterator = iter(batches)

    def __enter__(self) -> "BatchIterator":
        return self

    def __exit__(self, exception_type, *exc_info) -> None:
        if exception_type is None:
            # The list then holds the only reference, which the thread drops.
            references = [self.iterator]
            del self.iterator
            threading.Thread(target=references.clear).start()
