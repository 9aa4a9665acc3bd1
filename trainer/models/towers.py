"""Documents with several texts: a tower for each text."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from trainer.models.inputs import ModelInputs


def inputs_of_texts(inputs: ModelInputs) -> list[ModelInputs]:
    """What a model of each text alone is built from: the first has the output bias."""
    if inputs.num_texts == 1:
        return [inputs]
    seeds = np.random.SeedSequence(inputs.seed).generate_state(inputs.num_texts) >> 1
    biases = [inputs.output_bias] + [np.zeros_like(inputs.output_bias)] * (inputs.num_texts - 1)
    return [
        dataclasses.replace(inputs, output_bias=bias, seed=seed, num_texts=1)
        for bias, seed in zip(biases, seeds.tolist(), strict=True)
    ]


class Towers(keras.Model):
    """Logits = sum over the texts of the logits of a model of its own for each.

    The last layer of every architecture is linear in the document's vector, so this is that
    architecture with one last layer over the concatenated vectors of all texts. The first tower has
    the output bias.

    Args:
      architecture: `ModelInputs` -> a model of one text.
      inputs: what the data and the run decide.
    """

    def __init__(self, architecture: Callable[[ModelInputs], keras.Model], inputs: ModelInputs):
        super().__init__(name="towers")
        self._towers = [architecture(text) for text in inputs_of_texts(inputs)]
        self.built = True

    def call(
        self,
        tokens: tuple[tf.RaggedTensor, ...],
        training: bool = False,
        label_ids: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of the token ids int64 [batch, None] of each text."""
        return tf.add_n(
            [
                tower(text, training=training, label_ids=label_ids)
                for tower, text in zip(self._towers, tokens, strict=True)
            ]
        )
