"""`multihot.Dataset`: a dataset directory as Python sees it."""

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import CONFIG_FILE, Config, load_saved_config
from beam_jobs.contract.errors import UserError
from multihot.calls import as_given, python_call
from trainer.data import dataset_cache

if TYPE_CHECKING:
    import tensorflow as tf

_SHUFFLE_DOCUMENTS = 10_000


class Dataset:
    """A dataset that `multihot.preprocess`, or the command `preprocess`, has made.

    Args:
      directory: the dataset directory, or its URL.
      config: the experiment that runs on it start from; None: the one that is saved with it.

    Attributes:
      directory: as given.
      config: the experiment's.
      manifest: what the dataset holds, see `beam_jobs.contract.manifest.Manifest`.

    Raises:
      UserError: it is not a complete dataset.
    """

    def __init__(self, directory: str | os.PathLike[str], *, config: Config | None = None):
        self.directory = as_given(directory)
        with python_call(verbose=True, tensorflow=False):
            if isinstance(self.directory, Path):
                self._files, self.manifest = self.directory, manifests.load(self.directory)
            else:
                self._files, self.manifest = dataset_cache.open_remote(self.directory)
            saved = self.manifest.config_file
            self.config = config or load_saved_config(
                self._files / (saved.file if saved else CONFIG_FILE), remedy="preprocess again"
            )
        if config is None:  # it may have been moved
            output = self.config.output.model_copy(update={"dataset_dir": str(directory)})
            self.config = self.config.model_copy(update={"output": output})

    @property
    def splits(self) -> dict[str, int]:
        """The number of documents in each split."""
        return {name: split.examples for name, split in self.manifest.splits.items()}

    @property
    def label_names(self) -> list[str]:
        """By label id."""
        return [label["name"] for label in manifests.load_labels(self.manifest, self._files)]

    @property
    def label_counts(self) -> dict[str, dict[str, int]]:
        """By label, the number of documents with it in each split."""
        labels = manifests.load_labels(self.manifest, self._files)
        return {label["name"]: label["positives"] for label in labels}

    @property
    def vocabulary(self) -> list[str]:
        """Tokens, the most frequent first; token i has the id i + 2 in `tf_data`."""
        return manifests.load_vocabulary(self.manifest, self._files)

    def tf_data(
        self,
        split: str,
        *,
        inputs: Literal["text", "ids"] = "text",
        labels: Literal["multi_hot", "ids"] = "multi_hot",
        batch_size: int = 256,
        shuffle_seed: int | None = None,
        weights: bool = False,
    ) -> "tf.data.Dataset":
        """A split as batches for a Keras model of your own.

        Args:
          split: train, validation or test.
          inputs: text: analyzed texts, string [batch], their tokens joined by one space; ids: token
            ids, ragged int64 [batch, None], in which 1 is a token outside of the vocabulary and 0
            does not occur. Of several text fields that are not joined, a tuple of these.
          labels: multi_hot: float32 [batch, labels]; ids: ragged int64 [batch, None].
          batch_size: documents of a batch; the last may have fewer.
          shuffle_seed: shuffle documents, anew in each epoch, among 10,000 that follow each other;
            None: in the order of the shards.
          weights: also yield the documents' weights, float32 [batch].

        Returns:
          A dataset of (inputs, labels), or (inputs, labels, weights).

        Raises:
          UserError: there is no such split, or no such kind of inputs or labels.
        """
        _check_choice("split", split, list(self.manifest.splits))
        _check_choice("inputs", inputs, ["text", "ids"])
        _check_choice("labels", labels, ["multi_hot", "ids"])
        with python_call(verbose=True):
            import tensorflow as tf

            from trainer.data.input_pipeline import make_vectorizer
            from trainer.data.labels import multi_hot

        spec, num_labels = self.manifest.record_spec, self.manifest.num_labels
        vectorize = make_vectorizer(self.vocabulary) if inputs == "ids" else lambda texts: texts

        def to_batch(records: Any) -> tuple[Any, ...]:
            parsed = spec.parse_batch(records, [*spec.text_names, "labels", "weight"])
            texts = tuple(vectorize(parsed[name]) for name in spec.text_names)
            ids = parsed["labels"]
            y = multi_hot(ids, num_labels) if labels == "multi_hot" else ids
            batch = (texts if len(texts) > 1 else texts[0], y)
            return (*batch, parsed["weight"]) if weights else batch

        records = self._records(tf, split)
        if shuffle_seed is not None:
            records = records.shuffle(_SHUFFLE_DOCUMENTS, seed=shuffle_seed)
        batches = records.batch(batch_size).map(to_batch, num_parallel_calls=tf.data.AUTOTUNE)
        size = -(-self.splits[split] // batch_size)
        return batches.apply(tf.data.experimental.assert_cardinality(size)).prefetch(
            tf.data.AUTOTUNE
        )

    def _records(self, tf: Any, split: str) -> "tf.data.Dataset":
        from trainer.data.dataset import compression_of

        infos = self.manifest.splits[split].shards
        if not isinstance(self.directory, Path):
            with python_call(verbose=True):
                dataset_cache.fetch(self.directory, self._files, infos)
        shards = [str(self._files / info.file) for info in infos]
        return tf.data.TFRecordDataset(shards, compression_type=compression_of(shards))

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        return (
            f"<multihot.Dataset {self.directory}: {splits}; {self.manifest.num_labels:,} labels, "
            f"{self.manifest.vocabulary_size:,} tokens>"
        )

    def _repr_html_(self) -> str:
        cells = {**self.splits, "labels": self.manifest.num_labels}
        cells["tokens"] = self.manifest.vocabulary_size
        head = "".join(f"<th>{name}</th>" for name in cells)
        row = "".join(f"<td>{count:,}</td>" for count in cells.values())
        place = html.escape(str(self.directory))
        return f"<table><caption>{place}</caption><tr>{head}</tr><tr>{row}</tr></table>"


def _check_choice(what: str, received: str, expected: list[str]) -> None:
    if received not in expected:
        raise UserError(f"{what}: received {received!r}, expected {' or '.join(expected)}")
