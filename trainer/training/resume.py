"""Opening a run directory: creates it, or checks that the run in it can be resumed."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beam_jobs.contract.atomic import (
    LOCK,
    exclusive_within,
    file_of_temporary,
    write_atomically,
)
from beam_jobs.contract.config import Config, differing_keys, load_saved_config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST, dump_json
from beam_jobs.contract.named_files import RUN_KEYS, hash_files
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from trainer.distribution.strategy import is_chief, sum_over_workers
from trainer.experiment import Experiment, changed_files
from trainer.runs import checkpoints, remote_directory
from trainer.runs.checkpoints import RunState
from trainer.runs.layout import (
    CONFIG,
    DATASET_MANIFEST,
    EARLIER_RUN,
    ENCODER,
    HISTORY,
    NAMED_FILES,
)
from trainer.training.carry_over import CarryOver

# Before the config, which makes it a run.
_FIRST_FILES = (DATASET_MANIFEST, NAMED_FILES, ENCODER, EARLIER_RUN)
# The sections of the config that decide the weights.
_RUN_SECTIONS = {"model", "loss", "optimizer", "train"}
# Their keys that may differ between a run and its resumption: they decide how long it trains, where
# it runs and what it keeps, and change no step.
_MAY_CHANGE = {
    "model.output_devices",
    "train.run_dir",
    "train.strategy",
    "train.replicas",
    "train.worker_timeout_seconds",
    "train.on_corrupt",
    "train.patience",
    "train.steps_per_call",
    "train.checkpoint_steps",
    "train.keep_checkpoints",
}


@contextlib.contextmanager
def open_run_directory(
    experiment: Experiment, *, fresh: bool, earlier: CarryOver | None = None
) -> Iterator[None]:
    """Creates the run directory, or checks that the run in it has the same config and dataset;
    during the block no other run can be opened there.

    The chief does it. The other workers wait, and stop if it refuses.

    Args:
      experiment: its `run_dir` is opened.
      fresh: delete an earlier run first.
      earlier: what a new run starts from.

    Raises:
      UserError: the run there cannot be resumed, or the directory cannot be used.
    """
    refusal = None
    with contextlib.ExitStack() as held:
        if is_chief(experiment.strategy):
            try:
                held.enter_context(exclusive_within(experiment.run_dir, "train.run_dir"))
                held.enter_context(
                    remote_directory.exclusive(experiment.run_place, "train.run_dir")
                )
                _open(experiment, fresh=fresh, earlier=earlier)
                experiment.push()
            except UserError as error:
                refusal = error
        if sum_over_workers(experiment.strategy, int(refusal is not None)):
            raise refusal or UserError(
                "the chief, worker 0, has refused to start; its own message says why"
            )
        if not is_chief(experiment.strategy):
            remote_directory.refresh(experiment.run_place)
        yield


def _open(experiment: Experiment, *, fresh: bool, earlier: CarryOver | None) -> None:
    run_dir = experiment.run_dir
    manifest = (experiment.dataset.directory / MANIFEST).read_text(encoding="utf-8")
    is_run = (run_dir / CONFIG).exists()
    paths = [path for path in run_dir.iterdir() if path.name != LOCK]
    if not is_run and any(path.name not in _FIRST_FILES for path in paths if not _is_left(path)):
        raise UserError(
            f"train.run_dir: {experiment.run_place} holds files, but no run; expected a new "
            "directory"
        )
    if is_run and not fresh:
        _check_same_run(experiment, manifest)
    try:
        # What makes it a run goes last, so that a killed command is begun again.
        for path in sorted(paths, key=lambda path: path.name == CONFIG):
            if fresh and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif fresh or _is_left(path):
                path.unlink()
        write_atomically(run_dir / DATASET_MANIFEST, manifest)
        write_atomically(run_dir / NAMED_FILES, dump_json(hash_files(experiment.config, RUN_KEYS)))
        if isinstance(experiment.config.model, PretrainedConfig):
            write_atomically(run_dir / ENCODER, dump_json(experiment.model.encoder_description))
        if earlier is not None:
            write_atomically(run_dir / EARLIER_RUN, dump_json(earlier.record))
        elif not checkpoints.has_begun(run_dir):
            (run_dir / EARLIER_RUN).unlink(missing_ok=True)
        write_atomically(run_dir / CONFIG, experiment.config.to_yaml())
    except OSError as error:
        raise UserError(
            f"train.run_dir: cannot write to {run_dir}: {error.strerror}; expected a directory "
            "that you may write to"
        ) from None


def _is_left(path: Path) -> bool:
    """Whether a file is what a run that was killed had begun to write."""
    return file_of_temporary(path.name) in (*_FIRST_FILES, CONFIG, HISTORY)


def _check_same_run(experiment: Experiment, manifest: str) -> None:
    run_dir, config = experiment.run_dir, experiment.config
    may_change = _keys_that_may_change(config)
    saved_config = load_saved_config(
        run_dir / CONFIG,
        remedy="choose another train.run_dir, or give --fresh to delete the run and start again",
    )
    differences = [
        f"  {key}: run {saved!r}, config {given!r}"
        for key, saved, given in differing_keys(_run_sections(saved_config), _run_sections(config))
        if key not in may_change
    ]
    saved_manifest = run_dir / DATASET_MANIFEST
    if (
        not differences
        and saved_manifest.exists()
        and saved_manifest.read_text(encoding="utf-8") != manifest
    ):
        differences = [
            f"  dataset: {experiment.dataset.place} was made again, and differs from the one "
            "the run began with"
        ]
    differences = differences or [
        f"  {file} has other content than when the run began" for file in changed_files(experiment)
    ]
    if not differences and isinstance(experiment.config.model, PretrainedConfig):
        saved = json.loads((run_dir / ENCODER).read_text(encoding="utf-8"))
        if saved["weights_sha256"] != experiment.model.encoder_description["weights_sha256"]:
            differences = [f"  {config.encoder_directory} holds other weights than when it began"]
    if differences:
        raise UserError(
            f"the run in {config.train.run_dir} cannot be resumed:\n"
            + "\n".join(differences)
            + "\nset the keys back, choose another train.run_dir, or give --fresh to delete "
            "the run and start again"
        )


def _run_sections(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", include=_RUN_SECTIONS)


def _keys_that_may_change(config: Config) -> set[str]:
    optimizer = config.optimizer
    # The learning rate of every step depends on the number of epochs, unless it is constant.
    if optimizer.schedule in ("constant", "plateau") and optimizer.warmup_fraction == 0:
        return _MAY_CHANGE | {"train.epochs"}
    return _MAY_CHANGE


def check_data_order(state: RunState, order: str) -> None:
    """Raises UserError if the rest of a begun epoch would come in another order.

    Args:
      state: as restored.
      order: `SplitPlan.order` of this process.
    """
    if state.step_in_epoch and state.data_order != order:
        raise UserError(
            f"the run stopped within an epoch whose documents went to workers {state.data_order}, "
            f"and now they would go {order}; "
            "expected the same: resume with as many workers as before"
        )
