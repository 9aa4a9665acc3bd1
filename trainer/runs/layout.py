"""The names of the files in a run directory."""

from pathlib import Path

from beam_jobs.contract.config import CONFIG_FILE

# --- what `train` writes -----------------------------------------------------------------

CONFIG = CONFIG_FILE
DATASET_MANIFEST = "dataset_manifest.json"
NAMED_FILES = "named_files.json"  # SHA-256 of the files that the config names, by their keys
ENCODER = "encoder.json"  # what a pretrained encoder is built from, without its weights
EARLIER_RUN = "earlier_run.json"  # of a run that started from another: which, and what it kept
HISTORY = "history.json"  # a list of rows, one per epoch
CHECKPOINTS = "checkpoints"  # directory of the newest checkpoints
BEST_CHECKPOINT = "best"  # directory of the best epoch's checkpoint, by `train.objective`
LABEL_FITS = "label_fits"  # directory of a linear model's labels that are fitted, until it is saved
LOGS = "logs"  # directory of TensorBoard's event files

# --- what `evaluate` writes --------------------------------------------------------------

# These two belong together: the thresholds are those of calibrated scores.
THRESHOLDS = "thresholds.json"
CALIBRATION = "calibration.npz"

# --- what `report` writes ----------------------------------------------------------------

REPORT = "report"  # directory of the page and its plots

# --- what `audit` writes -----------------------------------------------------------------

AUDIT = "audit.csv"

# The splits that are evaluated; a reader takes the last of them that is there.
EVALUATED_SPLITS = ("validation", "test")


def evaluation_path(run_dir: Path, split: str) -> Path:
    """The evaluation of a split as JSON, see `trainer.runs.evaluation_record.Evaluation`."""
    return run_dir / f"evaluation-{split}.json"


def evaluation_text_path(run_dir: Path, split: str) -> Path:
    """The evaluation of a split as text to read."""
    return run_dir / f"evaluation-{split}.txt"


def label_report_path(run_dir: Path, split: str) -> Path:
    """The metrics of every label on a split, as text in the form of scikit-learn."""
    return run_dir / f"evaluation-{split}-labels.txt"


def audit_dir(run_dir: Path) -> Path:
    """The directory of an audit: beside the run directory, which holds one run alone."""
    return run_dir.with_name(f"{run_dir.name}-audit")
