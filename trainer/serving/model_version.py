"""The next version of a model directory: a SavedModel and what belongs beside it."""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.saved_model.fingerprinting_utils import write_fingerprint

from beam_jobs.contract import places
from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.atomic import publish, staging_within
from beam_jobs.contract.config import CONFIG_FILE, Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST, dump_json
from beam_jobs.contract.saved_model import EXTRA, GRAPH, ORIGIN, versions
from beam_jobs.contract.store_lock import exclusive_on_store
from trainer.data.dataset import Dataset
from trainer.evaluation.text_report import labels_without_own_threshold
from trainer.metrics.classification import NEVER
from trainer.metrics.thresholds import NEVER_TRAINED, Thresholds
from trainer.serving import benchmark, model_card, warmup
from trainer.serving.serving_module import ServingModule
from trainer.serving.synthetic_texts import columns_of, synthetic_texts


def serving_module(
    config: Config, dataset: Dataset, thresholds: Thresholds, score: Callable[..., tf.Tensor]
) -> ServingModule:
    """The graph to export: `score` with the dataset's analyzer and labels, and the thresholds."""
    bins = list(thresholds.per_label_bins)
    if config.export.threshold == "global":
        bins = list(thresholds.common_bins)
    elif config.export.threshold == "best":
        bins = np.where(thresholds.is_assignable, 0, NEVER).tolist()
    return ServingModule(
        text_fields=dataset.manifest.text_fields,
        analyzer=Analyzer(dataset.manifest.analyzer),
        score=score,
        label_names=dataset.label_names,
        threshold_bins=bins,
        top_k=config.export.top_k,
        best_only=config.export.threshold == "best",
    )


def write_version(
    config: Config,
    dataset: Dataset,
    module: ServingModule,
    origin: Mapping[str, Any],
    *,
    evaluation: str | None,
    thresholds: Thresholds,
    thresholds_origin: str,
    measured: Mapping[str, Any] | None = None,
) -> str:
    """Writes `export.model_dir/N` whole or not at all; N is one more than the newest version.

    Args:
      config: the experiment.
      dataset: what the model was trained on.
      module: what is exported.
      origin: where the model comes from; `origin.json` holds it, with the dataset's hashes and text
        definition.
      evaluation: the report that `evaluate` has written; None: there is none.
      thresholds: those that the module applies, and more.
      thresholds_origin: for people, how they came about, as a clause after "the thresholds are".
      measured: what a model hub shows of the evaluation, see
        `trainer.serving.model_card.model_card`.

    Returns:
      The version's directory.

    Raises:
      UserError: it cannot be written.
    """
    model_dir = config.export.model_dir
    try:
        with _staging(model_dir) as staged:
            tf.saved_model.save(module, str(staged), signatures=module.signatures())
            _mark_classification(str(staged))
            fingerprint = tf.saved_model.experimental.read_fingerprint(str(staged)).singleprint()
            origin = (
                _identity(config, dataset)
                | {
                    "saved_model_fingerprint": fingerprint,
                    "thresholds": thresholds_origin,
                    "labels_never_trained": _never_trained(dataset, thresholds),
                }
                | dict(origin)
                | text_definition(dataset)
            )
            card = model_card.model_card(
                config, dataset, origin, thresholds, evaluation=evaluation, measured=measured
            )
            _write_beside(staged, config, dataset, origin=origin, card=card)
            if places.is_remote(model_dir):
                return upload_version(staged, model_dir)
            version = _next_version(model_dir)
            publish(staged, Path(version))
    except OSError as error:
        raise UserError(
            f"export.model_dir: cannot write in {model_dir}: {error.strerror}; expected a "
            "directory you may write"
        ) from None
    return version


