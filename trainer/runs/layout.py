"""The names of the files in a run directory."""

from pathlib import Path

from beam_jobs.contract.config import CONFIG_FILE

CONFIG = CONFIG_FILE

DATASET_MANIFEST = "dataset_manifest.json"

HISTORY = "history.json"


# What an evaluation leaves in the run directory. Calibration and thresholds belong together: thresholds are those of calibrated scores.
THRESHOLDS = "thresholds.json"

CALIBRATION = "calibration.npz"


def evaluation_path(run_dir: Path, split: str) -> Path:
    """Where `evaluate` writes the evaluation of a split, as JSON."""
    return run_dir / f"evaluation-{split}.json"
