"""Pretrained encoders: read by KerasHub from a directory, or built again from what a run holds.

KerasHub is imported here alone, and only where a model is an encoder.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from beam_jobs.contract.encoder_names import directory_of
from beam_jobs.contract.errors import UserError, first_line

# What KerasHub 0.32 converts from Hugging Face's directories, of encoders.
_MODEL_TYPES = ("bert", "distilbert", "roberta", "xlm-roberta", "albert")
_INPUTS = {"token_ids", "padding_mask", "segment_ids"}
_LAYER = re.compile(r"(?:transformer_layer|disentangled_attention_encoder_layer|group)_(\d+)")
_READABLE = (
    f"expected a directory of Hugging Face with safetensors of the type {', '.join(_MODEL_TYPES)}, "
    "or a preset of KerasHub"
)
_MAX_FAULT = 200  # characters
_READ_BYTES = 16 << 20  # 16 MiB


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An encoder without what stands on it.

    Attributes:
      network: {token_ids, padding_mask and, for some, segment_ids: int32 [batch, tokens]} ->
        states [batch, tokens, dim].
      dim: size of a state.
      max_tokens: the longest sequence that has positions; None: any length has.
      description: JSON values from which `build_encoder` makes it again, without its weights.
    """

    network: keras.Model
    dim: int
    max_tokens: int | None
    description: Mapping[str, Any]

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers of attention, from the lowest."""
        return [layer for layer in self.network.layers if _LAYER.match(layer.name)]

    @property
    def embeddings(self) -> keras.layers.Layer:
        """The layer of the embeddings of token ids."""
        ids = self.network.input["token_ids"]
        return next(
            layer
            for layer in self.network.layers
            if not isinstance(layer, keras.layers.InputLayer) and layer.input is ids
        )

    @property
    def num_pieces(self) -> int:
        """The number of pieces that have an embedding."""
        layer = self.embeddings  # of some, it has those of positions beside it
        return getattr(layer, "token_embedding", layer).input_dim


def layer_number(path: str) -> int | None:
    """The number of the layer that the path of a weight is of, from the lowest; None: of none."""
    match = _LAYER.match(path)
    return None if match is None else int(match[1])


def load_encoder(directory: str) -> Encoder:
    """Reads an encoder and its weights, from a directory or by name.

    Raises:
      UserError: KerasHub is not installed, or the directory holds no encoder that it reads.
    """
    hub = _keras_hub()
    directory = directory_of(directory, key="model.backbone", with_weights=True)
    root = Path(directory)
    _check_readable(root)
    try:
        backbone = hub.models.Backbone.from_preset(directory)
    except Exception as error:  # it raises nearly anything for files that are missing or damaged
        fault = f"{type(error).__name__}: {first_line(error)[:_MAX_FAULT]}"
        raise _refusal(root, f"cannot be read: {fault}") from None
    description = {
        "backbone": keras.saving.serialize_keras_object(backbone),
        "weights_sha256": _hash_of_weights(root),
        "pooling": _sentence_pooling(root),
    }
    return _encoder(backbone, description, root)


def build_encoder(description: Mapping[str, Any]) -> Encoder:
    """Builds the encoder of `Encoder.description` again, with weights that are to be restored.

    Raises:
      UserError: KerasHub is not installed.
    """
    _keras_hub()
    saved = dict(description["backbone"])
    # It computes in what the model around it computes in.
    saved["config"] = saved["config"] | {"dtype": keras.config.dtype_policy().name}
    backbone = keras.saving.deserialize_keras_object(saved)
    return _encoder(backbone, description, None)


def _keras_hub() -> Any:
    try:
        import keras_hub
        import safetensors  # noqa: F401  (KerasHub needs it and does not declare it)
    except ImportError as error:
        raise UserError(
            f"model.name: received 'pretrained', which needs a package that is not installed "
            f"({error}); expected KerasHub and safetensors: pip install 'multihot[pretrained]'"
        ) from None
    return keras_hub


def _encoder(backbone: keras.Model, description: Mapping[str, Any], root: Path | None) -> Encoder:
    inputs = backbone.input
    if not isinstance(inputs, dict) or not {"token_ids", "padding_mask"} <= set(inputs) <= _INPUTS:
        raise _refusal(root, f"holds {type(backbone).__name__}, which is no encoder of text")
    states = backbone.output
    if isinstance(states, dict):
        states = states["sequence_output"]
    # What follows the states, such as BERT's pooler, is left out.
    network = keras.Model(inputs, states, name="encoder")
    longest = getattr(backbone, "max_sequence_length", None)
    return Encoder(network, states.shape[-1], longest, description)


def _refusal(root: Path | None, what: str) -> UserError:
    return UserError(f"model.backbone: {root} {what}; {_READABLE}")


def _check_readable(root: Path) -> None:
    """Raises UserError at once where KerasHub would only later, or not say what is wrong."""
    if not root.is_dir():
        raise _refusal(root, "is no directory")
    try:
        config = json.loads((root / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refusal(root, f"holds no config.json that can be read ({error})") from None
    if not isinstance(config, dict):
        raise _refusal(root, "holds a config.json without an object in it")
    if "registered_name" in config or "class_name" in config:
        return
    kind = config.get("model_type")
    if kind not in _MODEL_TYPES:
        raise _refusal(root, f"holds a model of the type {kind!r}, which KerasHub does not convert")
    if not _weight_files(root):
        raise _refusal(
            root, "holds no *.safetensors: save the model with safe_serialization, which is current"
        )


def _weight_files(root: Path) -> list[Path]:
    return sorted([*root.glob("*.safetensors"), *root.glob("*.weights.h5")])


def _hash_of_weights(root: Path) -> str:
    digest = hashlib.sha256()
    for path in _weight_files(root):
        with open(path, "rb") as stream:
            while block := stream.read(_READ_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _sentence_pooling(root: Path) -> str | None:
    """How a folder of sentence-transformers makes one vector of the states; None: it is no such."""
    path = root / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    try:
        options = json.loads(path.read_text(encoding="utf-8")).items()
    except (OSError, ValueError, AttributeError) as error:
        raise _refusal(root, f"holds a {path.relative_to(root)} of no use ({error})") from None
    modes = [key.removeprefix("pooling_mode_") for key, on in options if on is True]
    modes = [key for key in modes if key in ("mean_tokens", "cls_token")] or modes
    return {"mean_tokens": "mean", "cls_token": "cls"}.get(modes[0], modes[0]) if modes else None
