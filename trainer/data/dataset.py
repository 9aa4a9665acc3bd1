"""A dataset directory, opened for training."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract import places
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import Manifest
from beam_jobs.contract.records import RecordSpec
from trainer.data import dataset_cache


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A complete dataset, whose files are read when they are needed.

    Attributes:
      directory: the dataset directory; of a dataset on a store, a folder of the cache.
      manifest: its manifest, checked.
      place: where the dataset is.
      vectors: directory of shards of the same names whose records also have vectors, see
        `trainer.document_vectors`; None: the shards are the dataset's own.
      known_labels: those that the model knows something of without a train document.
    """

    directory: Path
    manifest: Manifest
    place: str = ""
    vectors: Path | None = None
    known_labels: frozenset[str] = frozenset()

    def num_examples(self, split: str) -> int:
        """The number of documents in a split."""
        return self.manifest.splits[split].examples

    def shards(self, split: str) -> list[str]:
        """Paths of the split's shards, in order; `fetch` them before they are read."""
        directory = self.vectors or self.directory
        return [str(directory / shard.file) for shard in self.manifest.splits[split].shards]

    def fetch(self, shards: Sequence[str]) -> Sequence[str]:
        """The paths, once the shards are there; those of a dataset on a store are downloaded."""
        if self.vectors is None and places.is_remote(self.place):
            infos = {
                str(self.directory / shard.file): shard
                for split in self.manifest.splits.values()
                for shard in split.shards
            }
            dataset_cache.fetch(self.place, self.directory, [infos[path] for path in shards])
        return shards

    @property
    def record_spec(self) -> RecordSpec:
        """What the records hold."""
        manifest = self.manifest
        return RecordSpec(
            manifest.text_fields, manifest.metadata_fields, with_vectors=self.vectors is not None
        )

    @property
    def num_labels(self) -> int:
        return self.manifest.num_labels

    @functools.cached_property
    def labels(self) -> list[dict[str, Any]]:
        """By label id: {"name": str, "positives": {split: int}}."""
        return manifests.load_labels(self.manifest, self.directory)

    @property
    def label_names(self) -> list[str]:
        """By label id."""
        return [label["name"] for label in self.labels]

    def label_counts(self, split: str) -> np.ndarray:
        """int64 [labels]: documents of the split with each label."""
        return np.array([label["positives"][split] for label in self.labels], np.int64)

    @property
    def is_trained(self) -> np.ndarray:
        """bool [labels]: whether the model knows something of the label, by train documents or
        otherwise; the others are left out of what is given.
        """
        return (self.label_counts("train") > 0) | self._is_known

    @property
    def is_learned(self) -> np.ndarray:
        """bool [labels]: whether training changes what the model knows of the label.

        It does not where there is no train document, and something is known otherwise.
        """
        return (self.label_counts("train") > 0) | ~self._is_known

    @property
    def _is_known(self) -> np.ndarray:
        return np.array([name in self.known_labels for name in self.label_names], bool)

    @functools.cached_property
    def vocabulary(self) -> list[str]:
        """Tokens, most frequent first."""
        return manifests.load_vocabulary(self.manifest, self.directory)

    @functools.cached_property
    def document_counts(self) -> np.ndarray:
        """int64 [vocabulary]: train documents with each token."""
        return manifests.load_document_counts(self.manifest, self.directory)

    @functools.cached_property
    def ngrams(self) -> list[tuple[int, ...]]:
        """Of each n-gram, the indices of its tokens in the vocabulary; the most frequent first.

        Empty if the dataset has no n-grams.
        """
        index_of = {token: index for index, token in enumerate(self.vocabulary)}
        return [
            tuple(index_of[token] for token in ngram)
            for ngram in manifests.load_ngrams(self.manifest, self.directory)
        ]

    @functools.cached_property
    def ngram_document_counts(self) -> np.ndarray:
        """int64 [n-grams]: train documents with each n-gram."""
        counts = manifests.load_ngram_document_counts(self.manifest, self.directory)
        return np.zeros(0, np.int64) if counts is None else counts


def open_dataset(config: Config) -> Dataset:
    """The dataset of an experiment.

    Raises:
      UserError: it is missing, damaged, or was made with another config.
    """
    place = config.output.dataset_dir
    if places.is_remote(place):
        directory, manifest = dataset_cache.open_remote(place)
    else:
        directory, manifest = Path(place), manifests.load(place)
    manifests.check_same_dataset(manifest, config.dataset_config(), place)
    if not manifest.vocabulary_size:
        raise UserError(
            f"the dataset {place} has an empty vocabulary; look at vocabulary.min_document_count"
        )
    return Dataset(directory, manifest, place)


def compression_of(shards: Sequence[str]) -> str:
    """The `compression_type` of tf.data.TFRecordDataset for shards: "GZIP", or "" for none."""
    return "GZIP" if shards and shards[0].endswith(".gz") else ""
