"""What `train --from` starts from: the weights of a run or of an exported model, and the names of
their rows.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract import places, saved_model
from beam_jobs.contract.config import CONFIG_FILE, load_saved_config
from beam_jobs.contract.encoder_tokenizer import EncoderTokenizer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST
from beam_jobs.contract.sections.linear_model import LinearConfig
from beam_jobs.contract.sections.model import CustomConfig, ModelConfig
from beam_jobs.contract.sections.network_models import BowTreeConfig
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from trainer.data.dataset import open_dataset
from trainer.runs import remote_directory
from trainer.runs.checkpoints import best_weights
from trainer.runs.layout import CONFIG, DATASET_MANIFEST, ENCODER

# Where the graph of an export has the model's variables, and the ids of tokens.
_MODEL = "_score/_model"
_TOKEN_IDS = "_score/_vectorizer/_lookup_layer/lookup_table"


@dataclasses.dataclass(frozen=True)
class Names:
    """Tokens and labels of a dataset, in the order of their ids."""

    tokens: Sequence[str]
    labels: Sequence[str]


@dataclasses.dataclass(frozen=True)
class EarlierModel:
    """A trained model without its graph.

    Attributes:
      config: the section `model` that it was trained with.
      names: of its rows.
      num_texts: texts of a document.
      weights: of a model like it, the values of its variables in their order; None: not known.
      encoder: of a pretrained encoder, its tokenizer and the hash of its weights before training.
    """

    config: ModelConfig
    names: Names
    num_texts: int
    weights: Callable[[keras.Model], Sequence[np.ndarray | None]]
    encoder: tuple[EncoderTokenizer | None, str] | None = None


def open_earlier(source: str | Path) -> EarlierModel:
    """Opens a run directory, whose dataset must be there still, or the directory of a model.

    Raises:
      UserError: it is neither, or what it needs is not there any more.
    """
    directory = remote_directory.local(source)
    if (directory / CONFIG).is_file():
        return _of_run(directory, source)
    if saved_model.newest_version(str(source)) or (Path(source) / saved_model.GRAPH).is_file():
        return _of_export(str(source))
    raise UserError(
        f"--from: {source} holds no run; expected train.run_dir of one, such as "
        "out/docstrings/run, or the directory of an exported model, such as out/docstrings/model"
    )


def check_kind(config: ModelConfig) -> None:
    """Raises UserError unless a model's weights can be carried over to another dataset."""
    if isinstance(config, LinearConfig):
        raise UserError(
            "--from: received with `model.name: linear`, whose labels are fitted anew each time; "
            "expected a model that is trained in steps, such as model.name=bow"
        )
    if isinstance(config, BowTreeConfig | CustomConfig):
        reason = (
            "whose labels are in clusters of their own dataset's"
            if isinstance(config, BowTreeConfig)
            else "whose variables do not say which of their rows are of tokens and labels"
        )
        raise UserError(
            f"--from: received with `model.name: {config.name}`, {reason}; expected another model, "
            "such as model.name=bow"
        )


def _of_run(directory: Path, source: str | Path) -> EarlierModel:
    config = load_saved_config(directory / CONFIG, remedy="train it again")
    check_kind(config.model)
    saved = json.loads((directory / DATASET_MANIFEST).read_text(encoding="utf-8"))
    try:
        manifest = json.loads(places.read_bytes(places.join(config.output.dataset_dir, MANIFEST)))
    except (FileNotFoundError, NotADirectoryError):
        manifest = None
    if manifest != saved:
        raise UserError(
            f"--from: the dataset of {source}, {config.output.dataset_dir}, is not there any more "
            "as it was; expected it, for its tokens and labels: make the new dataset in another "
            "output.dataset_dir, or start from the exported model, which has them"
        )
    weights = best_weights(directory)
    if weights is None:
        raise UserError(f"--from: {source} has no trained epoch; expected a run with one")
    dataset, encoder = open_dataset(config), None
    if isinstance(config.model, PretrainedConfig):
        description = json.loads((directory / ENCODER).read_text(encoding="utf-8"))
        encoder = dataset.manifest.analyzer.encoder_tokenizer, description["weights_sha256"]
    return EarlierModel(
        config.model,
        Names(dataset.vocabulary, dataset.label_names),
        len(dataset.record_spec.text_names),
        lambda _: weights,
        encoder,
    )


def _of_export(source: str) -> EarlierModel:
    loaded = saved_model.load(source, what="--from")
    directory = Path(places.local_directory(loaded.path))
    config = load_saved_config(
        directory / saved_model.EXTRA / CONFIG_FILE, remedy="export the model again"
    )
    check_kind(config.model)
    if isinstance(config.model, PretrainedConfig):
        raise UserError(
            f"--from: {source} is an exported model with an encoder, whose weights before its "
            "training are not in it; expected the run that it was exported from"
        )
    table = dict(_paths(loaded.module)).get(_TOKEN_IDS)
    if table is None or config.export.weights != "float32":
        raise UserError(
            f"--from: {source} holds an ensemble, or weights in half precision; expected one "
            "model with export.weights: float32, or a run"
        )
    return EarlierModel(
        config.model,
        Names(_tokens(table), loaded.label_names()),
        len(loaded.text_fields),
        lambda model: _weights_like(model, directory),
    )


def _tokens(table: Any) -> list[str]:
    """The tokens of a table of ids, in their order."""
    tokens, ids = tf.raw_ops.LookupTableExportV2(
        table_handle=table.resource_handle, Tkeys=tf.string, Tvalues=tf.int64
    )
    return [token.decode() for token in tokens.numpy()[np.argsort(ids.numpy())]]


def _weights_like(model: keras.Model, directory: Path) -> list[np.ndarray | None]:
    """The values of an export's variables, by where the same variables are in a model."""
    reader = tf.train.load_checkpoint(str(directory / "variables/variables"))
    keys = {id(node): f"{_MODEL}/{path}/.ATTRIBUTES/VARIABLE_VALUE" for path, node in _paths(model)}
    return [
        reader.get_tensor(keys[id(variable)])
        if reader.has_tensor(keys.get(id(variable), ""))
        else None
        for variable in model.variables
    ]


def _paths(root: Any) -> Iterator[tuple[str, Any]]:
    """What a SavedModel has of an object, by the names that lead there."""
    view, queue, seen = tf.train.TrackableView(root), [("", root)], {id(root)}
    for path, node in queue:
        yield path, node
        for name, child in view.children(node).items():
            if id(child) not in seen:
                seen.add(id(child))
                queue.append((f"{path}/{name}".lstrip("/"), child))
