"""The loss of a model with a label tree: of head labels and clusters, and of some labels."""

import tensorflow as tf

from beam_jobs.contract.sections.loss import SquaredHingeConfig
from trainer.data.input_pipeline import Batch
from trainer.losses.losses import Loss, build_loss
from trainer.losses.sampled_negatives import Candidates
from trainer.models.bow_tree import BagWithLabelTree
from trainer.models.label_tree import NO_LABEL

# What the clusters' loss is multiplied by. Adam's steps of the clusters' own weights do not depend
# on it; the embeddings should follow the labels: with 1 it costs 2 points of micro-F1 on cooking.
_CLUSTERS_WEIGHT = 0.1


def shortlist_loss(model: BagWithLabelTree, batch: Batch, loss: Loss) -> tf.Tensor:
    """The loss of a batch, float32 []: summed over its documents, times their weights.

    The config's loss is taken of the head labels, and of the labels in the clusters that a document
    has a label of, and in those that score highest. So negatives are the labels that the model
    takes for likely, the ones that it ranks at serving time. Of the clusters themselves it is the
    squared hinge.
    """
    found = model.training_shortlist(batch["tokens"], batch["labels"])
    head = Candidates(found.head_ids, negative_weights=tf.ones(tf.shape(found.head_ids)))
    of_head = loss(found.has_head, found.head_logits, batch["weights"], head)
    is_label = tf.cast(found.label_ids != NO_LABEL, tf.float32)
    # Each row of the shortlist has labels of its own.
    candidates = Candidates(tf.maximum(found.label_ids, 0), negative_weights=is_label)
    weights = tf.gather(batch["weights"], found.documents)
    of_labels = loss(found.has_label, found.logits, weights, candidates)
    # Made here and not on import, which would start the threads of TensorFlow; no fork has these.
    cluster_loss = build_loss(
        SquaredHingeConfig(name="squared_hinge"), positives=[1], num_documents=1
    )
    of_clusters = cluster_loss(found.has_cluster, found.cluster_logits, batch["weights"], None)
    of_all = tf.reduce_sum(of_head) + tf.reduce_sum(of_labels)
    return of_all + _CLUSTERS_WEIGHT * tf.reduce_sum(of_clusters)
