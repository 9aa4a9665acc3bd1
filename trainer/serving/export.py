"""The export of a trained model as a SavedModel: raw strings in, label names out."""

import contextlib
from pathlib import Path

from beam_jobs.contract.config import Config
from trainer.distribution.strategy import is_chief
from trainer.evaluation.evaluate import load_calibration, load_thresholds
from trainer.experiment import assemble, restore_best
from trainer.runs.layout import EVALUATED_SPLITS, evaluation_text_path
from trainer.serving.half_precision import check_range
from trainer.serving.model_scorer import ModelScorer
from trainer.serving.model_version import print_summary, serving_module, write_version
from trainer.serving.serving_module import ServingModule
from trainer.serving.validation import validation_f1


def export(config: Config) -> None:
    """Writes the next version of the SavedModel, whole or not at all; prints its size and speed.

    Raises:
      UserError: there is no trained model, its thresholds are not tuned, or the directory cannot be
        written.
    """
    experiment = assemble(config)
    if not is_chief(experiment.strategy):  # every worker has the same model
        return
    # This config has the directories that the platform sets.
    config, dataset = experiment.config, experiment.dataset
    state = restore_best(experiment)
    thresholds, calibration = load_thresholds(experiment), load_calibration(experiment)
    weights = config.export.weights
    check_range(experiment.model, weights)

    def module_with(weights: str) -> ServingModule:
        scorer = ModelScorer(experiment, calibration, weights=weights)
        return serving_module(config, dataset, thresholds, scorer)

    module = module_with(weights)
    origin = {
        "step": state.step,
        "epoch": state.epoch,
        "best_validation_micro_f1": state.best_micro_f1,
        "weights": weights,
        "calibration": calibration.method,
    }
    if weights != "float32" and dataset.num_examples("validation"):
        origin["validation"] = {
            "float32": validation_f1(dataset, module_with("float32")),
            weights: validation_f1(dataset, module),
        }
    evaluation = _evaluation_text(experiment.run_dir)
    path = write_version(
        config, dataset, module, origin, evaluation=evaluation, thresholds=thresholds
    )
    print(f"exported epoch {state.epoch} as {path}")
    print_summary(path, dataset, origin)


def _evaluation_text(run_dir: Path) -> str | None:
    """The report of `evaluate`, on the test split if there is one."""
    for split in reversed(EVALUATED_SPLITS):
        with contextlib.suppress(FileNotFoundError):
            return evaluation_text_path(run_dir, split).read_text(encoding="utf-8")
    return None
