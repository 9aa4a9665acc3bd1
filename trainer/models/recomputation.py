"""Gradient checkpointing: activations of a layer are computed again when its gradient is.

Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost: of each layer its input alone is
kept, for one more forward pass.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from beam_jobs.contract.errors import UserError

_PARAMETERS = {"inputs", "padding_mask", "attention_mask", "training", "return_attention_scores"}


def recompute(layer: keras.layers.Layer) -> None:
    """Has a built layer's activations computed again, with the same units dropped, in training.

    tf.recompute_grad alone would draw other units: the states of dropout's seeds go in as values,
    and come out. Weights go in as values too, which works on the replicas of every strategy.

    Raises:
      UserError: the layer takes more than states and masks, of which gradients would be lost.
    """
    call = layer.call
    if unknown := set(inspect.signature(call).parameters) - _PARAMETERS:
        raise UserError(
            f"model.gradient_checkpointing: received true, and the encoder's layer {layer.name} "
            f"takes {' and '.join(sorted(unknown))} beside states; expected false"
        )
    weights = list(layer.trainable_variables)
    seeds = [
        state for state in layer.non_trainable_variables if state.name == "seed_generator_state"
    ]

    def in_training(states: tf.Tensor, **options: Any) -> tf.Tensor:
        # Read once: both passes drop the same units.
        values_of_seeds = [tf.identity(seed.value) for seed in seeds]

        @tf.recompute_grad
        def run(states: tf.Tensor, *values: tf.Tensor) -> tuple[tf.Tensor, ...]:
            pairs = [*zip(weights, values, strict=True), *zip(seeds, values_of_seeds, strict=True)]
            with keras.StatelessScope(pairs) as scope:
                result = call(states, **options)
            return result, *(scope.get_current_value(seed) for seed in seeds)

        result, *after = run(states, *(tf.convert_to_tensor(weight.value) for weight in weights))
        for seed, value in zip(seeds, after, strict=True):
            seed.assign(value)
        return tf.ensure_shape(result, states.shape)

    layer.call = _of_mode(call, in_training)


def _of_mode(call: Callable[..., tf.Tensor], in_training: Callable[..., tf.Tensor]) -> Callable:
    def of_mode(states: tf.Tensor, training: bool | None = None, **options: Any) -> tf.Tensor:
        function = in_training if training else call
        return function(states, training=training, **options)

    return of_mode
