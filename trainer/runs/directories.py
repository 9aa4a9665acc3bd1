"""The directories of a run and its model: from the config, the platform, the fold."""

import os
from collections.abc import Mapping

from beam_jobs.contract.config import Config
from trainer.runs.layout import LOGS


def with_directories(config: Config, environment: Mapping[str, str]) -> Config:
    """The config with the directories that its run and its model are really written to.

    On Vertex AI, AIP_CHECKPOINT_DIR replaces train.run_dir and AIP_MODEL_DIR replaces
    export.model_dir. A fold has directories of its own in them: `fold-0` and so on, in the repeats
    after the first `repeat-1/fold-0`. A config that has them, as a run saves it, stays as it is.
    """
    run_dir, model_dir = config.train.run_dir, config.export.model_dir
    if environment.get("AIP_CHECKPOINT_DIR"):
        run_dir = _mounted(environment["AIP_CHECKPOINT_DIR"])
    if environment.get("AIP_MODEL_DIR"):
        model_dir = _mounted(environment["AIP_MODEL_DIR"])
    if config.train.fold is not None:
        fold = f"fold-{config.train.fold}"
        if config.train.fold_repeat:
            fold = f"repeat-{config.train.fold_repeat}/{fold}"
        if not f"/{run_dir}".endswith(f"/{fold}"):
            run_dir, model_dir = f"{run_dir}/{fold}", f"{model_dir}/{fold}"
    return config.model_copy(
        update={
            "train": config.train.model_copy(update={"run_dir": run_dir}),
            "export": config.export.model_copy(update={"model_dir": model_dir}),
        }
    )


def log_dir(run_dir: str, environment: Mapping[str, str]) -> str:
    """The directory of TensorBoard's logs: AIP_TENSORBOARD_LOG_DIR, or a folder of the run."""
    if environment.get("AIP_TENSORBOARD_LOG_DIR"):
        return _mounted(environment["AIP_TENSORBOARD_LOG_DIR"])
    return os.path.join(run_dir, LOGS)


def _mounted(path: str) -> str:
    """Vertex AI mounts gs://BUCKET as /gcs/BUCKET."""
    return "/gcs/" + path.removeprefix("gs://").rstrip("/") if path.startswith("gs://") else path
