"""Documents encoded once: the vectors of an encoder that is not trained, kept beside the records.

The vectors of a shard are in a shard of the same name and order, whose records are the dataset's
with one feature more. They are in a directory that is named by a hash of all that decides them: a
run with the same encoder and dataset finds them, and one that was killed goes on with the shards
that are missing.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from beam_jobs.contract import places
from beam_jobs.contract.atomic import rename, temporary_path
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.records import VECTOR, RecordSpec
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from trainer.data.dataset import compression_of
from trainer.data.input_pipeline import token_ids
from trainer.data.shards import explain_corrupt_shards
from trainer.distribution.strategy import is_chief, num_workers, sum_over_workers, worker_index
from trainer.experiment import Experiment

_WINDOW_DOCUMENTS = 4096  # sorted by length together, so that batches pad little
_BATCH_TOKENS = 8192  # of a batch, with its padding


def with_vectors(experiment: Experiment, splits: Sequence[str]) -> Experiment:
    """An experiment whose model reads vectors in place of tokens, where its encoder is not trained.

    Documents are encoded that are not yet, each shard by one worker. Every worker calls it, and all
    return when all shards are there.

    Args:
      experiment: any; its encoder has the weights that it is to have.
      splits: those that are read.

    Returns:
      The experiment with another dataset and vectorizer, or as it is if its documents are not
      encoded once, see `PretrainedConfig.encodes_once`.

    Raises:
      UserError: the vectors cannot be written where all workers see them, or a shard is corrupt.
    """
    config = experiment.config.model
    if not isinstance(config, PretrainedConfig) or not config.encodes_once:
        return experiment
    workers, place = num_workers(experiment.strategy), experiment.dataset.place
    if workers > 1 and places.is_remote(place) and not config.cache_dir:
        raise UserError(
            f"model.cache_dir: received none for {workers} workers and the dataset {place}, of "
            "which each encodes a part for all; expected a directory on a disk that all see"
        )
    directory = _directory(experiment)
    failure = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _encode_missing(experiment, splits, directory)
    except OSError as error:
        failure = UserError(
            f"model.cache_dir: cannot write vectors in {directory}: {error.strerror}; expected a "
            "directory that you may write to"
        )
    except UserError as error:
        failure = error
    if sum_over_workers(experiment.strategy, int(failure is not None)):
        raise failure or UserError("another worker could not encode its documents and says why")
    return dataclasses.replace(
        experiment,
        dataset=dataclasses.replace(experiment.dataset, vectors=directory),
        vectorizer=VectorReader(experiment.model.vector_size),
    )


@dataclasses.dataclass(frozen=True)
class VectorReader:
    """The feature `vector`: bytes [batch] -> float32 [batch, size]; of no bytes, zeros."""

    size: int

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        numbers = tf.io.decode_raw(values, tf.float32, fixed_length=4 * self.size)
        return tf.ensure_shape(numbers, [None, self.size])


def _directory(experiment: Experiment) -> Path:
    """Where the vectors of a dataset by an encoder are."""
    config, manifest, model = experiment.config, experiment.dataset.manifest, experiment.model
    description = model.encoder_description
    backbone = description["backbone"]
    # The name counts the encoders that a process has built.
    options = {key: value for key, value in backbone["config"].items() if key != "name"}
    decisive = {
        "backbone": [backbone["registered_name"], options],
        "weights": description["weights_sha256"],
        "computes_in": model.compute_dtype,
        "pooling": model.pooling,
        "max_tokens": config.model.max_tokens,
        "tokenizer": manifest.named_files.get("text.tokenizer"),
        "shards": sorted(
            (shard.file, shard.sha256)
            for split in manifest.splits.values()
            for shard in split.shards
        ),
    }
    if config.model.window is not None:
        decisive["windows"] = [
            config.model.window,
            config.model.stride or config.model.window - 2,
            config.model.window_pooling,
        ]
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    place = config.output.dataset_dir
    beside = f"{place.rstrip('/')}.vectors"
    if places.is_remote(place):
        beside = str(places.cache_directory() / "vectors")
    return Path(config.model.cache_dir or beside) / digest[:16]


def _encode_missing(experiment: Experiment, splits: Sequence[str], directory: Path) -> None:
    """Encodes the shards of this worker that are not there yet."""
    dataset, strategy = experiment.dataset, experiment.strategy
    workers, worker = num_workers(strategy), worker_index(strategy)
    for split in splits:
        shards = [
            shard
            for index, shard in enumerate(dataset.manifest.splits[split].shards)
            if index % workers == worker and not (directory / shard.file).exists()
        ]
        total, done, started = sum(shard.examples for shard in shards), 0, time.monotonic()
        what = f"encoding {split}"
        with ProgressLine(what) as progress, explain_corrupt_shards(dataset, split):
            for shard in shards:
                dataset.fetch([str(dataset.directory / shard.file)])
                encoder = _ShardEncoder(experiment, skip_corrupt=_skips(experiment, split))
                for number in encoder.write(dataset.directory / shard.file, directory / shard.file):
                    done += number
                    rate = done / (time.monotonic() - started)
                    if is_chief(strategy):
                        status = f"{done:,} of {total:,} documents, {rate:,.0f} documents/s"
                        progress.update(done, total, status)
        if shards and is_chief(strategy):
            seconds = time.monotonic() - started
            print(f"encoded {done:,} {split} documents in {seconds:.1f} s, kept in {directory}")


def _skips(experiment: Experiment, split: str) -> bool:
    return split == "train" and experiment.config.train.on_corrupt == "skip"


class _ShardEncoder:
    """Encodes shards with the experiment's model, on one device.

    Args:
      experiment: the experiment.
      skip_corrupt: leave out what follows a corrupt record.
    """

    def __init__(self, experiment: Experiment, *, skip_corrupt: bool):
        self._skip_corrupt = skip_corrupt
        manifest, model = experiment.dataset.manifest, experiment.model
        self._names = experiment.dataset.record_spec.text_names
        self._spec = RecordSpec(manifest.text_fields, manifest.metadata_fields)
        self._vectorizer = experiment.vectorizer
        signature = [tf.RaggedTensorSpec([None, None], tf.int64)] * len(self._names)
        self._encode = tf.function(
            lambda *texts: model.encode(texts, training=False), input_signature=signature
        )

    def write(self, source: Path, target: Path) -> Iterator[int]:
        """Writes the shard with vectors, whole or not at all; yields numbers of documents."""
        compression = compression_of([str(source)])
        records = tf.data.TFRecordDataset(str(source), compression_type=compression)
        if self._skip_corrupt:
            records = records.ignore_errors()
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(target)
        try:
            with tf.io.TFRecordWriter(str(temporary), options=compression) as writer:
                for window in records.batch(_WINDOW_DOCUMENTS):
                    vectors = np.empty((len(window), 0), "<f4")
                    for rows, encoded in self._encoded(window):
                        if not vectors.size:
                            vectors = np.empty((len(window), encoded.shape[1]), "<f4")
                        vectors[rows] = encoded
                        yield len(rows)
                    for record, vector in zip(window.numpy(), vectors, strict=True):
                        writer.write(_with_vector(record, vector))
            rename(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _encoded(self, window: tf.Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of the window, and their vectors, in batches of documents of like length."""
        parsed = self._spec.parse_batch(window, self._names)
        texts = token_ids(self._vectorizer, [parsed[name] for name in self._names])
        texts = texts if isinstance(texts, tuple) else (texts,)
        lengths = np.max([text.row_lengths().numpy() for text in texts], axis=0)
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            number = max(1, _BATCH_TOKENS // (int(lengths[order[start]]) + 2))
            rows = order[start : start + number]
            yield rows, self._encode(*(tf.gather(text, rows) for text in texts)).numpy()
            start += number


def _with_vector(record: bytes, vector: np.ndarray) -> bytes:
    from tensorflow.core.example import example_pb2

    example = example_pb2.Example.FromString(record)
    example.features.feature[VECTOR].bytes_list.value.append(vector.tobytes())
    return example.SerializeToString(deterministic=True)
