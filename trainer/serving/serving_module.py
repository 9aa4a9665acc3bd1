"""What an export holds, as one graph: raw strings -> label names."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.saved_model import SIGNATURES, SavedModel
from trainer.data.input_pipeline import token_ids
from trainer.experiment import Experiment
from trainer.metrics import classification
from trainer.metrics.calibration import Calibration
from trainer.models.bow import BagOfEmbeddings

# String operations use one core each, so large batches are analyzed in parts, side by side.
_PARTS = 4
_LEAST_TEXTS_TO_PART = 16


class ServingModule(tf.Module):
    """Analyzer, vocabulary, weights, calibration, thresholds and label names.

    Every signature takes the raw texts of N documents, a string tensor [N] for each text field by its name, or serialized
    tf.train.Examples with bytes features of these names.

    Args:
      text_fields: names of a document's texts.
      analyzer: raw strings -> analyzed strings.
      score: analyzed strings [N] of each text field -> probabilities, float32 [N, labels]; a tf.Module that holds what it needs.
      label_names: by label id.
      threshold_bins: int [labels], for `trainer.metrics.classification.decide`.
      top_k: labels that `serving_default` answers with.
    """

    def __init__(
        self,
        *,
        text_fields: Sequence[str],
        analyzer: Analyzer,
        score: Callable[..., tf.Tensor],
        label_names: Sequence[str],
        threshold_bins: Sequence[int],
        top_k: int,
    ):
        super().__init__(name="multihot")
        self._analyzer = analyzer
        self._score = score
        self._text_fields = tuple(text_fields)
        self._label_names = tf.constant(label_names)
        self.threshold_bins = tf.constant(threshold_bins, tf.int32)
        self._top_k = min(top_k, len(label_names))
        texts = [tf.TensorSpec([None], tf.string, name=field) for field in text_fields]
        self.serving_default = tf.function(self._serving_default, input_signature=texts)
        self.scores = tf.function(
            lambda *texts: {"scores": self._scores(texts)}, input_signature=texts
        )
        self.decide = tf.function(self._decide, input_signature=texts)
        self.analyze = tf.function(self._analyze, input_signature=texts)
        # TensorFlow Serving's classification finds its input by this name.
        self.classify_examples = tf.function(
            self._classify_examples,
            input_signature=[tf.TensorSpec([None], tf.string, name="inputs")],
        )
        # Not signatures, since they are for tools and not for clients.
        self.score_analyzed = tf.function(
            lambda *analyzed: self._known_width(self._score(*analyzed)), input_signature=texts
        )
        if hasattr(score, "contributions"):
            self.contributions = score.contributions
        self.label_names = tf.function(lambda: self._label_names, input_signature=[])

    def signatures(self) -> dict[str, Any]:
        """By name, for tf.saved_model.save."""
        return {name: getattr(self, name) for name in SIGNATURES}

    def _known_width(self, scores: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(scores, [None, len(self._label_names)])

    def _analyzed(self, text: tf.Tensor) -> tf.Tensor:
        size = tf.shape(text)[0]

        def in_parts():
            bounds = [size * i // _PARTS for i in range(_PARTS + 1)]
            return tf.concat(
                [
                    self._analyzer(text[start:end])
                    for start, end in zip(bounds[:-1], bounds[1:], strict=True)
                ],
                axis=0,
            )

        return tf.cond(size < _LEAST_TEXTS_TO_PART, lambda: self._analyzer(text), in_parts)

    def _scores(self, texts: Sequence[tf.Tensor]) -> tf.Tensor:
        return self._known_width(self._score(*map(self._analyzed, texts)))

    def _serving_default(self, *texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """[N] -> labels: string [N, k], scores: float32 [N, k], best first."""
        best = tf.math.top_k(self._scores(texts), self._top_k)
        return {"labels": tf.gather(self._label_names, best.indices), "scores": best.values}

    def _analyze(self, *texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """[N] -> analyzed: string [N], the tokens that the model sees, joined by one space; of several fields, `analyzed/title` and so on."""
        analyzed = map(self._analyzed, texts)
        if len(texts) == 1:
            return {"analyzed": next(analyzed)}
        return {
            f"analyzed/{field}": text
            for field, text in zip(self._text_fields, analyzed, strict=True)
        }

    def _decide(self, *texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """[N] -> the labels at or above their thresholds, best first; m is the largest number of them.

        Returns:
          labels: string [N, m], padded with empty strings; scores: float32 [N, m], padded with zeros; counts: int32 [N].
        """
        scores = self._scores(texts)
        assigned = classification.decide(scores, self.threshold_bins)
        counts = tf.reduce_sum(tf.cast(assigned, tf.int32), axis=1)
        width = tf.maximum(
            tf.reduce_max(counts), 0
        )  # the maximum of no documents is the smallest int32
        best = tf.math.top_k(tf.where(assigned, scores, -1.0), width)
        real = tf.sequence_mask(counts, width)
        names = tf.where(real, tf.gather(self._label_names, best.indices), "")
        return {"labels": names, "scores": tf.where(real, best.values, 0.0), "counts": counts}

    def _classify_examples(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized tf.train.Examples [N] -> classes: string [N, k], scores: float32 [N, k], best first."""
        features = {field: tf.io.FixedLenFeature([], tf.string) for field in self._text_fields}
        parsed = tf.io.parse_example(inputs, features)
        answer = self._serving_default(*(parsed[field] for field in self._text_fields))
        return {"classes": answer["labels"], "scores": answer["scores"]}


