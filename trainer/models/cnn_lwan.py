"""CAML: a convolution, then attention over the document, per label (Mullenbach et al. 2018)."""

import keras
import tensorflow as tf

from beam_jobs.contract.sections.network_models import CnnLwanConfig
from trainer.models.inputs import ModelInputs
from trainer.models.label_attention import LabelAttention
from trainer.models.layers import rows_of, seeds


class LabelAttentionNetwork(keras.Model):
    """The logits of `LabelAttention`, plus each label's bias.

    A document without tokens has the bias as its logits.
    """

    def __init__(self, config: CnnLwanConfig, inputs: ModelInputs):
        super().__init__(name="cnn_lwan")
        self._attention = LabelAttention(
            config, inputs, dim=config.embedding_dim, seed=seeds(inputs.seed)
        )
        self._bias = self.add_weight(
            name="labels_bias",
            shape=(inputs.num_labels,),
            initializer=lambda shape, dtype: tf.constant(inputs.output_bias, dtype),
        )
        self.built = True

    def call(
        self, tokens: tf.RaggedTensor, training: bool = False, label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`."""
        logits = self._attention(tokens, training=training, label_ids=label_ids)
        return logits + tf.cast(rows_of(self._bias, label_ids), tf.float32)
