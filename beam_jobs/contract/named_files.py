"""The files that a config names: their content decides a dataset or a run, as its keys do.

A dataset and a run keep the SHA-256 of each, and are not reused where one has changed.
(`model.pretrained_vectors` only decides first weights, which a run has in its checkpoints.)
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from beam_jobs.contract import encoder_tokenizer, label_lists, places
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError

DATASET_KEYS = (
    "text.stop_words",
    "text.subwords",
    "labels.allow",
    "labels.include",
    "data.label_names",
)
RUN_KEYS = ("loss.pos_weight_file", "model.label_descriptions")
# Values of these keys that are not paths.
_NO_FILES = {
    "text.stop_words": "english",
    "text.subwords": "train",
    "model.label_descriptions": "names",
}


def hash_files(config: Config, keys: Sequence[str]) -> dict[str, str]:
    """The SHA-256, in hex, of each file that one of the keys names, by the key.

    Raises:
      UserError: a file cannot be read.
    """
    hashes = {}
    for key in keys:
        section, _, name = key.partition(".")
        # Not every kind of a section has the key.
        path = getattr(getattr(config, section), name, None)
        if not isinstance(path, str) or path == _NO_FILES.get(key):
            continue
        try:
            labels = label_lists.labels_of_dataset(path) if section == "labels" else None
            content = places.read_bytes(path) if labels is None else json.dumps(labels).encode()
            hashes[key] = hashlib.sha256(content).hexdigest()
        except OSError as error:
            raise UserError(
                f"{key}: cannot read {path!r}: {error}; expected a file that can be read"
            ) from None
    return hashes


def hash_tokenizer(config: Config) -> dict[str, str]:
    """The same for `text.tokenizer`, where it is the directory of an encoder: the hash of the files
    that decide its tokenizer.

    Raises:
      UserError: there are none, or one cannot be read.
    """
    directory = config.text.encoder_directory
    if directory is None:
        return {}
    return {"text.tokenizer": encoder_tokenizer.hash_of_files(directory)}


def describe_changes(saved: Mapping[str, str], now: Mapping[str, str], config: Config) -> list[str]:
    """`FILE (KEY)` of each file whose content is not what it was.

    Args:
      saved: what `hash_files` returned when the dataset or the run was made.
      now: what it returns for `config`, whose keys have the same values.
    """
    changed = []
    for key in now:
        if now[key] != saved.get(key):
            section, _, name = key.partition(".")
            changed.append(f"{getattr(getattr(config, section), name)} ({key})")
    return changed
