"""Where a run and its model are written to: config, platform and fold."""

import pytest

from beam_jobs.contract.config import config_from_dict
from trainer.runs.directories import log_dir, with_directories

VERTEX = {
    "AIP_MODEL_DIR": "gs://bucket/job/model/",
    "AIP_CHECKPOINT_DIR": "/mnt/checkpoints",
    "AIP_TENSORBOARD_LOG_DIR": "gs://bucket/job/logs/",
}


def config(**train):
    return config_from_dict(
        {"name": "x", "data": {"source": "python_docstrings"}, "train": train}, what=""
    )


def directories(resolved):
    return resolved.train.run_dir, resolved.export.model_dir


def test_directories_of_vertex_replace_those_of_the_config():
    changed = with_directories(config(), VERTEX)
    assert directories(changed) == ("/mnt/checkpoints", "/gcs/bucket/job/model")
    assert log_dir(changed.train.run_dir, VERTEX) == "/gcs/bucket/job/logs"
    assert with_directories(config(), {}) == config()
    assert log_dir("out/x/run", {}) == "out/x/run/logs"


@pytest.mark.parametrize(
    ("fold", "name"),
    [
        ({"fold": 3}, "fold-3"),
        ({"fold": 0, "fold_repeat": 2}, "repeat-2/fold-0"),
        ({"fold_repeat": 2}, None),
    ],
)
@pytest.mark.parametrize("environment", [{}, VERTEX], ids=["local", "vertex"])
def test_a_fold_has_directories_of_its_own_which_a_saved_config_keeps(fold, name, environment):
    without = with_directories(config(), environment)
    resolved = with_directories(config(folds=5, **fold), environment)
    suffix = "" if name is None else f"/{name}"
    assert directories(resolved) == tuple(path + suffix for path in directories(without))
    assert with_directories(resolved, environment) == resolved
