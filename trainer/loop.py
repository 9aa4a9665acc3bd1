"""The distributed step loop: `strategy.run` inside tf.function, several steps a call."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer.input_pipeline import Batch
from trainer.losses import Loss
from trainer.metrics import multi_hot


def make_train_steps(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    loss: Loss,
    num_labels: int,
    global_batch_size: int,
) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """The compiled training function.

    Args:
      strategy: the model's and the optimizer's.
      model: built; maps tokens to logits [batch, labels].
      optimizer: built with the model's trainable variables.
      loss: of `trainer.losses.build_loss`; padding has weight 0 in it.
      num_labels: the number of labels.
      global_batch_size: the loss is the documents' sum over this, in every step; so the gradient of a last
        batch that is padded weighs each document as any other.

    Returns:
      (iterator of distributed batches, int32 number of steps) -> float32 [steps, 2]: of each step the loss summed over
      documents, and the number of documents.
    """

    def replica_step(batch: Batch) -> tf.Tensor:
        labels = multi_hot(batch["labels"], num_labels)
        with tf.GradientTape() as tape:
            logits = model(batch["tokens"], training=True)
            loss_sum = tf.reduce_sum(loss(labels, logits, batch["weights"]))
            mean = loss_sum / global_batch_size
        gradients = tape.gradient(mean, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)  # sums the gradients of all replicas
        return tf.stack([loss_sum, tf.reduce_sum(batch["mask"])])

    def step(iterator: Any) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(replica_step, args=(next(iterator),)), axis=None)

    @tf.function(reduce_retracing=True)
    def loop(iterator: Any, steps: tf.Tensor) -> tf.Tensor:
        # One by one: their sum must not depend on how many steps a call makes.
        sums = tf.TensorArray(tf.float32, size=steps, element_shape=[2])
        for i in tf.range(steps):
            sums = sums.write(i, step(iterator))
        return sums.stack()

    if strategy.num_replicas_in_sync == 1:
        return loop
    # Sparse gradients have other sizes at each step, and TensorFlow's collectives refuse that within one call of a function
    # ("Shape mismatch in the collective instance", 2.21).
    one_step = tf.function(step, reduce_retracing=True)
    return lambda iterator, steps: tf.stack([one_step(iterator) for _ in range(int(steps))])
