"""The export: a SavedModel that takes raw strings and answers with label names."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST, dump_json
from trainer import metrics
from trainer.evaluate import load_thresholds
from trainer.experiment import assemble, restore_best
from trainer.strategy import is_chief

SIGNATURES = ("serving_default", "scores", "decide", "analyze")
_TEXT = tf.TensorSpec([None], tf.string, name="text")


class ServingModule(tf.Module):
    """Analyzer, vocabulary, weights, thresholds and label names as one graph.

    Args:
      analyzer: raw strings -> analyzed strings.
      vectorizer: analyzed strings -> token ids.
      model: token ids -> logits; its variables are saved with the module.
      scores: token ids -> probabilities, by the same model.
      label_names: by label id.
      threshold_bins: int [labels], for `trainer.metrics.decide`.
      top_k: labels that `serving_default` answers with.
    """

    def __init__(
        self,
        *,
        analyzer: Analyzer,
        vectorizer: keras.layers.TextVectorization,
        model: keras.Model,
        scores: Callable[[tf.RaggedTensor], tf.Tensor],
        label_names: list[str],
        threshold_bins: list[int],
        top_k: int,
    ):
        super().__init__(name="multihot")
        self._analyzer = analyzer
        self._vectorizer = vectorizer
        self._model = model
        self._scores_of = scores
        self._label_names = tf.constant(label_names)
        self._threshold_bins = tf.constant(threshold_bins, tf.int32)
        self._top_k = min(top_k, len(label_names))

    def _scores(self, text: tf.Tensor) -> tf.Tensor:
        scores = self._scores_of(self._vectorizer(self._analyzer(text)))
        return tf.ensure_shape(scores, [None, len(self._label_names)])

    @tf.function(input_signature=[_TEXT])
    def serving_default(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """[N] -> labels: string [N, k], scores: float32 [N, k], best first."""
        best = tf.math.top_k(self._scores(text), self._top_k)
        return {"labels": tf.gather(self._label_names, best.indices), "scores": best.values}

    @tf.function(input_signature=[_TEXT])
    def scores(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """[N] -> scores: float32 [N, labels], in the order of label ids."""
        return {"scores": self._scores(text)}

    @tf.function(input_signature=[_TEXT])
    def analyze(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """[N] -> analyzed: string [N], the tokens that the model sees, joined by one space."""
        return {"analyzed": self._analyzer(text)}

    @tf.function(input_signature=[_TEXT])
    def decide(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """[N] -> the labels at or above their thresholds, best first; m is the largest number of them.

        Returns:
          labels: string [N, m], padded with empty strings; scores: float32 [N, m], padded with zeros; counts: int32 [N].
        """
        scores = self._scores(text)
        assigned = metrics.decide(scores, self._threshold_bins)
        counts = tf.reduce_sum(tf.cast(assigned, tf.int32), axis=1)
        width = tf.maximum(tf.reduce_max(counts), 0)  # the maximum of no documents is the smallest int32
        best = tf.math.top_k(tf.where(assigned, scores, -1.0), width)
        real = tf.sequence_mask(counts, width)
        names = tf.where(real, tf.gather(self._label_names, best.indices), "")
        return {"labels": names, "scores": tf.where(real, best.values, 0.0), "counts": counts}


def export(config: Config) -> None:
    """Writes the next version of the SavedModel, `model_dir/1` first, whole or not at all."""
    experiment = assemble(config)
    if not is_chief(experiment.strategy):  # the model is the same on every worker
        return
    config = experiment.config  # with the platform's directories
    state = restore_best(experiment)
    thresholds = load_thresholds(experiment)
    per_label = config.export.threshold == "per_label"
    module = ServingModule(
        analyzer=Analyzer(experiment.dataset.manifest.analyzer),
        vectorizer=experiment.vectorizer,
        model=experiment.model,
        scores=experiment.scores,
        label_names=experiment.dataset.label_names,
        threshold_bins=list(thresholds.per_label_bins) if per_label else [thresholds.global_bin] * experiment.dataset.num_labels,
        top_k=config.export.top_k,
    )
    manifest = (experiment.dataset.directory / MANIFEST).read_bytes()
    origin = {
        "name": config.name,
        "dataset_manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "dataset_config_hash": experiment.dataset.manifest.config_hash,
        "step": state.step,
        "epoch": state.epoch,
        "validation_micro_f1": state.best_micro_f1 if experiment.dataset.examples("validation") else None,
    }
    model_dir = Path(config.export.model_dir)
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        version = max(versions(model_dir), default=0) + 1
        staged = model_dir / f".staging-{version}"
        shutil.rmtree(staged, ignore_errors=True)
        try:
            signatures = {name: getattr(module, name) for name in SIGNATURES}
            tf.saved_model.save(module, str(staged), signatures=signatures)
            extra = staged / "assets.extra"
            extra.mkdir()
            (extra / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
            (extra / "origin.json").write_text(dump_json(origin), encoding="utf-8")
            os.replace(staged, model_dir / str(version))
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise UserError(f"export.model_dir: cannot write in {model_dir}: {error.strerror}; expected a directory you may write") from None
    size = sum(file.stat().st_size for file in (model_dir / str(version)).rglob("*") if file.is_file())
    print(f"exported epoch {state.epoch} as {model_dir / str(version)} ({size / 1e6:,.1f} MB)")


def versions(model_dir: Path) -> list[int]:
    """The numbered versions in a model directory."""
    return [int(path.name) for path in model_dir.iterdir() if path.is_dir() and path.name.isdigit()]
