"""`multihot.train` and `multihot.Run`: a training run and what follows from it."""

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from beam_jobs.contract import places
from beam_jobs.contract.config import CONFIG_FILE, Config, load_saved_config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST
from beam_jobs.contract.sections.train import OBJECTIVE_TITLES
from multihot.calls import as_given, on_disk, python_call
from multihot.dataset import Dataset
from multihot.model import Model
from multihot.settings import Settings, config_with
from trainer.runs import remote_directory
from trainer.runs.evaluation_record import Evaluation, read_evaluation
from trainer.runs.layout import EVALUATED_SPLITS, HISTORY, evaluation_path

if TYPE_CHECKING:
    import pandas


def train(
    source: Dataset | Config | Settings | str | os.PathLike[str],
    *,
    run_dir: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    start_from: "Run | str | os.PathLike[str] | None" = None,
    verbose: bool = True,
    settings: Settings | None = None,
    **sections: Settings,
) -> "Run":
    """Trains a model on a dataset, or resumes a run that was stopped.

    Args:
      source: a dataset, its directory, or the config of an experiment whose dataset is there.
      run_dir: the run's directory; default: the one that the config names. A run of other settings
        needs another one, or `fresh`.
      fresh: delete an earlier run there and start again.
      start_from: a run on another dataset, or the directory of an exported model, whose weights of
        tokens and labels that both have a new run starts with.
      verbose: print what is trained, and every epoch.
      settings: keys of the config, such as `{"train.epochs": 3}`.
      **sections: the same by section, such as `model={"name": "bow"}, train={"epochs": 3}`. Without
        `model`, the trainer chooses one that suits the dataset's size.

    Returns:
      The finished run.

    Raises:
      UserError: settings, dataset and run directory do not fit, or the loss is not finite any more.
      KeyboardInterrupt: Ctrl-C, or the notebook's button to interrupt, after a checkpoint; the same
        call resumes there.
    """
    with python_call(verbose=verbose):
        from trainer.runs.directories import with_directories
        from trainer.training.signals import StoppedBySignal
        from trainer.training.train import train as train_run

        config = config_of(source, settings, sections, run_dir=run_dir)
        other = start_from.directory if isinstance(start_from, Run) else start_from
        other = None if other is None else os.fspath(other)
        try:
            train_run(config, fresh=fresh, source=other)
        except StoppedBySignal as stopped:
            raise KeyboardInterrupt(str(stopped)) from None
        return Run(with_directories(config, os.environ).train.run_dir)


def _is_dataset(directory: str | os.PathLike[str]) -> bool:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        places.read_bytes(places.join(directory, MANIFEST))
        return True
    return False


def config_of(
    source: Dataset | Config | Settings | str | os.PathLike[str],
    *settings: Settings | None,
    run_dir: str | os.PathLike[str] | None,
) -> Config:
    """The config of a run on a dataset, its directory or a config, with the settings in it."""
    if isinstance(source, str | os.PathLike) and _is_dataset(source):
        source = Dataset(source)
    base = source.config if isinstance(source, Dataset) else source
    place = None if run_dir is None else {"train.run_dir": os.fspath(run_dir)}
    return config_with(base, *settings, place)


