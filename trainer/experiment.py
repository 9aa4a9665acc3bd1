"""The parts of an experiment, built from its config: dataset, strategy, vectorizer, model."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract import encoder_tokenizer, named_files
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.linear_model import LinearConfig
from beam_jobs.contract.sections.model import CustomConfig
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from trainer.auto import resolve
from trainer.data.dataset import Dataset, open_dataset
from trainer.data.folds import take_fold
from trainer.data.input_pipeline import make_vectorizer
from trainer.distribution.strategy import check_agreement, is_chief, make_strategy
from trainer.losses import label_weights
from trainer.losses.prior_correction import prior_correction, undo_loss_weighting
from trainer.models import VocabularyStatistics, build_model
from trainer.models.backbones import Encoder, build_encoder, load_encoder
from trainer.runs import remote_directory
from trainer.runs.checkpoints import Checkpoints, RunState, has_begun, saved_sizes
from trainer.runs.directories import with_directories
from trainer.runs.layout import EARLIER_RUN, ENCODER, NAMED_FILES


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that training, evaluation and export share.

    Attributes:
      config: it has the directories that are really written to, see
        `trainer.runs.directories.with_directories`, and names a model.
      vectorizer: strings of records -> what the model reads of them: token ids of texts, or see
        `trainer.document_vectors`.
      auto: what `model.name: auto` has chosen and why, for people; empty: nothing.
    """

    config: Config
    dataset: Dataset
    strategy: tf.distribute.Strategy
    vectorizer: Callable[[tf.Tensor], Any]
    model: keras.Model
    auto: str = ""

    @property
    def run_dir(self) -> Path:
        """The run directory; of one on a store, the local copy."""
        return remote_directory.local(self.config.train.run_dir)

    @property
    def run_place(self) -> str:
        """Where the run directory is, for people."""
        return self.config.train.run_dir

    @property
    def has_own_code(self) -> bool:
        """Whether the model is the user's, which may need AutoGraph: to read ours takes seconds."""
        return isinstance(self.config.model, CustomConfig)

    @property
    def describes_labels(self) -> bool:
        """Whether the last layer starts from texts of the labels, see `label_descriptions`."""
        return _describes_labels(self.config)

    def push(self) -> None:
        """Puts what the chief has changed in the copy of a run directory on a store."""
        if is_chief(self.strategy):
            remote_directory.push(self.config.train.run_dir)

    @property
    def loss_statistics(self) -> dict[str, Any]:
        """What the loss depends on: keyword arguments of the functions of `trainer.losses`."""
        return {
            "positives": self.dataset.label_counts("train"),
            "num_documents": self.dataset.num_examples("train"),
            "label_names": self.dataset.label_names,
        }

    @functools.cached_property
    def _prior_correction(self) -> np.ndarray:
        return prior_correction(self.config.loss, **self.loss_statistics)

    def log_odds(self, logits: tf.Tensor, label_ids: tf.Tensor | None = None) -> tf.Tensor:
        """Logits [batch, labels] -> log-odds, float32 [batch, labels].

        Or those [batch, n] of some labels: int64 [n], or [batch, n] where each document has others.

        The effect of the loss's weights on the logits is undone. A linear model's are calibrated
        when it is fitted.
        """
        if isinstance(self.config.model, LinearConfig):
            return tf.cast(logits, tf.float32)
        correction = tf.constant(self._prior_correction)
        if label_ids is not None:
            correction = tf.gather(correction, label_ids)
        return undo_loss_weighting(self.config.loss, logits, correction=correction)

    def scores(self, tokens: tf.RaggedTensor) -> tf.Tensor:
        """Token ids [batch, None] -> probabilities, float32 [batch, labels], not yet calibrated."""
        return tf.sigmoid(self.log_odds(self.model(tokens, training=False)))


