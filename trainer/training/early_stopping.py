"""When a run stops before `train.epochs`: `train.patience` and how it is counted."""

from beam_jobs.contract.config import Config
from trainer.runs.checkpoints import RunState

# `train.patience: auto`, where the learning rate does not fall to the end of the run. What fewer
# and more epochs cost and gain is in docs/experiments/training_speed.md.
AUTO_PATIENCE = 2


def is_out_of_patience(state: RunState, config: Config) -> bool:
    """Whether the last epochs brought no better `train.objective`.

    Epochs count from the best one on, with `optimizer.schedule: plateau` from where the rate is
    first lowered after it: a plateau is what the lower rate is for. As long as the objective is 0
    the model has not begun to learn, and nothing counts.
    """
    patience, optimizer = config.train.patience, config.optimizer
    if patience == "auto":
        falls_to_the_end = optimizer.schedule in ("linear", "cosine")
        patience = None if falls_to_the_end else AUTO_PATIENCE
    if patience is None or not state.best_score(config.train.objective):
        return False
    if optimizer.schedule == "plateau":
        patience += optimizer.plateau_patience
    return state.epoch - state.best_epoch >= patience
