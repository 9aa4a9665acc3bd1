"""What texts of labels are worth: a last layer that starts from them, and labels held out.

    multihot-preprocess --config CONFIG
    python scripts/measure_label_texts.py CONFIG TEXTS.json --documents 100 300 1000

CONFIG has `model.name: pretrained`. The encoder is not trained: documents are encoded once, their
first 64 pieces. On their vectors a last layer is trained, which starts at random or as
`model.label_descriptions` has it, on the first train documents. Then, five times, a fifth of the
labels is taken from all train documents of the largest number, and scored by their texts alone.
Figures are of the validation split, with the one threshold that is best on it.
"""

import argparse
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from beam_jobs.contract.config import load_config
from beam_jobs.contract.ragged import row_ids
from trainer.data.records import read_records
from trainer.document_vectors import with_vectors
from trainer.experiment import Experiment, assemble
from trainer.losses.label_weights import output_bias
from trainer.training.label_descriptions import head_of, label_vectors

EPOCHS, BATCH, DROPOUT, MARGIN = 20, 64, 0.1, 4.0
SAMPLE = 256  # train documents by which the first rows are scaled
HELD_OUT, REPEATS = 0.2, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config")
    parser.add_argument("texts", help="a JSON file: {label: text}")
    parser.add_argument("--documents", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--max-tokens", type=int, default=66)
    parser.add_argument("--dataset", help="in place of output.dataset_dir")
    given = parser.parse_args()
    settings = [
        "model.trainable_layers=0",
        f"model.max_tokens={given.max_tokens}",
        f"model.label_descriptions={os.path.abspath(given.texts)}",
        f"train.run_dir={tempfile.mkdtemp()}",
    ]
    if given.dataset:
        settings.append(f"output.dataset_dir={given.dataset}")
    experiment = assemble(load_config(given.config, overrides=settings), for_training=True)
    labels = label_vectors(experiment)
    encoded = with_vectors(experiment, ["train", "validation"])
    train, validation = (vectors_of(encoded, split) for split in ("train", "validation"))
    logits = without_documents(labels, train[0][:SAMPLE], validation[0])
    auc = area(logits, validation[1])
    print(f"no labelled document, from texts: {f1(logits, validation[1])}, AUC {auc:.3f}")
    for number in given.documents:
        for rate in (5e-3, 2e-2):
            for start in (None, labels):
                logits = fit(first(train, number), validation[0], start=start, rate=rate)
                name = "at random" if start is None else "from texts"
                print(f"{number:,} documents, {name}, {rate:g}: {f1(logits, validation[1])}")
    report_held_out(first(train, max(given.documents)), validation, labels)


def vectors_of(experiment: Experiment, split: str) -> tuple[np.ndarray, np.ndarray]:
    """float32 [documents, dim] and [documents, labels], of a split."""
    vectors, labels = [], []
    names = experiment.dataset.record_spec.input_names
    for parsed in read_records(experiment.dataset, split, [*names, "labels"]):
        vectors.append(experiment.vectorizer(parsed[names[0]]).numpy())
        rows = np.zeros((len(vectors[-1]), experiment.dataset.num_labels), np.float32)
        rows[row_ids(parsed["labels"]).numpy(), parsed["labels"].values.numpy()] = 1
        labels.append(rows)
    return np.concatenate(vectors), np.concatenate(labels)


def first(split: tuple[np.ndarray, np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
    """The first documents of a split."""
    return split[0][:number], split[1][:number]


def without_documents(labels: np.ndarray, sample: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Logits [documents, labels] of a last layer that has seen no document's labels."""
    nothing = np.zeros(len(labels), np.float32)
    kernel, bias = head_of(labels, sample, bias=nothing, is_trained=nothing > 0)
    return documents @ kernel.T + bias


def fit(
    train: tuple[np.ndarray, np.ndarray],
    documents: np.ndarray,
    *,
    start: np.ndarray | None,
    rate: float,
    seed: int = 0,
) -> np.ndarray:
    """Logits [documents, labels] of a last layer, after its training.

    Args:
      train: vectors and labels.
      documents: vectors of others.
      start: vectors of the labels' texts; None: it starts at random.
      rate: the first learning rate of AdamW, which falls to 0.
      seed: of weights, dropout and order.
    """
    keras.utils.set_random_seed(seed)
    vectors, labels = train
    positives = labels.sum(axis=0)
    bias, is_trained = output_bias(positives, len(vectors)), positives > 0
    if start is None:
        kernel = keras.initializers.GlorotUniform(seed=seed)((labels.shape[1], vectors.shape[1]))
    else:
        kernel, bias = head_of(start, vectors[:SAMPLE], bias=bias, is_trained=is_trained)
    weights = [keras.Variable(kernel), keras.Variable(bias)]
    steps = EPOCHS * -(-len(vectors) // BATCH)
    optimizer = keras.optimizers.AdamW(keras.optimizers.schedules.PolynomialDecay(rate, steps, 0.0))
    optimizer.build(weights)
    learned = tf.constant(is_trained | (start is None))

    def logits_of(x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, weights[0].value, transpose_b=True) + weights[1].value

    @tf.function(reduce_retracing=True)
    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = logits_of(tf.nn.dropout(x, DROPOUT))
            logits = tf.where(learned, logits, tf.stop_gradient(logits)) / MARGIN
            missing = tf.where(y > 0, 1 - logits, 1 + logits)
            loss = tf.reduce_sum(tf.square(tf.nn.relu(missing))) / BATCH
        optimizer.apply(tape.gradient(loss, [w.value for w in weights]), weights)

    for epoch in range(EPOCHS):
        order = np.random.default_rng([seed, epoch]).permutation(len(vectors))
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            step(tf.constant(vectors[rows]), tf.constant(labels[rows]))
    return logits_of(tf.constant(documents)).numpy()


def report_held_out(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    texts: np.ndarray,
) -> None:
    """Prints how labels that no train document has are scored by their texts."""
    documents, truth = validation
    candidates = np.flatnonzero((train[1].sum(axis=0) > 0) & (truth.sum(axis=0) > 0))
    rows = []
    for seed in range(REPEATS):
        draw = np.random.default_rng(seed)
        held = np.sort(draw.choice(candidates, int(HELD_OUT * len(candidates)), replace=False))
        labels = train[1].copy()
        labels[:, held] = 0
        logits = fit((train[0], labels), documents, start=texts, rate=5e-3)
        own, scores = truth[:, held], logits[:, held]
        has = own.any(axis=1)
        best = scores[has].argmax(axis=1)
        ranks = (-logits).argsort(axis=1).argsort(axis=1)[:, held][own > 0]
        micro, macro = best_f1(scores, own)
        right = own[has][np.arange(has.sum()), best].mean()
        rows.append(
            (area(scores, own), right, (ranks < 5).mean(), np.median(ranks) + 1, micro, macro)
        )
    print(f"{len(held)} labels held out, {REPEATS} times: mean, standard deviation")
    names = "AUC", "the best is right", "in the best five of all", "median rank", "micro", "macro"
    for name, values in zip(names, np.array(rows).T, strict=True):
        print(f"  {name}: {values.mean():.3f}, {values.std():.3f}")


def area(scores: np.ndarray, truth: np.ndarray) -> float:
    """The mean area under the ROC curves of the labels that occur."""
    occur = truth.any(axis=0)
    return float(roc_auc_score(truth[:, occur], scores[:, occur]))


def best_f1(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Micro-F1 at its best threshold, and there macro-F1 of the labels that occur."""
    order = np.argsort(-logits, axis=None)
    found = np.cumsum(truth.ravel()[order])
    micro = 2 * found / (np.arange(1, len(order) + 1) + truth.sum())
    chosen = logits >= logits.ravel()[order[micro.argmax()]]
    both = (chosen * truth).sum(axis=0)
    macro = 2 * both / np.maximum(chosen.sum(axis=0) + truth.sum(axis=0), 1)
    return micro.max(), macro[truth.sum(axis=0) > 0].mean()


def f1(logits: np.ndarray, truth: np.ndarray) -> str:
    """`best_f1` in words."""
    return "micro-F1 {:.3f}, macro-F1 {:.3f}".format(*best_f1(logits, truth))


if __name__ == "__main__":
    main()