class ModelScorer(tf.Module):
    """Analyzed strings [N] of each text field -> probabilities, float32 [N, labels], by a trained model.

    Args:
      experiment: its model is used with the weights that it has when the export is saved.
      calibration: of its log-odds.
      weights: how matrices among the weights are stored, see `export.weights`; when the model is loaded they become float32 again.
    """

    def __init__(
        self, experiment: Experiment, calibration: Calibration, *, weights: str = "float32"
    ):
        super().__init__(name="model")
        self._vectorizer = experiment.vectorizer
        stored: list[tuple[keras.Variable, _StoredInHalf]] = []
        if weights == "float32":
            self._model = experiment.model
        else:  # the model is no attribute then, or its float32 weights would be saved too
            stored = [
                (variable, _StoredInHalf(variable.value, weights))
                for variable in experiment.model.variables
                if is_halved(variable)
            ]
            self._halved = [(half, half.variable) for _, half in stored]
            self._others = [
                variable.value for variable in experiment.model.variables if not is_halved(variable)
            ]

        def score(*analyzed: tf.Tensor) -> tf.Tensor:
            with keras.StatelessScope([(variable, half.read()) for variable, half in stored]):
                logits = experiment.model(
                    token_ids(experiment.vectorizer, analyzed), training=False
                )
                return tf.sigmoid(calibration.log_odds(experiment.log_odds(logits)))

        self._score = tf.function(score)
        if len(experiment.dataset.manifest.text_fields) == 1 and isinstance(
            experiment.model, BagOfEmbeddings
        ):

            def contributions(analyzed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                with keras.StatelessScope([(variable, half.read()) for variable, half in stored]):
                    return experiment.model.contributions(experiment.vectorizer(analyzed))

            # float32 [tokens, labels] and [labels] of one analyzed document: what its tokens add to the model's logits, and the bias.
            self.contributions = tf.function(
                contributions, input_signature=[tf.TensorSpec([1], tf.string)]
            )

    def __call__(self, *analyzed: tf.Tensor) -> tf.Tensor:
        return self._score(*analyzed)


class AverageScorer(tf.Module):
    """Analyzed strings [N] of each text field -> the weighted mean of the probabilities of several exported models.

    Args:
      members: what `beam_jobs.contract.saved_model.load` gave, all with the same text fields, analyzer and labels.
      shares: the weight of each; their sum is 1.
    """

    def __init__(self, members: Sequence[SavedModel], shares: Sequence[float]):
        super().__init__(name="average")
        self._members = [member.module for member in members]
        self._shares = [float(share) for share in shares]

    def __call__(self, *analyzed: tf.Tensor) -> tf.Tensor:
        return tf.add_n(
            [
                share * member.score_analyzed(*analyzed)
                for share, member in zip(self._shares, self._members, strict=True)
            ]
        )


def is_halved(variable: keras.Variable) -> bool:
    """Whether `export.weights` stores a weight in half its size: matrices. Vectors are small, and biases and IDF decide much."""
    return variable.dtype == "float32" and len(variable.shape) > 1


class _StoredInHalf(tf.saved_model.experimental.TrackableResource):
    """A float32 tensor that stands in a SavedModel in half its size and is widened once, when the model is loaded.

    To widen it in every request would cost more than all else that a request does.
    """

    def __init__(self, value: tf.Tensor, dtype: str):
        super().__init__()
        self.variable = tf.Variable(tf.cast(value, dtype), trainable=False, name="half")
        # A process finds the widened tensor by this name: named by its content, models that share it share the same numbers. It is
        # not destroyed with one of them, for another may read it.
        self._name = f"widened-{hashlib.blake2b(self.variable.numpy().tobytes(), digest_size=16).hexdigest()}"
        self._initialize()

    def read(self) -> tf.Tensor:
        return tf.ensure_shape(
            tf.raw_ops.ReadVariableOp(resource=self.resource_handle, dtype=tf.float32),
            self.variable.shape,
        )

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(
            dtype=tf.float32, shape=self.variable.shape, shared_name=self._name
        )

    def _initialize(self):
        tf.raw_ops.AssignVariableOp(
            resource=self.resource_handle, value=tf.cast(self.variable, tf.float32)
        )
