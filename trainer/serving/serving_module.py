"""What an export holds, as one graph: raw strings -> label names."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.saved_model import SIGNATURES
from trainer.metrics import classification
from trainer.serving.model_scorer import NOT_A_SCORE

# String operations use one core each, so large batches are split in parts that are analyzed in
# parallel.
_PARTS = 4
_MIN_TEXTS_TO_SPLIT = 16


class ServingModule(tf.Module):
    """Analyzer, vocabulary, weights, calibration, thresholds and label names.

    Every signature takes the raw texts of N documents: a string tensor [N] for each text field, by
    the field's name, or serialized tf.train.Examples with bytes features of these names.

    Args:
      text_fields: names of a document's texts.
      analyzer: raw strings -> analyzed strings.
      score: analyzed strings [N] of each text field -> probabilities, float32 [N, labels]; a
        tf.Module that holds what it needs. If it has a `shortlist`, see
        `trainer.serving.model_scorer.ModelScorer`, the best labels are found there alone.
      label_names: by label id.
      threshold_bins: int [labels], for `trainer.metrics.classification.decide`.
      best_only: whether `decide` assigns the best-scored of these labels alone.
      top_k: how many labels `serving_default` answers with.
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
        best_only: bool = False,
    ):
        super().__init__(name="multihot")
        self._analyzer = analyzer
        self._score = score
        self._text_fields = tuple(text_fields)
        self._label_names = tf.constant(label_names)
        self.threshold_bins = tf.constant(threshold_bins, tf.int32)
        self._top_k = min(top_k, len(label_names))
        self._best_only = best_only

        texts = [tf.TensorSpec([None], tf.string, name=field) for field in text_fields]
        # TensorFlow Serving's Classify finds its input by this name.
        examples = [tf.TensorSpec([None], tf.string, name="inputs")]

        def function(method: Callable[..., Any], signature: Sequence[tf.TensorSpec]) -> Any:
            # AutoGraph would take seconds to read all that is called, of which nothing needs it.
            return tf.function(method, input_signature=signature, autograph=False)

        self.serving_default = function(self._serving_default, texts)
        self.scores = function(lambda *texts: {"scores": self._scores(texts)}, texts)
        self.decide = function(self._decide, texts)
        self.analyze = function(self._analyze, texts)
        self.classify_examples = function(self._classify_examples, examples)

        # Functions that are no signatures: our own tools call them, clients do not.
        self.score_analyzed = function(self._score_analyzed, texts)
        self.decide_analyzed = function(self._decide_analyzed, texts)
        self.label_names = function(lambda: self._label_names, [])
        for name in ("contributions", "attributions"):
            if hasattr(score, name):
                setattr(self, name, getattr(score, name))

    def signatures(self) -> dict[str, Any]:
        """By name, for tf.saved_model.save."""
        return {name: getattr(self, name) for name in SIGNATURES}

    def _serving_default(self, *texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """[N] -> labels: string [N, k], scores: float32 [N, k], best first."""
        label_ids, scores = self._shortlist(texts, at_least=self._top_k)
        best = tf.math.top_k(scores, self._top_k)
        return {"labels": self._names_of(best.indices, label_ids), "scores": best.values}

    def _decide(self, *texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """[N] -> the labels at or above their thresholds; m is how many a document has at most.

        Returns:
          labels: string [N, m], best first, padded with empty strings.
          scores: float32 [N, m], padded with zeros.
          counts: int32 [N].
        """
        label_ids, scores = self._shortlist(texts)
        bins = self.threshold_bins
        if label_ids is not None:
            bins = tf.gather(bins, label_ids)
        assigned = self._assigned(scores, bins) & (scores > NOT_A_SCORE)
        counts = tf.reduce_sum(tf.cast(assigned, tf.int32), axis=1)
        # The maximum of no documents is the smallest int32.
        width = tf.maximum(tf.reduce_max(counts), 0)
        best = tf.math.top_k(tf.where(assigned, scores, -1.0), width)
        is_label = tf.sequence_mask(counts, width)
        names = tf.where(is_label, self._names_of(best.indices, label_ids), "")
        return {"labels": names, "scores": tf.where(is_label, best.values, 0.0), "counts": counts}

    def _analyze(self, *texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """[N] -> analyzed: string [N], the tokens that the model reads, joined by one space.

        For several text fields the outputs are called `analyzed/title` and so on.
        """
        analyzed = [self._analyzed(text) for text in texts]
        if len(analyzed) == 1:
            return {"analyzed": analyzed[0]}
        names = [f"analyzed/{field}" for field in self._text_fields]
        return dict(zip(names, analyzed, strict=True))

    def _classify_examples(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized tf.train.Examples [N] -> the best labels.

        Returns:
          classes: string [N, k]; scores: float32 [N, k], best first.
        """
        features = {field: tf.io.FixedLenFeature([], tf.string) for field in self._text_fields}
        parsed = tf.io.parse_example(inputs, features)
        answer = self._serving_default(*(parsed[field] for field in self._text_fields))
        return {"classes": answer["labels"], "scores": answer["scores"]}

    def _score_analyzed(self, *analyzed: tf.Tensor) -> tf.Tensor:
        """Analyzed strings [N] of each text field -> probabilities, float32 [N, labels]."""
        return tf.ensure_shape(self._score(*analyzed), [None, len(self._label_names)])

    def _decide_analyzed(self, *analyzed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Analyzed strings [N] of each text field -> scores of all labels, and which are assigned.

        Returns:
          scores: float32 [N, labels]; assigned: bool [N, labels].
        """
        scores = self._score_analyzed(*analyzed)
        return {
            "scores": scores,
            "assigned": self.assigned(scores),
        }

    def assigned(self, scores: tf.Tensor) -> tf.Tensor:
        """Scores float32 [N, labels] -> the labels that `decide` assigns, bool [N, labels]."""
        return self._assigned(scores, self.threshold_bins)

    def _assigned(self, scores: tf.Tensor, bins: tf.Tensor) -> tf.Tensor:
        """`assigned` of some labels, with their thresholds."""
        decided = classification.decide(scores, bins)
        if not self._best_only:
            return decided
        best = tf.argmax(tf.where(decided, scores, -1.0), axis=1)
        return decided & tf.cast(tf.one_hot(best, tf.shape(scores)[1]), tf.bool)

    def _shortlist(
        self, texts: Sequence[tf.Tensor], *, at_least: int = 0
    ) -> tuple[tf.Tensor | None, tf.Tensor]:
        """The ids int64 [N, n] and scores float32 [N, n] of at least so many labels.

        None as ids: all labels, in order.
        """
        if getattr(self._score, "shortlist_size", -1) < at_least:
            return None, self._scores(texts)
        return self._score.shortlist(*(self._analyzed(text) for text in texts))

    def _names_of(self, places: tf.Tensor, label_ids: tf.Tensor | None) -> tf.Tensor:
        """Label names of columns [N, k] of what `_shortlist` gives."""
        if label_ids is not None:
            places = tf.gather(label_ids, places, batch_dims=1)
        return tf.gather(self._label_names, places)

    def _scores(self, texts: Sequence[tf.Tensor]) -> tf.Tensor:
        return self._score_analyzed(*(self._analyzed(text) for text in texts))

    def _analyzed(self, text: tf.Tensor) -> tf.Tensor:
        size = tf.shape(text)[0]

        def in_parts() -> tf.Tensor:
            bounds = [size * i // _PARTS for i in range(_PARTS + 1)]
            parts = [
                self._analyzer(text[start:end])
                for start, end in zip(bounds[:-1], bounds[1:], strict=True)
            ]
            return tf.concat(parts, axis=0)

        return tf.cond(size < _MIN_TEXTS_TO_SPLIT, lambda: self._analyzer(text), in_parts)
