"""The speed of a model's steps: from shards, and with batches that are in memory."""

import dataclasses
import resource
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trainer.data.input_pipeline import train_batches
from trainer.data.shards import plan_split
from trainer.experiment import assemble
from trainer.losses import losses
from trainer.training.optimizers import build_optimizer
from trainer.training.train_step import make_train_steps

KEPT_STEPS = 8  # whose batches a step alone is measured on


@dataclasses.dataclass(frozen=True)
class Speed:
    """Documents per second of wall time, and of the processor time of all cores.

    The latter varies less if other programs use the machine.
    """

    documents: int
    seconds: float
    core_seconds: float

    @property
    def rate(self) -> float:
        return self.documents / max(self.seconds, 1e-9)

    @property
    def rate_of_core(self) -> float:
        return self.documents / max(self.core_seconds, 1e-9)

    def __str__(self) -> str:
        return f"{self.rate:>9,.0f}/s {self.rate_of_core:>9,.0f}/core s"


def clock(documents: int, work: Callable[[], Any]) -> Speed:
    """The speed of `work`, which handles so many documents."""
    started, core_started = time.monotonic(), _core_seconds()
    work()
    return Speed(documents, time.monotonic() - started, _core_seconds() - core_started)


def _core_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Training:
    """A model and its step, on the dataset of a config.

    Args:
      config: it names the dataset.
      changed: what the step uses in place of the model, made of it.
    """

    def __init__(self, config, changed: Callable[[Any], Any] = lambda model: model):
        self.experiment = assemble(config, for_training=True)
        experiment, train = self.experiment, config.train
        self.plan = plan_split(
            experiment.dataset, "train", num_workers=1, global_batch_size=train.batch_size
        )
        with experiment.strategy.scope():
            self.optimizer = build_optimizer(config.optimizer, epoch_steps=self.plan.steps)
            self.optimizer.build(experiment.model.trainable_variables)
        loss = losses.build_loss(config.loss, **experiment.loss_statistics)
        sizes = {"num_labels": experiment.dataset.num_labels, "global_batch_size": train.batch_size}
        self._steps = make_train_steps(
            experiment.strategy,
            changed(experiment.model),
            self.optimizer,
            loss=loss,
            **sizes,
        )

    def batches(self, epoch: int):
        train = self.experiment.config.train
        options = {
            "global_batch_size": train.batch_size,
            "shuffle_buffer": train.shuffle_buffer,
            "seed": 0,
        }
        return train_batches(
            self.experiment.dataset,
            self.experiment.vectorizer,
            self.experiment.strategy,
            plan=self.plan,
            epoch=epoch,
            **options,
        )

    def speed(self, iterator, steps: int) -> Speed:
        """The speed of some steps, after two that compile the function and fill the buffers."""
        self.run(iterator, 2)
        return clock(
            steps * self.experiment.config.train.batch_size, lambda: self.run(iterator, steps)
        )

    def run(self, iterator, steps: int) -> None:
        """Trains some steps."""
        self._steps(iterator, tf.constant(steps)).numpy()

    def kept_batches(self) -> list[Any]:
        """The batches of the first steps, those of all replicas one by one."""
        strategy = self.experiment.strategy
        replicas = range(strategy.num_replicas_in_sync)
        return [
            {key: strategy.experimental_local_results(value)[i] for key, value in batch.items()}
            for batch, _ in zip(self.batches(0), range(KEPT_STEPS), strict=False)
            for i in replicas
        ]

    def from_memory(self, kept: list[Any] | None = None):
        """An iterator that repeats batches from memory: those that are given, or the first."""
        kept = kept or self.kept_batches()
        dataset = tf.data.Dataset.from_tensors(kept[0])
        for batch in kept[1:]:
            dataset = dataset.concatenate(tf.data.Dataset.from_tensors(batch))
        dataset = (
            dataset.cache()
            .repeat()
            .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        )
        return iter(self.experiment.strategy.distribute_datasets_from_function(lambda _: dataset))
