"""The distributed step loop: `strategy.run` inside tf.function, several steps a call."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.errors import UserError
from trainer.data.input_pipeline import Batch
from trainer.data.labels import multi_hot
from trainer.distribution.variables import computed_where
from trainer.experiment import Experiment
from trainer.losses.losses import Loss
from trainer.losses.sampled_negatives import LabelSampler
from trainer.models.bow_tree import BagWithLabelTree
from trainer.models.weighted_sums import recorded_gradients
from trainer.training.exchange import GradientExchange, exchanges
from trainer.training.shortlist_loss import shortlist_loss
from trainer.training.sparse_gradients import add_gradients


def make_train_steps(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    loss: Loss,
    num_labels: int,
    global_batch_size: int,
    accumulate_steps: int = 1,
    sampler: LabelSampler | None = None,
    is_learned: np.ndarray | None = None,
) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """The compiled training function.

    Args:
      strategy: the model's and the optimizer's.
      model: built; maps tokens to logits [batch, labels].
      optimizer: of `trainer.training.optimizers.build_optimizer`, built with the model's trainable
        variables.
      loss: of `trainer.losses.losses.build_loss`; padding has weight 0 in it.
      num_labels: the number of labels.
      global_batch_size: the loss is the documents' sum over this, in every step; so the gradient of
        a last batch that is padded weighs each document as any other.
      accumulate_steps: passes that each replica's share of a step is taken in; they divide it.
      sampler: draws the negatives; the model's `call` then takes the labels whose logits it is to
        give. None: all labels are taken.
      is_learned: bool [labels]; of the others documents teach nothing. None: of all they do.

    Returns:
      (iterator of distributed batches, int32 number of steps) -> float32 [steps, 2 or 3]: of each
      step the loss summed over documents, and the number of documents; among workers on CPUs, also
      the bytes that each has sent.
    """
    # No XLA: on a CPU the dense part (forward, loss, gradient; TensorFlow 2.21) took 1.03
    # (transformer) to 3.0 times (lstm) the processor time of the plain graph, and it compiles anew
    # for each length of a padded batch. Ragged and sparse operations it does not compile.
    pass_size = global_batch_size // strategy.num_replicas_in_sync // accumulate_steps

    loss_of = _loss_of_batches(model, optimizer, loss, num_labels, sampler, is_learned)

    def gradients_of(batch: Batch) -> tuple[tf.Tensor, list[Any]]:
        with tf.GradientTape() as tape:
            loss_sum = loss_of(batch)
            mean = optimizer.scale_loss(loss_sum / global_batch_size)
        return loss_sum, tape.gradient(mean, model.trainable_variables)

    exchange = None
    if exchanges(strategy):
        replicas = strategy.num_replicas_in_sync
        exchange = GradientExchange(replicas, documents=global_batch_size // replicas)
    optimizer.takes_sums = exchange is not None

    def replica_step(batch: Batch) -> tf.Tensor:
        with recorded_gradients() as sums:
            if accumulate_steps == 1:
                loss_sum, gradients = gradients_of(batch)
            else:
                loss_sum, gradients = _accumulate(
                    model.trainable_variables, gradients_of, batch, pass_size
                )
        result = tf.stack([loss_sum, tf.reduce_sum(batch["mask"])])
        if exchange:
            shapes = [variable.shape for variable in model.trainable_variables]
            gradients, result, sent = exchange.sum(gradients, sums, result, shapes=shapes)
            result = tf.concat([result, sent[None]], 0)
        optimizer.apply(gradients, model.trainable_variables)  # sums them, unless they are sums
        return result

    def step(iterator: Any) -> tf.Tensor:
        result = strategy.run(replica_step, args=(next(iterator),))
        return result if exchange else strategy.reduce("SUM", result, axis=None)

    @tf.function(reduce_retracing=True)
    def loop(iterator: Any, steps: tf.Tensor) -> tf.Tensor:
        # One by one: their sum must not depend on how many steps a call makes.
        sums = tf.TensorArray(tf.float32, size=steps, element_shape=[3 if exchange else 2])
        for i in tf.range(steps):
            sums = sums.write(i, step(iterator))
        return sums.stack()

    if exchange or strategy.num_replicas_in_sync == 1:
        return loop
    # Sparse gradients have other sizes at each step, and TensorFlow's collectives refuse that
    # within one call of a function ("Shape mismatch in the collective instance", 2.21).
    one_step = tf.function(step, reduce_retracing=True)
    return lambda iterator, steps: tf.stack([one_step(iterator) for _ in range(int(steps))])


def _loss_of_batches(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: Loss,
    num_labels: int,
    sampler: LabelSampler | None,
    is_learned: np.ndarray | None,
) -> Callable[[Batch], tf.Tensor]:
    """A batch -> its loss summed over documents, float32 []; see `make_train_steps`."""

    def loss_of(batch: Batch) -> tf.Tensor:
        if isinstance(model, BagWithLabelTree):
            return shortlist_loss(model, batch, loss)
        if sampler is None:
            candidates, labels, options = None, multi_hot(batch["labels"], num_labels), {}
        else:
            candidates, labels = sampler.candidates(batch["labels"], optimizer.iterations.value)
            options = {"label_ids": candidates.label_ids}
        logits = model(batch["tokens"], training=True, **options)
        if is_learned is not None:
            learned = tf.constant(is_learned)
            if candidates is not None:
                learned = tf.gather(learned, candidates.label_ids)
            logits = tf.where(learned, logits, tf.stop_gradient(logits))
        return tf.reduce_sum(loss(labels, logits, batch["weights"], candidates))

    return loss_of


def _accumulate(
    variables: Sequence[keras.Variable],
    gradients_of: Callable[[Batch], tuple[tf.Tensor, list[Any]]],
    batch: Batch,
    pass_size: int,
) -> tuple[tf.Tensor, list[Any]]:
    """The sums of loss and gradients over the passes of a batch, each of `pass_size` documents."""
    loss_sum, gradients = tf.constant(0.0), [None] * len(variables)
    for start in range(0, batch["mask"].shape[0], pass_size):
        sums = [loss_sum, *(gradient for gradient in gradients if gradient is not None)]
        # In sequence, or the activations of all passes would be in memory at once.
        with tf.control_dependencies(tf.nest.flatten(sums, expand_composites=True)):
            part = tf.nest.map_structure(
                lambda values, start=start: values[start : start + pass_size], batch
            )
            part_loss, part_gradients = gradients_of(part)
        loss_sum += part_loss
        gradients = [
            computed_where(variable, add_gradients, total, added)
            for total, added, variable in zip(gradients, part_gradients, variables, strict=True)
        ]
    return loss_sum, gradients


def make_label_sampler(experiment: Experiment) -> LabelSampler | None:
    """The sampler of `loss.negatives: sampled`; None: the loss takes all labels.

    Raises:
      UserError: the model cannot give the logits of some labels alone.
    """
    config = experiment.config
    if config.loss.negatives == "all":
        return None
    parameters = inspect.signature(experiment.model.call).parameters
    if "label_ids" not in parameters:
        renamed = (
            "; its parameter `labels` is now called `label_ids`" if "labels" in parameters else ""
        )
        raise UserError(
            f"loss.negatives: received 'sampled', and the model {config.model.name} cannot give "
            "the logits of some labels alone; "
            "expected `call(tokens, training=False, label_ids=None)`, which returns the logits of "
            f"those labels, int64 [n]{renamed}"
        )
    return LabelSampler(
        experiment.dataset.label_counts("train"),
        num_sampled=config.loss.num_sampled,
        seed=config.train.seed,
    )
