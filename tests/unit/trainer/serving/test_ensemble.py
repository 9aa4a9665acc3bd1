"""An ensemble of exported models: what its config may not say."""

import pytest

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from trainer.serving.ensemble import export_average


def test_an_ensemble_of_a_fold_is_refused():
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {"source": "jsonl", "inputs": ["in.jsonl"]},
            "train": {"folds": 5, "fold": 2},
        },
        what="",
    )
    with pytest.raises(UserError, match="--average: received train.fold = 2, .*leave --fold out"):
        export_average(config, ["one", "two"], None)
