"""An exported model on disk: numbered versions of a SavedModel, found, checked and loaded."""

import dataclasses
import json
import os
from pathlib import PurePath
from typing import Any

from beam_jobs.contract.errors import UserError, first_line

SIGNATURES = ("serving_default", "scores", "decide", "classify_examples", "analyze")
EXTRA = "assets.extra"  # the folder of a SavedModel that TensorFlow ignores
ORIGIN = "origin.json"
_GRAPH = "saved_model.pb"  # a directory without it is not a SavedModel
_ADVICE = (
    "expected a directory that `python -m trainer.task export` has written, such as "
    "out/docstrings/model"
)


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A loaded model.

    Attributes:
      path: the version's directory.
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
        import tensorflow as tf

        path = f"{self.path}/{EXTRA}/{ORIGIN}"
        try:
            with tf.io.gfile.GFile(path) as stream:
                return json.loads(stream.read())
        except (tf.errors.OpError, ValueError) as error:
            raise UserError(
                f"cannot read {path}: {first_line(error)}; export the model again"
            ) from None


def find_version(model_dir: str, *, what: str = "--model") -> str:
    """The directory of a SavedModel: `model_dir` itself, or its highest number.

    Raises:
      UserError: there is no SavedModel.
    """
    import tensorflow as tf

    files = tf.io.gfile
    model_dir = model_dir.rstrip("/") or model_dir
    if not files.isdir(model_dir):
        raise UserError(f"{what}: {model_dir} is not a directory; {_ADVICE}")
    if files.exists(f"{model_dir}/{_GRAPH}"):
        return model_dir
    version = newest_version(model_dir)
    if version is None:
        raise UserError(f"{what}: {model_dir} holds no SavedModel; {_ADVICE}")
    return version


def versions(model_dir: str) -> list[int]:
    """The numbers of the versions in a directory, also of those that are not whole; ascending.

    TensorFlow is needed only for directories that are not local, such as gs://.
    """
    list_names = os.listdir
    if "://" in model_dir:
        import tensorflow as tf

        list_names = tf.io.gfile.listdir  # directories have a slash at the end
    names = [name.rstrip("/") for name in list_names(model_dir)]
    return sorted(int(name) for name in names if name.isdigit())


def newest_version(model_dir: str) -> str | None:
    """The directory of the highest number that holds a whole SavedModel; None: there is none."""
    exists = os.path.exists
    if "://" in model_dir:
        import tensorflow as tf

        exists = tf.io.gfile.exists
    paths = [f"{model_dir}/{number}" for number in reversed(versions(model_dir))]
    return next((path for path in paths if exists(f"{path}/{_GRAPH}")), None)


def load(model_dir: str, *, what: str = "--model") -> SavedModel:
    """Loads a version of a model: its directory, or the newest in a directory of versions.

    Raises:
      UserError: there is no complete SavedModel of this project.
    """
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (registers the analyzer's ops)

    path = find_version(model_dir, what=what)
    try:
        module = tf.saved_model.load(path)
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