def assemble(config: Config, *, for_training: bool = False, fresh: bool = False) -> Experiment:
    """Opens the dataset and builds the model with its initial weights, in the strategy's scope.

    Args:
      config: the experiment.
      for_training: read `model.pretrained_vectors`, which a checkpoint would hold, and compute in
        `train.precision`.
      fresh: what an earlier run in the run directory is made of does not count.

    Raises:
      UserError: the dataset cannot be opened, or the strategy cannot be made.
    """
    config = with_directories(config, os.environ)
    dataset = open_dataset(config)
    config, auto = resolve(config, dataset, fresh=fresh)
    if config.train.fold is not None:
        dataset = take_fold(
            dataset,
            fold=config.train.fold,
            folds=config.train.folds,
            repeat=config.train.fold_repeat,
        )
    known = _known_labels(config, dataset, for_training=for_training, fresh=fresh)
    dataset = dataclasses.replace(dataset, known_labels=known)
    strategy = make_strategy(
        config.train, num_output_devices=getattr(config.model, "output_devices", 1)
    )
    check_agreement(strategy, _fingerprint(config.to_yaml()), what="their configs")
    check_agreement(
        strategy, _fingerprint(dataset.manifest.model_dump_json()), what="their datasets"
    )
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.train.seed)
    bias = label_weights.output_bias(dataset.label_counts("train"), dataset.num_examples("train"))
    with strategy.scope(), computing_in(config.train.precision if for_training else "float32"):
        model = build_model(
            config.model,
            vocabulary=vocabulary_statistics(dataset),
            num_labels=dataset.num_labels,
            output_bias=bias,
            seed=config.train.seed,
            num_texts=len(dataset.record_spec.text_names),
            with_pretrained=for_training,
            sizes=saved_sizes(remote_directory.local(config.train.run_dir))
            if isinstance(config.model, LinearConfig)
            else None,
            encoder=_encoder(config, dataset, for_training=for_training)
            if isinstance(config.model, PretrainedConfig)
            else None,
            tokenizer=dataset.manifest.analyzer.encoder_tokenizer,
        )
    return Experiment(config, dataset, strategy, make_vectorizer(dataset.vocabulary), model, auto)


def _describes_labels(config: Config) -> bool:
    return (
        isinstance(config.model, PretrainedConfig) and config.model.label_descriptions is not None
    )


def _known_labels(
    config: Config, dataset: Dataset, *, for_training: bool, fresh: bool
) -> frozenset[str]:
    """The labels that a model knows from their texts, or a run from the one it started from."""
    if _describes_labels(config):
        return frozenset(dataset.label_names)
    run_dir = remote_directory.local(config.train.run_dir)
    if for_training and (fresh or not has_begun(run_dir)):
        return frozenset()
    try:
        return frozenset(json.loads((run_dir / EARLIER_RUN).read_text("utf-8"))["kept_labels"])
    except FileNotFoundError:
        return frozenset()


def _encoder(config: Config, dataset: Dataset, *, for_training: bool) -> Encoder:
    """The encoder of `model.name: pretrained`: with its weights for training, else as the run in
    the run directory has it, whose checkpoints hold them.

    Raises:
      UserError: it cannot be read, its tokenizer is not the dataset's, or there is no such run.
    """
    if not for_training:
        path = remote_directory.local(config.train.run_dir) / ENCODER
        if not path.exists():
            raise _no_model(config.train.run_dir)
        return build_encoder(json.loads(path.read_text(encoding="utf-8")))
    own = encoder_tokenizer.read_tokenizer(config.encoder_directory, key="model.backbone")
    if own != dataset.manifest.analyzer.encoder_tokenizer:
        raise UserError(
            f"model.backbone: the tokenizer of {config.encoder_directory} differs from the one "
            f"that the dataset {dataset.place} was made with, of {config.text.tokenizer}; "
            "expected the same: make the dataset with text.tokenizer: "
            f"{config.encoder_directory}, or leave model.backbone out"
        )
    return load_encoder(config.encoder_directory)


def vocabulary_statistics(dataset: Dataset) -> VocabularyStatistics:
    """What models depend on in the dataset's vocabulary."""
    return VocabularyStatistics(
        size=len(dataset.vocabulary),
        document_counts=dataset.document_counts,
        num_documents=dataset.num_examples("train"),
        tokens=dataset.vocabulary,
        ngrams=dataset.ngrams,
        ngram_document_counts=dataset.ngram_document_counts,
    )


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """The layers that are made while it is entered have float32 weights and compute in "
    "`precision`."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def _fingerprint(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def changed_files(experiment: Experiment) -> list[str]:
    """The files named in the config whose content is not what the run began with."""
    saved = experiment.run_dir / NAMED_FILES
    if not saved.exists():
        return []
    return named_files.describe_changes(
        json.loads(saved.read_text(encoding="utf-8")),
        named_files.hash_files(experiment.config, named_files.RUN_KEYS),
        experiment.config,
    )


def restore_best(experiment: Experiment) -> RunState:
    """Gives the model the weights of the best epoch.

    Raises:
      UserError: the run has no checkpoint, or one of another model, or a file that the config
        names has changed since.
    """
    if changed := changed_files(experiment):
        raise UserError(
            f"the run in {experiment.run_place} was trained with other content of "
            f"{' and '.join(changed)}; set it back, or train again with --fresh"
        )
    state = None
    if experiment.run_dir.is_dir():
        state = Checkpoints(
            experiment.run_dir, experiment.model, optimizer=None, strategy=experiment.strategy
        ).restore_best()
    if state is None:
        raise _no_model(experiment.run_place)
    return state


def _no_model(run_dir: str) -> UserError:
    return UserError(
        f"train.run_dir: {run_dir} holds no trained model; expected one that "
        "`python -m trainer.task train` has written"
    )