def _write_beside(
    staged: Path, config: Config, dataset: Dataset, *, origin: Mapping[str, Any], card: str
) -> None:
    """Writes what belongs beside the SavedModel: config, origin, card, requests to warm it up."""
    extra = staged / EXTRA
    extra.mkdir()
    (extra / CONFIG_FILE).write_text(config.to_yaml(), encoding="utf-8")
    (extra / ORIGIN).write_text(dump_json(origin), encoding="utf-8")
    # Where model hubs look for it.
    (staged / model_card.FILE).write_text(card, encoding="utf-8")
    columns = columns_of(synthetic_texts(dataset.vocabulary), dataset.manifest.text_fields)
    warmup.write_requests(staged, name=config.name, columns=columns)


@contextlib.contextmanager
def _staging(model_dir: str) -> Iterator[Path]:
    """A new directory to write a version in, which may then be moved into `model_dir`."""
    if places.is_remote(model_dir):
        with tempfile.TemporaryDirectory(prefix="multihot-model-") as folder:
            yield Path(folder, "version")
    else:
        with staging_within(Path(model_dir)) as staged:
            yield staged


def _next_version(model_dir: str) -> str:
    return places.join(model_dir, str(max(versions(model_dir), default=0) + 1))


def upload_version(staged: Path, model_dir: str) -> str:
    """Puts a version on a store: its graph last, without which it is none for whoever looks.

    What exports that were killed have put there is removed.

    Returns:
      The version's URL.

    Raises:
      UserError: another export is writing there, or the store does not answer.
    """
    names = [path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()]
    with exclusive_on_store(model_dir, "export.model_dir"):
        folders = {name.partition("/")[0] for name in names}
        _remove_unfinished(model_dir, files_of_versions=folders)
        version = _next_version(model_dir)
        for name in sorted(names, key=lambda name: (name == GRAPH, name)):
            places.upload(staged / name, places.join(version, name))
    return version


def _remove_unfinished(model_dir: str, *, files_of_versions: Collection[str]) -> None:
    """Removes versions without a graph; a folder that holds anything else is somebody's own."""
    found = places.list_files(model_dir)
    for number in map(str, versions(model_dir)):
        names = [name for name in found if name.startswith(f"{number}/")]
        if f"{number}/{GRAPH}" not in found and all(
            name.split("/")[1] in files_of_versions for name in names
        ):
            places.delete(found[name].path for name in names)


def _never_trained(dataset: Dataset, thresholds: Thresholds) -> list[str]:
    names = zip(dataset.label_names, thresholds.sources, strict=True)
    return [name for name, source in names if source == NEVER_TRAINED]


def print_summary(
    path: str,
    dataset: Dataset,
    origin: Mapping[str, Any],
    thresholds: Thresholds,
    thresholds_origin: str,
) -> None:
    """Prints what an export's thresholds rest on, its F1 if it was measured, its size and speed."""
    print(f"  thresholds: {thresholds_origin}")
    for line in labels_without_own_threshold(thresholds.sources, dataset.label_names):
        print(f"  {line}")
    for name, f1 in origin.get("validation", {}).items():
        print(
            f"  {name} on the validation split: "
            f"micro-F1 {f1['micro_f1']:.4f}, macro-F1 {f1['macro_f1']:.4f}"
        )
    print(benchmark.describe(path, synthetic_texts(dataset.vocabulary)))


def text_definition(dataset: Dataset) -> dict[str, Any]:
    """What a model's texts are: models with the same may be averaged."""
    manifest = dataset.manifest
    return {
        "text_fields": list(manifest.text_fields),
        "analyzer": manifest.analyzer.model_dump(mode="json"),
    }


def _identity(config: Config, dataset: Dataset) -> dict[str, Any]:
    manifest = (dataset.directory / MANIFEST).read_bytes()
    return {
        "name": config.name,
        "dataset_manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "dataset_config_hash": dataset.manifest.config_hash,
    }


def _mark_classification(path: str) -> None:
    """Gives `classify_examples` the method name that TensorFlow Serving's Classify requires.

    tf.saved_model.save names the Predict method in all signatures.
    """
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(path)
    updater.replace_method_name("classify_examples", "tensorflow/serving/classify")
    updater.save()
    write_fingerprint(path)  # of the changed files
