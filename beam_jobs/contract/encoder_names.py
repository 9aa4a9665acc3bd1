"""Encoders by name: of `hf://owner/name@revision` and `kaggle://...` there is a local copy.

The libraries of the two hubs download a copy, keep it, and find it again without a network; of a
directory on an object store the cache has one. What decides a dataset or a run is its content,
whose hashes the manifest and the run have.
"""

import functools

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError, first_line

_HUGGING_FACE, _KAGGLE = "hf://", "kaggle://"
# Of a repository of Hugging Face: no weights of PyTorch, ONNX or TensorFlow beside safetensors.
_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.spm"]
_WEIGHTS = ["*.safetensors", "*.weights.h5"]


def directory_of(name: str, *, key: str, with_weights: bool = False) -> str:
    """The directory of an encoder on disk: the name itself, unless it is elsewhere.

    Args:
      name: a directory, which may be on a store, or a name of a hub.
      key: the key of the config, for errors.
      with_weights: its weights are needed, not its tokenizer alone.

    Raises:
      UserError: the hub's library is not installed, or it cannot get the encoder; or the store
        does not answer.
    """
    if not name.startswith((_HUGGING_FACE, _KAGGLE)):
        return places.local_directory(name, patterns=_SMALL_FILES + _WEIGHTS * with_weights)
    try:
        return _copy_of(name, with_weights)
    except ImportError as error:
        raise UserError(
            f"{key}: received {name!r}, which needs a package that is not installed ({error}); "
            "expected it: pip install 'multihot[pretrained]'"
        ) from None
    # The two libraries raise many kinds, for names, networks, keys and disks.
    except Exception as error:
        raise UserError(
            f"{key}: cannot get {name}: {first_line(error)}; expected the name of an encoder and a "
            "network that reaches it, or the directory of one on disk"
        ) from None


@functools.cache
def _copy_of(name: str, with_weights: bool) -> str:
    if name.startswith(_KAGGLE):
        import kagglehub

        return kagglehub.model_download(name.removeprefix(_KAGGLE))
    import huggingface_hub

    repository, _, revision = name.removeprefix(_HUGGING_FACE).partition("@")
    patterns = _SMALL_FILES + (_WEIGHTS if with_weights else [])
    return huggingface_hub.snapshot_download(
        repository, revision=revision or None, allow_patterns=patterns
    )
