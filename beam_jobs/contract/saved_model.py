"""An exported model on disk: numbered versions of a SavedModel, found, checked and loaded."""

import dataclasses
import json
import os
from collections.abc import Collection
from pathlib import PurePath
from typing import Any

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError, first_line

SIGNATURES = ("serving_default", "scores", "decide", "classify_examples", "analyze")
EXTRA = "assets.extra"  # the folder of a SavedModel that TensorFlow ignores
ORIGIN = "origin.json"
GRAPH = "saved_model.pb"  # a directory without it is not a SavedModel
_ADVICE = (
    "expected a directory that `python -m trainer.task export` has written, such as "
    "out/docstrings/model"
)


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A loaded model.

    Attributes:
      path: the version's directory, as it was found; a URL of one on a store.
      module: what tf.saved_model.load returned: its signatures and functions.
      text_fields: names of a document's texts, which the signatures take as string tensors [N].
      num_labels: number of labels.
    """

    path: str
    module: Any
    text_fields: tuple[str, ...]
    num_labels: int

    @property
    def version(self) -> str:
        """The number of the version, or the directory's name where it has none."""
        return PurePath(self.path).name

    def label_names(self) -> list[str]:
        """By label id."""
        return [name.decode() for name in self.module.label_names().numpy()]

    def origin(self) -> dict[str, Any]:
        """What the export says of the model: hashes of the dataset, analyzer, step."""
        path = places.join(self.path, EXTRA, ORIGIN)
        try:
            origin = json.loads(places.read_bytes(path))
            if not isinstance(origin, dict) or not isinstance(origin.get("name"), str):
                raise ValueError("expected an object with the name of an experiment")
            return origin
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"cannot read {path}: {first_line(error)}; export the model again"
            ) from None


def find_version(model_dir: str, *, what: str = "--model") -> str:
    """The directory of a SavedModel: `model_dir` itself, or its highest number.

    Raises:
      UserError: there is no SavedModel.
    """
    model_dir = model_dir.rstrip("/") or model_dir
    if not places.is_remote(model_dir) and not os.path.isdir(model_dir):
        raise UserError(f"{what}: {model_dir} is not a directory; {_ADVICE}")
    names = _names(model_dir)
    if GRAPH in names:
        return model_dir
    version = _newest(model_dir, names)
    if version is None:
        raise UserError(f"{what}: {model_dir} holds no SavedModel; {_ADVICE}")
    return version


def _names(model_dir: str) -> set[str]:
    """The files of a directory, and of those in it, by their paths from there."""
    if places.is_remote(model_dir):
        return set(places.list_files(model_dir))
    folders = [model_dir, *(entry.path for entry in os.scandir(model_dir) if entry.is_dir())]
    return {
        os.path.relpath(entry.path, model_dir) for folder in folders for entry in os.scandir(folder)
    }


def _newest(model_dir: str, names: Collection[str]) -> str | None:
    numbers = (name.removesuffix(f"/{GRAPH}") for name in names if name.endswith(f"/{GRAPH}"))
    newest = max((int(number) for number in numbers if number.isdigit()), default=None)
    return None if newest is None else places.join(model_dir, str(newest))


def versions(model_dir: str) -> list[int]:
    """The numbers of the versions in a directory, also of those that are not whole; ascending."""
    if places.is_remote(model_dir):
        names = {name.partition("/")[0] for name in places.list_files(model_dir)}
    else:
        names = set(os.listdir(model_dir))
    return sorted(int(name) for name in names if name.isdigit())


def newest_version(model_dir: str) -> str | None:
    """The directory of the highest number that holds a whole SavedModel; None: there is none."""
    if not places.is_remote(model_dir) and not os.path.isdir(model_dir):
        return None
    return _newest(model_dir, _names(model_dir))


def load(model_dir: str, *, what: str = "--model") -> SavedModel:
    """Loads a version of a model: its directory, or the newest in a directory of versions.

    Raises:
      UserError: there is no complete SavedModel of this project.
    """
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (registers the analyzer's ops)

    path = find_version(model_dir, what=what)
    try:
        module = tf.saved_model.load(places.local_directory(path))
    except UserError:
        raise
    except (
        Exception
    ) as error:  # TensorFlow raises nearly anything for files that are damaged or cut short
        raise UserError(
            f"{what}: {path} cannot be loaded, it is damaged or was not copied whole: "
            f"{first_line(error)}; {_ADVICE}"
        ) from None
    missing = [name for name in SIGNATURES if name not in getattr(module, "signatures", {})]
    if missing:
        raise UserError(
            f"{what}: {path} is a SavedModel without the signatures {', '.join(missing)}; {_ADVICE}"
        )
    inputs = [spec.name for spec in module.score_analyzed.input_signature]
    return SavedModel(
        path,
        module,
        tuple(inputs),
        module.signatures["scores"].structured_outputs["scores"].shape[1],
    )
