"""The last layer on a pretrained encoder, started from what labels are called or described as.

Labels with few train documents, or none, have the encoder's knowledge of their words to begin with.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.json_files import read_json
from beam_jobs.contract.validation import canonical_label
from trainer.data.input_pipeline import make_vectorizer, token_ids
from trainer.data.records import read_records
from trainer.distribution.strategy import is_chief, sum_over_workers
from trainer.experiment import Experiment
from trainer.losses.label_weights import output_bias

_SAMPLE_DOCUMENTS = 256
_KEY = "model.label_descriptions"


def read_descriptions(source: str, label_names: Sequence[str]) -> list[str]:
    """A text for each label: of a file, or its name where the file has none.

    Args:
      source: `names`, or a file.
      label_names: by label id.

    Raises:
      UserError: the file cannot be read, or has a text for none of the labels.
    """
    if source == "names":
        return list(label_names)
    expected = (
        'expected a JSON object with a text for each label, such as {"cs.CL": "computation and '
        'language"}'
    )
    texts = read_json(source, key=_KEY, expected=expected)
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise UserError(f"{_KEY}: {source} holds something else; {expected}")
    texts = {canonical_label(name): text for name, text in texts.items()}
    if not texts.keys() & set(label_names):
        raise UserError(
            f"{_KEY}: {source} has none of the {len(label_names):,} labels, such as "
            f"{label_names[0]!r}; {expected}"
        )
    return [texts.get(name) or name for name in label_names]


def start_from_descriptions(experiment: Experiment, *, only: np.ndarray | None = None) -> None:
    """Sets the last layer of a model that is not trained yet.

    A label's row is the direction in which its text's vector lies from the mean of all labels'. The
    rows have one length, at which the logits of some train documents vary with a standard deviation
    of 1, about each label's log-odds in the train split; of a label without train documents, about
    the median of the others.

    The chief's values are those of all workers: the last bits differ between processors.

    Args:
      experiment: its model is set.
      only: bool [labels], those that are set; None: all are.

    Raises:
      UserError: see `read_descriptions`.
    """
    dataset, model = experiment.dataset, experiment.model
    positives = dataset.label_counts("train")
    head = head_of(
        label_vectors(experiment),
        _sample(experiment),
        bias=output_bias(positives, dataset.num_examples("train")),
        is_trained=positives > 0,
    )
    if only is not None:
        kernel, bias = model.head()
        head = np.where(only[:, None], head[0], kernel), np.where(only, head[1], bias)
    own = [values if is_chief(experiment.strategy) else 0 * values for values in head]
    with experiment.strategy.scope():
        model.set_head(*sum_over_workers(experiment.strategy, own))


def label_vectors(experiment: Experiment) -> np.ndarray:
    """float32 [labels, dim]: what the encoder makes of the labels' texts.

    Raises:
      UserError: see `read_descriptions`.
    """
    dataset, model = experiment.dataset, experiment.model
    texts = read_descriptions(experiment.config.model.label_descriptions, dataset.label_names)
    analyzed = Analyzer(dataset.manifest.analyzer)(tf.constant(texts))
    fields = [analyzed] * len(dataset.record_spec.text_names)
    return tf.function(model.encode)(token_ids(make_vectorizer(dataset.vocabulary), fields)).numpy()


def head_of(
    labels: np.ndarray, documents: np.ndarray, *, bias: np.ndarray, is_trained: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first kernel float32 [labels, dim] and bias [labels], see `start_from_descriptions`.

    Args:
      labels: float32 [labels, dim], vectors of the labels' texts.
      documents: float32 [documents, dim], vectors of train documents.
      bias: float32 [labels], log-odds.
      is_trained: bool [labels], whether there are train documents of the label.
    """
    directions = labels - labels.mean(axis=0)
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    directions /= np.where(norms > 0, norms, 1)
    mean = documents.mean(axis=0)
    spread = float(((documents - mean) @ directions.T).std())
    rows = directions / (spread or 1.0)
    if is_trained.any():
        bias = np.where(is_trained, bias, np.median(bias[is_trained]))
    return rows.astype(np.float32), (bias - rows @ mean).astype(np.float32)


def _sample(experiment: Experiment) -> np.ndarray:
    """float32 [n, dim]: the vectors of the first train documents, whose order is by a hash."""
    dataset, model = experiment.dataset, experiment.model
    names = dataset.record_spec.input_names
    skips = experiment.config.train.on_corrupt == "skip"
    parsed = next(read_records(dataset, "train", names, skip_corrupt=skips))
    texts = [tf.constant(parsed[name][:_SAMPLE_DOCUMENTS]) for name in names]
    inputs = token_ids(experiment.vectorizer, texts)
    is_encoded = isinstance(inputs, tf.Tensor)
    return (inputs if is_encoded else tf.function(model.encode)(inputs)).numpy()
