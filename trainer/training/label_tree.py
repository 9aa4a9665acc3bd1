"""The label tree of a model that has one, made from the train split before the first step."""

import numpy as np
import tensorflow as tf

from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.ragged import row_ids
from trainer.data.input_pipeline import token_ids
from trainer.data.records import read_records
from trainer.distribution.strategy import is_chief, sum_over_workers
from trainer.experiment import Experiment


def plant_label_tree(experiment: Experiment) -> None:
    """Arranges the model's labels by what the documents of each have in common.

    A label's vector is the sum of its train documents' vectors under the initial weights. These are
    a random projection of the documents' weighted terms, which keeps their angles (Johnson and
    Lindenstrauss 1984), so that labels whose documents share words come together. The train split
    is read once, and memory is labels x dimensions.

    The chief's tree is that of all workers: the last bits of sums differ between processors.
    """
    model, strategy = experiment.model, experiment.strategy
    tree = model.tree_of(_label_vectors(experiment))
    model.set_tree(sum_over_workers(strategy, tree if is_chief(strategy) else 0 * tree))


def _label_vectors(experiment: Experiment) -> np.ndarray:
    """float32 [labels, dim]: the sum of the vectors of each label's train documents."""
    dataset, model = experiment.dataset, experiment.model
    texts = dataset.record_spec.text_names

    @tf.function(reduce_retracing=True)
    def of_batch(labels: tf.RaggedTensor, *texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        vectors = model.vectors(token_ids(experiment.vectorizer, texts))
        label_ids, places = tf.unique(labels.values, out_idx=tf.int64)
        rows = tf.gather(vectors, row_ids(labels))
        return label_ids, tf.math.unsorted_segment_sum(rows, places, tf.size(label_ids))

    total, done, documents = None, 0, dataset.num_examples("train")
    skips = experiment.config.train.on_corrupt == "skip"
    with ProgressLine("clustering labels") as progress:
        for parsed in read_records(dataset, "train", [*texts, "labels"], skip_corrupt=skips):
            values = [tf.constant(parsed[name]) for name in texts]
            label_ids, sums = (part.numpy() for part in of_batch(parsed["labels"], *values))
            if total is None:
                total = np.zeros((dataset.num_labels, sums.shape[1]), np.float32)
            total[label_ids] += sums
            done += len(values[0])
            progress.update(done, documents, f"{done:,} of {documents:,} documents")
    return total