class Run:
    """A training run.

    Args:
      directory: the run directory, or its URL, which `multihot.train` or the command `train` has
        written.

    Attributes:
      directory: as given.
      config: the experiment's; its model is named.
      rows: a mapping for each epoch: epoch, step, loss, validation_micro_f1, threshold and more.

    Raises:
      UserError: it is not the directory of a run, or the run has no epoch yet.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        self.directory = as_given(directory)
        with python_call(verbose=True, tensorflow=False):
            remote_directory.refresh(self.directory)
            self._files = remote_directory.local(self.directory)
            try:
                text = (self._files / HISTORY).read_text(encoding="utf-8")
                self.rows: list[dict[str, Any]] = json.loads(text)
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{self.directory} holds no training run ({error}); expected train.run_dir of "
                    "one, such as out/docstrings/run"
                ) from None
            if not self.rows:
                raise UserError(f"{self.directory}: the run has no epoch yet; train on")
            self.config = load_saved_config(self._files / CONFIG_FILE, remedy="train again")

    @property
    def history(self) -> "pandas.DataFrame":
        """`rows` as a DataFrame with a row for each epoch.

        Raises:
          UserError: pandas, which multihot itself does not need, is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise UserError(
                "history: pandas is not installed; `pip install pandas`, or use `rows`, a list of "
                "mappings"
            ) from None
        return pandas.DataFrame(self.rows).set_index("epoch")

    @property
    def best(self) -> dict[str, Any]:
        """The row of the epoch whose weights are kept: the best by the objective, else the last."""
        scores = [row[f"validation_{self.config.train.objective}"] for row in self.rows]
        if None in scores:
            return self.rows[-1]
        return self.rows[scores.index(max(scores))]

    def evaluate(
        self,
        *,
        baseline: Literal["linear"] | None = None,
        verbose: bool = False,
        settings: Settings | None = None,
    ) -> Evaluation:
        """Tunes thresholds on the validation split and measures the model beside baselines.

        Args:
          baseline: "linear": also fit TF-IDF with one-vs-rest LinearSVC on the same splits.
          verbose: print the report that the command prints.
          settings: keys of the section `evaluate`, such as `{"evaluate.calibration": "platt"}`.

        Returns:
          The evaluation of the test split, or of the validation split where there is no other.

        Raises:
          UserError: there are no documents to evaluate on.
        """
        with python_call(verbose=verbose):
            from trainer.evaluation.evaluate import evaluate

            evaluations = evaluate(config_with(self.config, settings), baseline=baseline)
        return list(evaluations.values())[-1]

    def tune(self, *, verbose: bool = False) -> None:
        """Tunes the thresholds that `export` needs, and measures nothing: faster than `evaluate`.

        Raises:
          UserError: the dataset has no validation documents.
        """
        with python_call(verbose=verbose):
            from trainer.evaluation.evaluate import tune_thresholds

            tune_thresholds(self.config)

    def evaluation(self, split: Literal["validation", "test"] | None = None) -> Evaluation:
        """What `evaluate` has found on a split.

        Args:
          split: None: test, or validation where there is no test split.

        Raises:
          UserError: the split was not evaluated.
        """
        splits = EVALUATED_SPLITS if split is None else (split,)
        paths = [evaluation_path(self._files, name) for name in splits]
        found = [path for path in paths if path.exists()] or paths
        with python_call(verbose=True, tensorflow=False):
            return read_evaluation(found[-1])

    def export(
        self,
        *,
        model_dir: str | os.PathLike[str] | None = None,
        verbose: bool = False,
        settings: Settings | None = None,
    ) -> Model:
        """Writes the next version of a SavedModel that takes raw strings, and loads it.

        Args:
          model_dir: the directory of versions; default: the one that the config names.
          verbose: print its size and speed.
          settings: keys of the section `export`, such as `{"export.weights": "float16"}`.

        Raises:
          UserError: the run is not evaluated, or the directory cannot be written.
        """
        with python_call(verbose=verbose):
            from trainer.serving.export import export

            place = None if model_dir is None else {"export.model_dir": os.fspath(model_dir)}
            config = config_with(self.config, settings, place)
            return Model(str(export(config, summary=verbose)))

    def report(self, *, output: str | os.PathLike[str] | None = None) -> Path:
        """Writes a page, and plots, of the evaluation.

        Args:
          output: the directory, on a disk; default: report/ in the run directory.

        Returns:
          The page; of a run on a store, this process's copy of it.
        """
        place = None if output is None else str(on_disk(output, what="output"))
        with python_call(verbose=False, tensorflow=False):
            from trainer.report.html_report import report

            report(run_dir=str(self.directory), model_dir=None, compare=[], output=place)
            remote_directory.refresh(self.directory)
        return (Path(place) if place else self._files / "report") / "index.html"

    def __repr__(self) -> str:
        best, objective = self.best, self.config.train.objective
        score, title = best[f"validation_{objective}"], OBJECTIVE_TITLES[objective]
        result = "no validation split" if score is None else f"validation {title} {score:.4f}"
        return (
            f"<multihot.Run {self.directory}: {self.config.model.name}, {len(self.rows)} epochs, "
            f"best {best['epoch']}: {result}>"
        )
