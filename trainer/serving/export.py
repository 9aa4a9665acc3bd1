"""The export: a SavedModel that takes raw strings and answers with label names."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.saved_model.fingerprinting_utils import write_fingerprint

from beam_jobs.contract import saved_model
from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.atomic import publish, staging_within
from beam_jobs.contract.config import CONFIG_FILE, Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST, dump_json
from beam_jobs.contract.saved_model import EXTRA, ORIGIN, SavedModel, versions
from trainer.data.dataset import Dataset, compression_of, open_dataset
from trainer.data.labels import multi_hot
from trainer.distribution.strategy import is_chief
from trainer.evaluation.evaluate import load_calibration, load_thresholds
from trainer.experiment import assemble, restore_best
from trainer.metrics import classification
from trainer.metrics.thresholds import Thresholds, tune
from trainer.runs.directories import with_directories
from trainer.serving import benchmark, model_card, warmup
from trainer.serving.serving_module import AverageScorer, ModelScorer, ServingModule, is_halved

_BATCH_DOCUMENTS = 1024


def export(config: Config) -> None:
    """Writes the next version of the SavedModel, `model_dir/1` first, whole or not at all, and prints its size and speed.

    Raises:
      UserError: there is no trained model, its thresholds are not tuned, or the directory cannot be written.
    """
    experiment = assemble(config)
    if not is_chief(experiment.strategy):  # the model is the same on every worker
        return
    config, dataset = experiment.config, experiment.dataset  # with the platform's directories
    state = restore_best(experiment)
    thresholds, calibration = load_thresholds(experiment), load_calibration(experiment)
    weights = config.export.weights
    _check_range(experiment.model, weights)
    module = _serving_module(
        config, dataset, thresholds, ModelScorer(experiment, calibration, weights=weights)
    )
    origin = {
        "step": state.step,
        "epoch": state.epoch,
        "best_validation_micro_f1": state.best_micro_f1,
    }
    origin |= {"weights": weights, "calibration": calibration.method}
    if weights != "float32" and dataset.num_examples("validation"):
        whole = _serving_module(config, dataset, thresholds, ModelScorer(experiment, calibration))
        origin["validation"] = {
            name: _validation_f1(dataset, each)
            for name, each in (("float32", whole), (weights, module))
        }
    evaluation = _evaluation_text(experiment.run_dir)
    path = _publish(config, dataset, module, origin, evaluation=evaluation, thresholds=thresholds)
    print(f"exported epoch {state.epoch} as {path}")
    _print_validation(origin)
    print(benchmark.describe(path))


def export_average(config: Config, models: Sequence[str], weights: Sequence[float] | None) -> None:
    """Writes an ensemble of exported models as the next version of one SavedModel: the weighted mean of their scores.

    Its thresholds are tuned on the validation split of the config's dataset.

    Args:
      config: names the dataset, and where the ensemble goes.
      models: directories of exported models.
      weights: what each counts; None: all the same.

    Raises:
      UserError: the models differ in labels, analyzer or text fields from the dataset, or the weights do not fit them.
    """
    config = with_directories(config, os.environ)
    if config.export.weights != "float32":
        raise UserError(
            f"export.weights: received {config.export.weights} with --average, expected float32: members keep the weights that they have"
        )
    weights = [1.0] * len(models) if weights is None else weights
    if (
        len(weights) != len(models)
        or not all(0 <= weight < float("inf") for weight in weights)
        or not sum(weights)
    ):
        raise UserError(
            f"--weights: received {list(weights)} for {len(models)} models, expected a number of 0 or more for each, not all 0"
        )
    dataset = open_dataset(config)
    if not dataset.num_examples("validation"):
        raise UserError(
            f"--average: the dataset {dataset.directory} has no validation split, on which the ensemble's thresholds are tuned"
        )
    members = [saved_model.load(model, what="--average") for model in models]
    for member in members:
        _check_member(member, dataset)
    shares = [weight / sum(weights) for weight in weights]
    scorer = AverageScorer(members, shares)
    histogram = _over_validation(
        dataset,
        scorer,
        lambda labels, scores, mask: {"": classification.score_histogram(labels, scores, mask)},
    )[""]
    thresholds = tune(histogram, min_positives=config.evaluate.min_positives)
    module = _serving_module(config, dataset, thresholds, scorer)
    origin = {
        "members": [
            {"path": member.path, "share": share} | member.origin()
            for member, share in zip(members, shares, strict=True)
        ],
        "validation": {"mean of all": _validation_f1(dataset, module)},
    }
    path = _publish(config, dataset, module, origin, evaluation=None, thresholds=thresholds)
    print(f"exported the mean of {len(members)} models as {path}")
    _print_validation(origin)
    print(benchmark.describe(path))


def _check_member(member: SavedModel, dataset: Dataset) -> None:
    received = member.origin()
    for key, expected in _text_definition(dataset).items():
        if received.get(key) != expected:
            what = key.replace("_", " ")
            raise UserError(
                f"--average: {member.path} has other {what} than the dataset {dataset.directory}; expected models of that dataset's text"
            )
    if (names := member.label_names()) != dataset.label_names:
        differing = sorted(set(names) ^ set(dataset.label_names))
        raise UserError(
            f"--average: {member.path} has {len(names)} labels and the dataset {dataset.directory} {dataset.num_labels}; "
            f"expected the same, and these are not in both: {', '.join(differing[:5]) or 'none, but their order differs'}"
        )


def _text_definition(dataset: Dataset) -> dict[str, Any]:
    manifest = dataset.manifest
    return {
        "text_fields": list(manifest.text_fields),
        "analyzer": manifest.analyzer.model_dump(mode="json"),
    }


def _serving_module(
    config: Config, dataset: Dataset, thresholds: Thresholds, score: Callable[..., tf.Tensor]
) -> ServingModule:
    bins = thresholds.per_label_bins
    return ServingModule(
        text_fields=dataset.manifest.text_fields,
        analyzer=Analyzer(dataset.manifest.analyzer),
        score=score,
        label_names=dataset.label_names,
        threshold_bins=list(bins)
        if config.export.threshold == "per_label"
        else [thresholds.global_bin] * len(bins),
        top_k=config.export.top_k,
    )


def _check_range(model: keras.Model, weights: str) -> None:
    """Raises UserError where a weight is too large for the type that it is to be stored in."""
    dtype = tf.as_dtype(weights)
    for variable in filter(is_halved, model.variables):
        if not np.isfinite(tf.cast(tf.cast(variable.value, dtype), tf.float32)).all():
            raise UserError(
                f"export.weights: received {weights}, and the model has weights beyond its {dtype.max:g}; expected bfloat16 or float32"
            )


# --- what the exported graph is worth on the validation split ------------------------------


def _validation_f1(dataset: Dataset, module: ServingModule) -> dict[str, float]:
    """micro_f1 and macro_f1 of what `decide` assigns."""
    counts = _over_validation(
        dataset,
        module.score_analyzed,
        lambda labels, scores, mask: classification.decision_counts(
            labels, classification.decide(scores, module.threshold_bins), mask
        ),
    )
    summary = classification.summarize(counts)
    return {key: summary[key] for key in ("micro_f1", "macro_f1")}


def _over_validation(
    dataset: Dataset, score: Callable[..., tf.Tensor], count: Callable[..., Mapping[str, tf.Tensor]]
) -> Mapping[str, np.ndarray]:
    """The sums of `count(labels, scores, mask)` over the validation split, its texts scored by what is exported."""
    spec = dataset.record_spec

    @tf.function
    def step(records):
        parsed = spec.parse_batch(records, [*spec.text_names, "labels"])
        labels = multi_hot(parsed["labels"], dataset.num_labels)
        return count(
            labels, score(*(parsed[name] for name in spec.text_names)), tf.ones(tf.shape(records))
        )

    shards = dataset.shards("validation")
    total = None
    for records in tf.data.TFRecordDataset(shards, compression_of(shards)).batch(_BATCH_DOCUMENTS):
        counts = {key: value.numpy() for key, value in step(records).items()}
        total = counts if total is None else classification.add(total, counts)
    return total


def _print_validation(origin: Mapping[str, Any]) -> None:
    for name, f1 in origin.get("validation", {}).items():
        print(
            f"  {name} on the validation split: micro-F1 {f1['micro_f1']:.4f}, macro-F1 {f1['macro_f1']:.4f}"
        )


def _evaluation_text(run_dir: Path) -> str | None:
    """The newest report of `evaluate`: on the test split where there is one."""
    for split in ("test", "validation"):
        with contextlib.suppress(FileNotFoundError):
            return (run_dir / f"evaluation-{split}.txt").read_text(encoding="utf-8")
    return None


# --- publishing ----------------------------------------------------------------------------


def _publish(
    config: Config,
    dataset: Dataset,
    module: ServingModule,
    origin: Mapping[str, Any],
    *,
    evaluation: str | None,
    thresholds: Thresholds,
) -> Path:
    """Writes the next version whole or not at all and returns its directory."""
    model_dir = Path(config.export.model_dir)
    identity = {
        "name": config.name,
        "dataset_manifest_sha256": hashlib.sha256(
            (dataset.directory / MANIFEST).read_bytes()
        ).hexdigest(),
        "dataset_config_hash": dataset.manifest.config_hash,
    }
    try:
        with staging_within(model_dir) as staged:
            tf.saved_model.save(module, str(staged), signatures=module.signatures())
            _mark_classification(str(staged))
            identity["saved_model_fingerprint"] = tf.saved_model.experimental.read_fingerprint(
                str(staged)
            ).singleprint()
            origin = identity | dict(origin) | _text_definition(dataset)
            extra = staged / EXTRA
            extra.mkdir()
            (extra / CONFIG_FILE).write_text(config.to_yaml(), encoding="utf-8")
            (extra / ORIGIN).write_text(dump_json(origin), encoding="utf-8")
            (extra / "model_card.md").write_text(
                model_card.model_card(config, dataset, origin, thresholds, evaluation),
                encoding="utf-8",
            )
            warmup.write_requests(
                staged,
                name=config.name,
                text_fields=dataset.manifest.text_fields,
                vocabulary=dataset.vocabulary,
            )
            version = model_dir / str(max(versions(str(model_dir)), default=0) + 1)
            publish(staged, version)
    except OSError as error:
        raise UserError(
            f"export.model_dir: cannot write in {model_dir}: {error.strerror}; expected a directory you may write"
        ) from None
    return version


def _mark_classification(path: str) -> None:
    """TensorFlow Serving's Classify wants its signature marked, and tf.saved_model.save marks all for Predict."""
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(path)
    updater.replace_method_name("classify_examples", "tensorflow/serving/classify")
    updater.save()
    write_fingerprint(path)  # of the files as they are now
