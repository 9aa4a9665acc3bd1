"""The audit of a dataset's labels: a run a fold, and the labels that these runs deny."""

import csv
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from beam_jobs.contract import places
from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.quiet import no_tensorflow_warnings
from trainer.data.dataset import Dataset, open_dataset
from trainer.distribution.strategy import num_workers
from trainer.evaluation.label_audit import Scored, Suspect, score_validation, suspects
from trainer.experiment import assemble, restore_best
from trainer.runs.directories import with_directories
from trainer.runs.layout import AUDIT, audit_dir
from trainer.training.train import train

FOLDS = 5  # where the config does not say how many
_TOP_FRACTION = 0.1  # of the documents, for each kind
_MIN_TOP = 100
COLUMNS = ("kind", "rank", "id", "label", "score", "usual_score", "labels", "text")


def audit(
    config: Config, *, top: int | None = None, fresh: bool = False
) -> tuple[Path, list[dict[str, str]]]:
    """Trains on all folds but one, in turn, and lists the labels that look wrong or missing.

    Train and validation documents are looked at; each is scored by a run that has not seen it. The
    runs are beside the run directory of the config, and are kept: called again it scores anew.

    Args:
      config: the experiment; `train.folds` is the number of folds, 5 where it is null.
      top: rows of each kind; None: a tenth of the documents, and at least 100.
      fresh: delete the runs of an earlier audit first.

    Returns:
      The path of `audit.csv`, and what it holds: a mapping a row, by COLUMNS.

    Raises:
      UserError: the dataset has fewer shards than folds, there are several workers, or a run fails
        as `train` does, or the run directory is on a store.
    """
    config = with_directories(config, os.environ)
    if places.is_remote(config.train.run_dir):
        raise UserError(
            f"train.run_dir: received {config.train.run_dir!r}, expected a directory on a disk: an "
            "audit keeps its runs beside it; give another with --set train.run_dir=DIR"
        )
    folder = audit_dir(Path(config.train.run_dir))
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folds = config.train.folds or FOLDS
    parts = []
    with no_tensorflow_warnings():
        for fold in range(folds):
            print(f"fold {fold + 1} of {folds}", flush=True)
            parts.append(_score_fold(config, folder, fold, folds))
    scored, dataset = Scored.of_parts(parts), open_dataset(config)
    if top is None:
        top = max(_MIN_TOP, round(_TOP_FRACTION * len(scored.documents)))
    rows = as_rows(suspects(scored, dataset.num_labels, top=top), dataset)
    write_atomically(folder / AUDIT, as_csv(rows))
    return folder / AUDIT, rows


def _score_fold(config: Config, folder: Path, fold: int, folds: int) -> Scored:
    """Trains the run that validates on a fold, unless it is finished, and scores the fold."""
    of_fold = {"run_dir": str(folder), "folds": folds, "fold": fold}
    config = config.model_copy(update={"train": config.train.model_copy(update=of_fold)})
    train(config)
    experiment = assemble(config)
    if num_workers(experiment.strategy) > 1:
        raise UserError(
            f"train.strategy: received {num_workers(experiment.strategy)} workers, expected one: "
            "an audit scores every fold in one process"
        )
    restore_best(experiment)
    return score_validation(experiment)


def as_rows(found: Sequence[Suspect], dataset: Dataset) -> list[dict[str, str]]:
    """The rows of `audit.csv`: values by COLUMNS, as text."""
    names, rows, ranks = dataset.label_names, [], {"wrong": 0, "missing": 0}
    for suspect in found:
        ranks[suspect.kind] += 1
        values = (
            suspect.kind,
            str(ranks[suspect.kind]),
            suspect.document.id,
            names[suspect.label_id],
            f"{suspect.score:.4f}",
            f"{suspect.usual_score:.4f}",
            "; ".join(names[i] for i in suspect.document.label_ids),
            "\n\n".join(suspect.document.texts),
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def as_csv(rows: Sequence[dict[str, str]]) -> str:
    """The rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
