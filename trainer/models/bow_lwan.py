"""A bag of embeddings, and a label-wise attention over the labels that it scores highest."""

import keras
import tensorflow as tf

from beam_jobs.contract.training_config import BowLwanConfig
from trainer.models.bow import BagOfEmbeddings
from trainer.models.inputs import ModelInputs
from trainer.models.label_attention import LabelAttention
from trainer.models.layers import seeds


class BagWithLabelAttention(keras.Model):
    """logit_l = bow_l + attention_l for the labels l with the highest bow_l, bow_l for the others.

    `BagOfEmbeddings` gives all logits, and its best `candidates` labels are each document's
    shortlist, on which `LabelAttention` adds its logits; both are trained together. The choice has
    no gradient. The attention's cost grows with the candidates, not with the labels (as the
    shortlists of You et al. 2019, AttentionXML, whose candidates come from a label tree trained
    before). A document without tokens has the bias as its logits.

    Of `label_ids` the logits are the same as among all labels: the bag scores all of them, without
    a gradient, to know which are candidates.
    """

    def __init__(self, config: BowLwanConfig, inputs: ModelInputs):
        super().__init__(name="bow_lwan")
        self._bow = BagOfEmbeddings(config, inputs)
        self._attention = LabelAttention(
            config,
            inputs,
            dim=config.convolution_dim or config.embedding_dim,
            seed=seeds(inputs.seed),
        )
        self._num_labels = inputs.num_labels
        self._num_candidates = min(config.candidates, inputs.num_labels)
        self.built = True

    def call(
        self, tokens: tf.RaggedTensor, training: bool = False, label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`."""
        documents = self._bow.encode(tokens, training=training)
        logits = self._bow.logits(documents, label_ids)
        all_logits = logits if label_ids is None else self._bow.logits(documents)
        candidates = tf.math.top_k(
            tf.stop_gradient(all_logits), self._num_candidates, sorted=False
        ).indices
        if label_ids is None:
            rows, positions = tf.unique(tf.reshape(candidates, [-1]))
            positions = tf.reshape(positions, tf.shape(candidates))
            added = self._attention.of_candidates(tokens, rows, positions, training=training)
            return _add_at(logits, candidates, added)
        position_of = tf.tensor_scatter_nd_update(
            tf.fill([self._num_labels], -1), label_ids[:, None], tf.range(tf.size(label_ids))
        )
        positions = tf.gather(position_of, candidates)
        is_given, positions = positions >= 0, tf.maximum(positions, 0)
        added = self._attention.of_candidates(tokens, label_ids, positions, training=training)
        return _add_at(logits, positions, tf.where(is_given, added, 0.0))


def _add_at(logits: tf.Tensor, columns: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Adds values [batch, n] to the columns int32 [batch, n] of logits [batch, labels]."""
    documents = tf.broadcast_to(tf.range(tf.shape(logits)[0])[:, None], tf.shape(columns))
    return tf.tensor_scatter_nd_add(logits, tf.stack([documents, columns], axis=2), values)
