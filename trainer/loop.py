"""The distributed step loop: `strategy.run` inside tf.function, several steps a call."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer.input_pipeline import Batch
from trainer.losses import weighted_bce
from trainer.metrics import multi_hot


def make_train_steps(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    pos_weight: tf.Tensor,
    global_batch_size: int,
) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """The compiled training function.

    Args:
      strategy: the model's and the optimizer's.
      model: built; maps tokens to logits [batch, labels].
      optimizer: built with the model's trainable variables.
      pos_weight: float32 [labels], weights of the positives.
      global_batch_size: the loss is the documents' sum over this, in every step; so the gradient of a last
        batch that is padded weighs each document as any other.

    Returns:
      (iterator of distributed batches, int32 number of steps) -> float32 [2]: the loss summed over documents, and
      the number of documents.
    """

    def replica_step(batch: Batch) -> tf.Tensor:
        labels = multi_hot(batch["labels"], pos_weight.shape[0])
        with tf.GradientTape() as tape:
            logits = model(batch["tokens"], training=True)
            # Padding has weight 0.
            loss_sum = tf.reduce_sum(weighted_bce(labels, logits, pos_weight=pos_weight, document_weights=batch["weights"]))
            loss = loss_sum / global_batch_size
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)  # sums the gradients of all replicas
        return tf.stack([loss_sum, tf.reduce_sum(batch["mask"])])

    @tf.function(reduce_retracing=True)
    def train_steps(iterator: Any, steps: tf.Tensor) -> tf.Tensor:
        total = tf.zeros([2])
        for _ in tf.range(steps):
            total += strategy.reduce("SUM", strategy.run(replica_step, args=(next(iterator),)), axis=None)
        return total

    return train_steps
