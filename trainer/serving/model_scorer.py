"""The part of an exported graph that is the trained model: analyzed texts -> probabilities."""

import contextlib

import tensorflow as tf

from trainer.data.input_pipeline import token_ids
from trainer.experiment import Experiment
from trainer.metrics.calibration import Calibration
from trainer.models.bow import BagOfEmbeddings
from trainer.models.bow_tree import NOT_SCORED, BagWithLabelTree
from trainer.models.linear import LinearClassifier
from trainer.models.pretrained import PretrainedEncoder
from trainer.serving.half_precision import HalfPrecisionWeights

# In the place of a probability, where a shortlist has no label.
NOT_A_SCORE = -1.0


class ModelScorer(tf.Module):
    """Analyzed strings [N] of each text field -> probabilities, float32 [N, labels].

    A model that scores some labels of each document has `shortlist`, a function of the same
    strings: label ids int64 [N, n] and their probabilities float32 [N, n], NOT_A_SCORE where there
    is no label; and `shortlist_size`, the fewest labels that it gives. All other labels have the
    probability 0.

    A bag of embeddings or a linear model of one text field also has `contributions`, a tf.function
    of one analyzed document, string [1]: float32 [tokens, labels], what its tokens add to the
    model's logits, and float32 [labels], the bias.

    A pretrained encoder has `attributions`, a tf.function of one analyzed document, string [1] for
    each text field, and of a label's id: float32 [tokens] for each field, see
    `PretrainedEncoder.attributions`.

    Args:
      experiment: its model is used with the weights that it has when the export is saved.
      calibration: of the model's log-odds.
      weights: how matrices among the weights are stored, see `export.weights`; the model computes
        in float32.
    """

    def __init__(
        self, experiment: Experiment, calibration: Calibration, *, weights: str = "float32"
    ):
        super().__init__(name="model")
        model, vectorizer = experiment.model, experiment.vectorizer
        if isinstance(model, PretrainedEncoder):
            model.merge_updates()
        # What the functions below use is saved if an attribute holds it.
        self._vectorizer = vectorizer
        if weights == "float32":
            self._model = model
            stored_weights = contextlib.nullcontext
        else:
            self._weights = HalfPrecisionWeights(model, weights)
            stored_weights = self._weights.scope

        def score(*analyzed: tf.Tensor) -> tf.Tensor:
            with stored_weights():
                logits = model(token_ids(vectorizer, analyzed), training=False)
            return tf.sigmoid(calibration.log_odds(experiment.log_odds(logits)))

        def shortlist(*analyzed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with stored_weights():
                label_ids, logits = model.shortlist(token_ids(vectorizer, analyzed))
            log_odds = calibration.log_odds(experiment.log_odds(logits, label_ids), label_ids)
            return label_ids, tf.where(logits > NOT_SCORED, tf.sigmoid(log_odds), NOT_A_SCORE)

        def score_by_shortlist(*analyzed: tf.Tensor) -> tf.Tensor:
            label_ids, scores = shortlist(*analyzed)
            return scores_of_all(label_ids, scores, num_labels=experiment.dataset.num_labels)

        def contributions(analyzed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with stored_weights():
                return model.contributions(vectorizer(analyzed))

        def attributions(*analyzed_and_label: tf.Tensor) -> tuple[tf.Tensor, ...]:
            *analyzed, label_id = analyzed_and_label
            with stored_weights():
                return model.attributions(token_ids(vectorizer, analyzed), label_id)

        if isinstance(model, BagWithLabelTree):
            self.shortlist = tf.function(shortlist, autograph=False)
            self.shortlist_size = model.shortlist_size
            score = score_by_shortlist
        self._score = tf.function(score, autograph=experiment.has_own_code)
        num_texts = len(experiment.dataset.manifest.text_fields)
        has_one_text = num_texts == 1
        if has_one_text and isinstance(model, BagOfEmbeddings | LinearClassifier):
            self.contributions = tf.function(
                contributions, input_signature=[tf.TensorSpec([1], tf.string)], autograph=False
            )
        if isinstance(model, PretrainedEncoder):
            signature = [tf.TensorSpec([1], tf.string)] * num_texts
            self.attributions = tf.function(
                attributions,
                input_signature=[*signature, tf.TensorSpec([], tf.int64)],
                autograph=False,
            )

    def __call__(self, *analyzed: tf.Tensor) -> tf.Tensor:
        return self._score(*analyzed)


def scores_of_all(label_ids: tf.Tensor, scores: tf.Tensor, *, num_labels: int) -> tf.Tensor:
    """Probabilities float32 [N, labels] of a shortlist, see `ModelScorer`; 0 for other labels."""
    documents = tf.range(tf.shape(scores, tf.int64)[0])[:, tf.newaxis]
    cells = tf.stack([tf.broadcast_to(documents, tf.shape(label_ids)), label_ids], axis=2)
    # The maximum: where there is no label, the id is that of another.
    return tf.tensor_scatter_nd_max(tf.zeros([tf.shape(scores)[0], num_labels]), cells, scores)
