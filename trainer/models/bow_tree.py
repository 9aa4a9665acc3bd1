"""A bag of embeddings whose rarer labels are in a tree: those of the best clusters are scored."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.ragged import row_ids
from beam_jobs.contract.sections.network_models import BowTreeConfig
from trainer.distribution.divided_rows import Division, computed_on
from trainer.distribution.strategy import output_devices
from trainer.distribution.variables import gather_rows
from trainer.models.bow import BagEncoder
from trainer.models.inputs import ModelInputs
from trainer.models.label_tree import NO_LABEL, cluster_labels, tree_shape
from trainer.models.layers import LogitsLayer, constant_weight
from trainer.models.towers import inputs_of_texts

# The logit of a label that is not scored: its probability is 0, whatever the loss.
NOT_SCORED = -1e4
_MIN_FREQUENCY = 1e-6  # the biases of empty slots, and of labels on every document, are finite


class TrainingShortlist(NamedTuple):
    """What a step learns from: the head labels, all clusters, and the labels of some.

    A row is a document and one of the clusters that it has a label of or that score highest for it.

    Attributes:
      head_ids: int64 [head].
      head_logits: float32 [batch, head].
      has_head: float32 [batch, head], 1 where the document has the label.
      cluster_logits: float32 [batch, clusters].
      has_cluster: float32 [batch, clusters], 1 where the document has a label of the cluster.
      documents: int64 [rows], the place of each row's document in the batch.
      label_ids: int64 [rows, slots], NO_LABEL in an empty slot.
      logits: float32 [rows, slots].
      has_label: float32 [rows, slots].
    """

    head_ids: tf.Tensor
    head_logits: tf.Tensor
    has_head: tf.Tensor
    cluster_logits: tf.Tensor
    has_cluster: tf.Tensor
    documents: tf.Tensor
    label_ids: tf.Tensor
    logits: tf.Tensor
    has_label: tf.Tensor


class BagWithLabelTree(keras.Model):
    """logit_l = w_l . v + b_l for some of the labels l, NOT_SCORED for the others.

    v is the document's vector as in `BagOfEmbeddings`; of several texts, their vectors side by
    side. The most frequent labels, the head, are always scored, as they are most of what documents
    have (as in the adaptive softmax of Grave et al. 2017). The others are in clusters, and those of
    the `beam` best clusters are scored; a cluster c scores u_c . v + a_c. The clusters are the
    leaves of a label tree (Prabhu et al. 2018, Parabel), which `set_tree` takes; until then labels
    with neighbouring ids are together. The tree is in variables, so that checkpoints and exports
    have it. A document without a known token has biases as its logits.
    """

    def __init__(self, config: BowTreeConfig, inputs: ModelInputs):
        super().__init__(name="bow_tree")
        texts = inputs_of_texts(inputs)
        self._bags = [BagEncoder(config, text) for text in texts]
        self._num_labels, self._seed = inputs.num_labels, inputs.seed
        # At least one label is in the tree.
        num_head = min(config.head_labels, inputs.num_labels - 1)
        by_frequency = np.argsort(-inputs.output_bias, kind="stable")
        head, self._tail = np.sort(by_frequency[:num_head]), np.sort(by_frequency[num_head:])
        self._num_clusters, self._num_slots = tree_shape(len(self._tail), config.cluster_labels)
        if config.output_devices > self._num_clusters:
            raise UserError(
                f"model.output_devices: received {config.output_devices}, expected at most "
                f"{self._num_clusters}, the clusters that {len(self._tail):,} labels are in"
            )
        self._beam = min(config.beam, self._num_clusters)
        # Of each label among the train documents, float64 [labels].
        self._frequency = 1 / (1 + np.exp(-inputs.output_bias.astype(np.float64)))

        slots = self.tree_of(np.zeros((inputs.num_labels, 1), np.float32))
        self._labels = constant_weight(self, "labels_of_clusters", slots)
        self._slots = constant_weight(self, "slots_of_labels", self._slots_of_labels(slots))
        self._head_ids = constant_weight(self, "head_labels", head)
        dim = config.embedding_dim * len(texts)
        cluster_bias, label_bias = self._biases(slots)
        self._head = LogitsLayer(dim, inputs.output_bias[head], seed=inputs.seed + 3)
        self._clusters = LogitsLayer(dim, cluster_bias, seed=inputs.seed + 1)
        division = Division(self._num_clusters, output_devices(config.output_devices))
        self._leaves = _LeafLogits(dim, label_bias, seed=inputs.seed + 2, division=division)
        self.built = True

    # --- the tree ----------------------------------------------------------------------

    def tree_of(self, vectors: np.ndarray) -> np.ndarray:
        """The tree of labels with vectors float32 [labels, dim]: int64 [clusters, slots]."""
        slots = cluster_labels(
            vectors[self._tail], num_clusters=self._num_clusters, seed=self._seed
        )
        return np.where(slots == NO_LABEL, NO_LABEL, self._tail[slots])

    def set_tree(self, slots: np.ndarray) -> None:
        """Takes the labels of each cluster, of `tree_of`, before the first step."""
        self._labels.assign(slots)
        self._slots.assign(self._slots_of_labels(slots))
        cluster_bias, label_bias = self._biases(slots)
        self._clusters.set_bias(cluster_bias)
        self._leaves.set_bias(label_bias)

    def _slots_of_labels(self, slots: np.ndarray) -> np.ndarray:
        """int64 [labels]: where each label is, cluster x slots + slot; -1 for those of the head."""
        of_labels = np.full(self._num_labels, -1, np.int64)
        places = np.flatnonzero(slots.reshape(-1) != NO_LABEL)
        of_labels[slots.reshape(-1)[places]] = places
        return of_labels

    def _biases(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The logits to start from, float32 [clusters] and [clusters, slots].

        They are log-odds in the train split, those of a cluster as if its labels were independent.
        """
        frequency = np.where(slots == NO_LABEL, 0.0, self._frequency[slots])
        frequency = np.clip(frequency, _MIN_FREQUENCY, 1 - _MIN_FREQUENCY)
        without = np.log1p(-frequency).sum(axis=1)  # log of the share without any of them
        of_clusters = np.minimum(-np.expm1(without), 1 - _MIN_FREQUENCY)
        cluster_bias, label_bias = (np.log(p / (1 - p)) for p in (of_clusters, frequency))
        return cluster_bias.astype(np.float32), label_bias.astype(np.float32)

    # --- documents ---------------------------------------------------------------------

    def vectors(
        self, tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...], *, training: bool = False
    ) -> tf.Tensor:
        """Document vectors float32 [batch, dim] of token ids int64 [batch, None]."""
        texts = (tokens,) if isinstance(tokens, tf.RaggedTensor) else tokens
        encoded = [
            bag(text, training=training) for bag, text in zip(self._bags, texts, strict=True)
        ]
        return tf.concat([documents.vectors for documents in encoded], axis=1)

    def call(
        self, tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...], training: bool = False
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`.

        Training takes `training_shortlist` instead, and what serves and evaluates `shortlist`.
        """
        label_ids, logits = self._shortlist(self.vectors(tokens, training=training))
        shape = [tf.shape(logits)[0], self._num_labels]
        # The maximum: an empty slot is one of label 0.
        return tf.tensor_scatter_nd_max(
            tf.fill(shape, NOT_SCORED), _cells_of_rows(label_ids), logits
        )

    @property
    def shortlist_size(self) -> int:
        """The fewest labels that are scored for a document."""
        num_head = self._num_labels - len(self._tail)
        if self._beam == self._num_clusters:
            return self._num_labels
        return num_head + self._beam * (self._num_slots - 1)

    def most_labels(self, documents: int) -> int:
        """The most labels that so many documents together are scored for."""
        num_head = self._num_labels - len(self._tail)
        return min(self._num_labels, num_head + documents * self._beam * self._num_slots)

    def shortlist(
        self, tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The labels that are scored, int64 [batch, n], and their logits, float32 [batch, n].

        Empty slots have the label 0, which may so occur twice, and the logit NOT_SCORED.
        """
        return self._shortlist(self.vectors(tokens))

    def _shortlist(self, vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        clusters = tf.math.top_k(self._clusters(vectors), self._beam, sorted=False).indices
        documents = tf.repeat(tf.range(tf.shape(clusters)[0]), self._beam)
        label_ids, logits = self._leaves_of(vectors, documents, tf.reshape(clusters, [-1]))
        logits = tf.where(label_ids == NO_LABEL, NOT_SCORED, logits)
        shape = [-1, self._beam * self._num_slots]
        head_logits = self._head(vectors)
        head_ids = tf.broadcast_to(self._head_ids.value, tf.shape(head_logits))
        return (
            tf.concat([head_ids, tf.reshape(tf.maximum(label_ids, 0), shape)], axis=1),
            tf.concat([head_logits, tf.reshape(logits, shape)], axis=1),
        )

    def _leaves_of(
        self, vectors: tf.Tensor, documents: tf.Tensor, clusters: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Label ids and logits [n, slots] of pairs of a document and a cluster, integers [n]."""
        logits = self._leaves(vectors, documents, clusters)
        return tf.gather(self._labels.value, clusters), logits

    def training_shortlist(
        self, tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...], labels: tf.RaggedTensor
    ) -> TrainingShortlist:
        """What a step learns from documents with label ids int64 [batch, None]."""
        vectors = self.vectors(tokens, training=True)
        cluster_logits = self._clusters(vectors)
        shape = tf.shape(cluster_logits)
        head_logits = self._head(vectors)
        own_slots, own_documents = (
            tf.gather(self._slots.value, labels.values),
            row_ids(labels),
        )
        is_tail = own_slots >= 0
        places = tf.searchsorted(self._head_ids.value, labels.values[~is_tail], out_type=tf.int64)
        head_cells = tf.stack([own_documents[~is_tail], places], axis=1)
        own_slots = own_slots[is_tail]
        own = tf.stack([own_documents[is_tail], own_slots // self._num_slots], axis=1)
        has_cluster = _with_ones(tf.zeros(shape), own)
        best = tf.math.top_k(tf.stop_gradient(cluster_logits), self._beam, sorted=False).indices
        chosen = _with_ones(has_cluster, _cells_of_rows(tf.cast(best, tf.int64)))

        rows = tf.where(chosen > 0)
        documents, clusters = rows[:, 0], rows[:, 1]
        label_ids, logits = self._leaves_of(vectors, documents, clusters)
        row_of_pair = tf.tensor_scatter_nd_update(
            tf.zeros(shape, tf.int64), rows, tf.range(tf.size(documents, tf.int64))
        )
        cells = tf.stack([tf.gather_nd(row_of_pair, own), own_slots % self._num_slots], axis=1)
        has_label = _with_ones(tf.zeros(tf.shape(logits)), cells)
        return TrainingShortlist(
            head_ids=tf.convert_to_tensor(self._head_ids.value),
            head_logits=head_logits,
            has_head=_with_ones(tf.zeros(tf.shape(head_logits)), head_cells),
            cluster_logits=cluster_logits,
            has_cluster=has_cluster,
            documents=documents,
            label_ids=label_ids,
            logits=logits,
            has_label=has_label,
        )


class _LeafLogits(keras.layers.Layer):
    """The logits of the labels of some clusters, in float32; see `LogitsLayer`.

    Its kernel is [clusters, slots, inputs]: the rows of a cluster's labels are side by side, and
    are read and updated at once. Each device has the weights of a block of clusters.

    Args:
      num_inputs: size of a document's vector.
      bias: float32 [clusters, slots], the first bias.
      seed: of the kernel.
      division: of the clusters.
    """

    def __init__(self, num_inputs: int, bias: np.ndarray, *, seed: int, division: Division):
        super().__init__(name="logits", dtype="float32")
        self._division, self._num_slots = division, bias.shape[1]
        # Glorot and Bengio 2010, equation 16, of a dense layer of all labels.
        limit = np.sqrt(6 / (num_inputs + bias.size))
        self._kernel = division.add_weight(
            self,
            "kernel",
            (*bias.shape, num_inputs),
            keras.initializers.RandomUniform(-limit, limit, seed=seed),
        )
        # A vector, because exports store matrices in half precision.
        self._bias = division.add_weight(
            self, "bias", (bias.size,), lambda shape, dtype: tf.constant(bias.reshape(-1), dtype)
        )
        self.built = True

    def set_bias(self, bias: np.ndarray) -> None:
        """Sets the bias, float32 [clusters, slots]."""
        self._division.assign(self._bias, bias.reshape(-1))

    def call(self, vectors: tf.Tensor, documents: tf.Tensor, clusters: tf.Tensor) -> tf.Tensor:
        """Logits float32 [n, slots] of pairs of a document and a cluster, integers [n].

        The vectors are [documents, inputs]: they, and not those of the pairs, go to the devices.
        """

        def of_block(number: int, clusters: tf.Tensor, documents: tf.Tensor) -> tf.Tensor:
            variables = kernel, bias = self._kernel[number], self._bias[number]

            def logits(vectors: tf.Tensor) -> tf.Tensor:
                of_pairs = tf.gather(vectors, documents)[:, :, tf.newaxis]
                products = tf.matmul(gather_rows(kernel, clusters), of_pairs)[:, :, 0]
                first_slots = tf.cast(clusters, tf.int64)[:, tf.newaxis] * self._num_slots
                slots = first_slots + tf.range(self._num_slots, dtype=tf.int64)
                return products + gather_rows(bias, slots)

            return computed_on(self._division.devices[number], logits, vectors, variables=variables)

        vectors = tf.cast(vectors, tf.float32)
        return self._division.of_blocks(of_block, clusters, documents)


def _cells_of_rows(columns: tf.Tensor) -> tf.Tensor:
    """int64 [batch, n, 2]: the cells of a matrix whose columns int64 [batch, n] are, by row."""
    rows = tf.range(tf.shape(columns, tf.int64)[0])[:, tf.newaxis]
    return tf.stack([tf.broadcast_to(rows, tf.shape(columns)), columns], axis=2)


def _with_ones(matrix: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """A matrix with 1 in cells int64 [..., 2], which may occur twice."""
    return tf.tensor_scatter_nd_update(matrix, cells, tf.ones(tf.shape(cells)[:-1]))
