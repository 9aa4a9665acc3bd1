"""The parts of an experiment, put together from its config: dataset, strategy, vectorizer, model."""

import dataclasses
from pathlib import Path

import keras
import tensorflow as tf

from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from trainer import losses
from trainer.checkpoints import Checkpoints, RunState
from trainer.dataset import Dataset, open_dataset
from trainer.input_pipeline import make_vectorizer
from trainer.models import VocabularyStatistics, build_model
from trainer.strategy import make_strategy


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that training, evaluation and export share."""

    config: Config
    dataset: Dataset
    strategy: tf.distribute.Strategy
    vectorizer: keras.layers.TextVectorization
    model: keras.Model

    @property
    def run_dir(self) -> Path:
        return Path(self.config.train.run_dir)


def assemble(config: Config) -> Experiment:
    """Opens the dataset and builds the model with its first weights, under the strategy's scope.

    Raises:
      UserError: the dataset or the strategy cannot be had.
    """
    dataset = open_dataset(config)
    strategy = make_strategy(config.train)
    keras.utils.set_random_seed(config.train.seed)
    statistics = VocabularyStatistics(size=len(dataset.vocabulary), document_counts=dataset.document_counts, num_documents=dataset.examples("train"))
    bias = losses.output_bias(dataset.positives("train"), dataset.examples("train"))
    with strategy.scope():
        model = build_model(config.model, vocabulary=statistics, num_labels=dataset.num_labels, output_bias=bias, seed=config.train.seed)
    return Experiment(config, dataset, strategy, make_vectorizer(dataset.vocabulary), model)


def restore_best(experiment: Experiment) -> RunState:
    """Gives the model the weights of the best epoch.

    Raises:
      UserError: the run has no checkpoint, or one of another model.
    """
    state = None
    if experiment.run_dir.is_dir():
        with experiment.strategy.scope():
            state = Checkpoints(experiment.run_dir, experiment.model, optimizer=None).restore_best()
    if state is None:
        raise UserError(f"train.run_dir: {experiment.run_dir} holds no trained model; expected one that `python -m trainer.task train` has written")
    return state
