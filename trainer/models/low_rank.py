"""Low-rank updates that are trained in the place of an encoder's own weights.

Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models. A kernel W is W + A B, of which
A and B alone are trained; B starts at 0. Keras parts the last axis of a kernel from the others, so
that of the kernels of queries, keys and values, [dim, heads, dim of a head], each head has an A of
its own and all heads share B.
"""

import gc
from collections.abc import Iterator, Sequence

import keras

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.pretrained_model import LoraTargets

_QUERY_VALUE = {"query", "value"}
_ALL = _QUERY_VALUE | {
    "key",
    "attention_output",
    "feedforward_intermediate_dense",
    "feedforward_output_dense",
}
_DENSE_LAYERS: dict[LoraTargets, set[str]] = {"query_value": _QUERY_VALUE, "all": _ALL}


def add_updates(
    layers: Sequence[keras.layers.Layer],
    *,
    rank: int,
    targets: LoraTargets,
    dim: int,
    seed: Iterator[int],
) -> None:
    """Has updates trained, with the biases beside them, and nothing else of the layers.

    Args:
      layers: of attention; built.
      rank: columns of A, and rows of B.
      targets: which of their dense layers.
      dim: size of a state.
      seed: of the A, which start uniform with the variance of a layer of `dim` inputs.

    Raises:
      UserError: a layer has none of these dense layers.
    """
    limit = (6 / dim) ** 0.5
    for layer in layers:
        found = [part for part in _parts(layer) if part.name in _DENSE_LAYERS[targets]]
        if not found:
            raise UserError(
                f"model.lora_rank: received {rank}, and the encoder's layer {layer.name} has no "
                f"dense layer called {' or '.join(sorted(_DENSE_LAYERS[targets]))}; expected null"
            )
        for part in _parts(layer):
            part.trainable = False
        for part in found:
            part.trainable = True
            # In the layer's scope, for `optimizer.layer_decay` reads its number from the path.
            with keras.name_scope(layer.name):
                part.enable_lora(
                    rank,
                    a_initializer=keras.initializers.RandomUniform(-limit, limit, seed=next(seed)),
                )


def merge_updates(network: keras.Model) -> None:
    """Adds the updates to the weights; the network is then one that never had any."""
    gc.freeze()  # Keras searches for garbage at each weight that is deleted
    try:
        for part in _parts(network):
            if getattr(part, "lora_enabled", False):
                kernel = next(weight for weight in part.weights if weight.name == "kernel")
                kernel.assign(part.kernel)
                part.lora_enabled = False
                del part.lora_kernel_a, part.lora_kernel_b
    finally:
        gc.unfreeze()


def _parts(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    return list(layer._flatten_layers(include_self=False))
