"""A trial without a model, for tests of searches: `python made_up_trial.py SEARCH CONFIG`.

It writes the history that a run of this config might have, an epoch every EPOCH_SECONDS, goes on
after those that are there, and ends at SIGTERM as a run does. With TRIALS_TOGETHER it begins when
so many trials have.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.config import load_config
from trainer.tuning.trial_process import end_with

EPOCH_SECONDS = float(os.environ.get("EPOCH_SECONDS", "0"))
TRIALS_TOGETHER = int(os.environ.get("TRIALS_TOGETHER", "1"))


def score_of(config, epoch: int) -> float:
    """The best learning rate is 0.03, and the last epoch is the best."""
    distance = abs(math.log10(config.optimizer.learning_rate / 0.03))
    return epoch / config.train.epochs / (1 + distance)


def main(search: str, path: str, *_) -> None:
    end_with(int(search))
    config = load_config(path)
    history = Path(config.train.run_dir) / "history.json"
    history.parent.mkdir(parents=True, exist_ok=True)
    (history.parent / "config.yaml").touch()
    while len(list(history.parents[2].glob("*/run/config.yaml"))) < TRIALS_TOGETHER:
        time.sleep(0.05)
    rows = json.loads(history.read_text()) if history.exists() else []
    if config.optimizer.learning_rate > 1:
        sys.exit("error: the loss became nan")
    for epoch in range(len(rows) + 1, config.train.epochs + 1):
        time.sleep(EPOCH_SECONDS)
        f1 = score_of(config, epoch)
        rows.append({"validation_micro_f1": f1, "validation_macro_f1": f1 / 2, "pid": os.getpid()})
        write_atomically(history, json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
