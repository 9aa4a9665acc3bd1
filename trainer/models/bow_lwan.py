"""A bag of embeddings, and a label-wise attention over the labels that it scores highest."""

import keras
import tensorflow as tf

from beam_jobs.contract.sections.network_models import BowLwanConfig
from trainer.models.bow import BagOfEmbeddings, EncodedBags
from trainer.models.inputs import ModelInputs
from trainer.models.label_attention import LabelAttention
from trainer.models.layers import seeds
from trainer.models.towers import inputs_of_texts


class BagWithLabelAttention(keras.Model):
    """logit_l = bow_l + attention_l for the labels l with the highest bow_l, bow_l for the others.

    `BagOfEmbeddings` gives all logits, and its best `candidates` labels are each document's
    shortlist, on which `LabelAttention` adds its logits; both are trained together. The choice has
    no gradient. The attention's cost grows with the candidates, not with the labels (as that of
    You et al. 2019, AttentionXML, whose candidates come from a label tree). A document without
    tokens has the bias as its logits.

    Of several texts, each has a bag and an attention of its own, whose logits are summed: the
    candidates are those of all bags together.

    Of `label_ids` the logits are the same as among all labels: the bag scores all of them, without
    a gradient, to know which are candidates.
    """

    def __init__(self, config: BowLwanConfig, inputs: ModelInputs):
        super().__init__(name="bow_lwan")
        dim = config.convolution_dim or config.embedding_dim
        self._bags, self._attentions = [], []
        for text in inputs_of_texts(inputs):
            self._bags.append(BagOfEmbeddings(config, text))
            self._attentions.append(LabelAttention(config, text, dim=dim, seed=seeds(text.seed)))
        self._num_labels = inputs.num_labels
        self._num_candidates = min(config.candidates, inputs.num_labels)
        self.built = True

    def call(
        self,
        tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...],
        training: bool = False,
        label_ids: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`."""
        texts = (tokens,) if isinstance(tokens, tf.RaggedTensor) else tokens
        documents = [
            bag.encode(text, training=training) for bag, text in zip(self._bags, texts, strict=True)
        ]
        logits = self._bag_logits(documents, label_ids)
        all_logits = logits if label_ids is None else self._bag_logits(documents)
        candidates = tf.math.top_k(
            tf.stop_gradient(all_logits), self._num_candidates, sorted=False
        ).indices

        if label_ids is None:
            label_ids, positions = tf.unique(tf.reshape(candidates, [-1]))
            positions = tf.reshape(positions, tf.shape(candidates))
            return _add_at(logits, candidates, self._added(texts, label_ids, positions, training))
        position_of = tf.tensor_scatter_nd_update(
            tf.fill([self._num_labels], -1), label_ids[:, None], tf.range(tf.size(label_ids))
        )
        positions = tf.gather(position_of, candidates)
        is_given, positions = positions >= 0, tf.maximum(positions, 0)
        added = self._added(texts, label_ids, positions, training)
        return _add_at(logits, positions, tf.where(is_given, added, 0.0))

    def _bag_logits(
        self, documents: list[EncodedBags], label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The logits of the bags, float32 [batch, labels], or [batch, n] of `label_ids`."""
        return tf.add_n(
            [bag.logits(text, label_ids) for bag, text in zip(self._bags, documents, strict=True)]
        )

    def _added(
        self,
        texts: tuple[tf.RaggedTensor, ...],
        label_ids: tf.Tensor,
        candidates: tf.Tensor,
        training: bool,
    ) -> tf.Tensor:
        """The logits of the attentions, see `LabelAttention.of_candidates`."""
        return tf.add_n(
            [
                attention.of_candidates(text, label_ids, candidates, training=training)
                for attention, text in zip(self._attentions, texts, strict=True)
            ]
        )


def _add_at(logits: tf.Tensor, columns: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Adds values [batch, n] to the columns int32 [batch, n] of logits [batch, labels]."""
    documents = tf.broadcast_to(tf.range(tf.shape(logits)[0])[:, None], tf.shape(columns))
    return tf.tensor_scatter_nd_add(logits, tf.stack([documents, columns], axis=2), values)
