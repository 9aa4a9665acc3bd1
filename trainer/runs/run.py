"""A trained and evaluated run, read back from its directory."""

import json
from pathlib import Path
from typing import Any

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract import places
from beam_jobs.contract.config import Config, load_saved_config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import Manifest
from beam_jobs.contract.saved_model import EXTRA, newest_version
from trainer.runs import remote_directory
from trainer.runs.evaluation_record import Evaluation, Method, read_evaluation
from trainer.runs.layout import (
    CONFIG,
    DATASET_MANIFEST,
    EVALUATED_SPLITS,
    HISTORY,
    evaluation_path,
)


class Run:
    """What a run directory holds of a trained and evaluated model.

    Args:
      place: what `train` and `evaluate` have written to.

    Raises:
      UserError: it is not a run, or it was not evaluated, or a file of it is damaged.
    """

    def __init__(self, place: str | Path):
        directory = remote_directory.local(place)
        if not directory.is_dir():
            raise UserError(
                f"--run: {place} is not a directory; expected one that "
                "`python -m trainer.task train` has written, such as out/docstrings/run"
            )
        if not (directory / CONFIG).is_file() or not (directory / HISTORY).is_file():
            raise UserError(
                f"--run: {place} holds no training run; expected train.run_dir of a run, "
                "such as out/docstrings/run"
            )
        evaluated = [
            split for split in EVALUATED_SPLITS if evaluation_path(directory, split).is_file()
        ]
        manifest_path = directory / DATASET_MANIFEST
        manifest = manifests.parse(_read_json(manifest_path), what=str(manifest_path))
        if not evaluated and not any(manifest.splits[split].examples for split in EVALUATED_SPLITS):
            raise UserError(
                f"--run: {place} was trained on a dataset without validation and test "
                "documents, so there is no evaluation to report; expected a run on a dataset with "
                "one of them (`splits`)"
            )
        if not evaluated:
            raise UserError(
                f"--run: {place} holds no evaluation; expected that of a validation or test "
                "split: run `python -m trainer.task evaluate` first"
            )
        self.directory, self.place = directory, str(place)
        self.config: Config = load_saved_config(
            directory / CONFIG, remedy="train and evaluate again"
        )
        self.history: list[dict[str, Any]] = _read_history(directory / HISTORY)
        self.manifest: Manifest = manifest
        self.evaluation: Evaluation = read_evaluation(evaluation_path(directory, evaluated[-1]))

    @property
    def name(self) -> str:
        return f"{self.config.name} ({self.place})"

    def method(self, key: str) -> Method:
        """One method of the evaluation."""
        return self.evaluation.method(key)


def run_of_model(model_dir: str) -> str:
    """The run directory that an exported model, or the newest of its versions, was trained in.

    Raises:
      UserError: it is not a model, or its run is not there.
    """
    try:
        version = newest_version(model_dir) or model_dir
        config_path = places.join(version, EXTRA, CONFIG)
        places.read_bytes(config_path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"--model: {model_dir} holds no exported model; expected a directory that "
            "`python -m trainer.task export` has written"
        ) from None
    run_dir = load_saved_config(config_path, remedy="train and export again").train.run_dir
    if not remote_directory.local(run_dir).is_dir():
        raise UserError(
            f"--model: {model_dir} was trained in {run_dir}, which is not there; expected to be "
            "called where it is, or with --run"
        )
    return run_dir


def _read_history(path: Path) -> list[dict[str, Any]]:
    rows = _read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f"{path} holds no history of epochs; expected what `python -m trainer.task` has "
            "written: train and evaluate again"
        )
    return rows


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path}: {error}; expected what `python -m trainer.task` has written: "
            "train and evaluate again"
        ) from None
