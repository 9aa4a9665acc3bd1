"""What is tuned on the validation split and kept in the run directory: thresholds, calibration."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import dump_json
from trainer.metrics.calibration import Calibration
from trainer.metrics.thresholds import Thresholds
from trainer.runs.evaluation_record import Evaluation, read_evaluation
from trainer.runs.layout import CALIBRATION, EVALUATED_SPLITS, THRESHOLDS, evaluation_path

_CALIBRATION_HASH = "calibration_sha256"
_STEP = "step"


class Tuned(NamedTuple):
    """Thresholds, and the calibration of the scores that they are applied to."""

    thresholds: Thresholds
    calibration: Calibration


def save_tuned(run_dir: Path, tuned: Tuned, *, step: int) -> None:
    """Writes both files. The thresholds, which are written last, name the other by its hash.

    Args:
      run_dir: the run directory.
      tuned: what is written.
      step: of the weights whose scores they were tuned on.
    """
    calibration = run_dir / CALIBRATION
    tuned.calibration.save(calibration)
    raw = tuned.thresholds.to_json() | {_CALIBRATION_HASH: _sha256(calibration), _STEP: step}
    write_atomically(run_dir / THRESHOLDS, dump_json(raw))


def has_tuned(run_dir: Path) -> bool:
    """Whether `evaluate` has written thresholds to the run directory."""
    return (run_dir / THRESHOLDS).exists()


def load_tuned(run_dir: Path, *, num_labels: int, step: int | None = None) -> Tuned:
    """Reads what `save_tuned` wrote.

    Scores are sigmoid(calibration.log_odds(experiment.log_odds(logits))).

    Args:
      run_dir: the run directory.
      num_labels: of the run's dataset.
      step: of the weights that are used with them; None: any.

    Raises:
      UserError: there is nothing, or it belongs to another dataset or to other weights, or the two
        files were written by different evaluations.
    """
    path, calibration = run_dir / THRESHOLDS, run_dir / CALIBRATION
    advice = "run `python -m trainer.task evaluate` again"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path}: {error}; expected the thresholds that "
            "`python -m trainer.task evaluate` writes: run it first"
        ) from None
    expected = tuned_step = None
    if isinstance(raw, dict):
        expected, tuned_step = raw.pop(_CALIBRATION_HASH, None), raw.pop(_STEP, None)
    tuned = Tuned(
        Thresholds.from_json(raw, num_labels=num_labels, what=str(path)),
        Calibration.load(calibration, num_labels=num_labels),
    )
    if expected != _sha256(calibration):
        raise UserError(
            f"{path} holds thresholds of scores that another calibration than {calibration} "
            f"calibrated: an evaluation was interrupted; {advice}"
        )
    if step is not None and tuned_step != step:
        raise UserError(
            f"{path} holds thresholds of the weights of step {tuned_step}, and the best weights of "
            f"the run are now those of step {step}; {advice}"
        )
    return tuned


def load_tuned_of(run_dir: Path, *, label_names: list[str]) -> Tuned:
    """`load_tuned` of another run, for `export.thresholds_from`.

    Raises:
      UserError: the run is not evaluated, or its labels are others.
    """
    evaluation = _any_evaluation(run_dir)
    names = list(evaluation.per_label.name)
    if names != label_names:
        in_one_only = sorted(set(names) ^ set(label_names))
        raise UserError(
            f"export.thresholds_from: {run_dir} has {len(names):,} labels and this run "
            f"{len(label_names):,}; expected the same labels, and {len(in_one_only):,} are not in "
            f"both: {', '.join(in_one_only[:5]) or 'their order differs'}"
        )
    return load_tuned(run_dir, num_labels=len(label_names))


def _any_evaluation(run_dir: Path) -> Evaluation:
    for split in EVALUATED_SPLITS:
        path = evaluation_path(run_dir, split)
        if path.exists():
            return read_evaluation(path)
    raise UserError(
        f"export.thresholds_from: {run_dir} holds no evaluation; expected train.run_dir of a run "
        "that `python -m trainer.task evaluate` has evaluated"
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
