import json

import pytest

import multihot
from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError


@pytest.mark.parametrize(("objective", "best"), [("micro_f1", 2), ("macro_f1", 1)])
def test_the_best_epoch_of_a_run_is_that_of_its_objective(tmp_path, objective, best):
    scores = [(0.4, 0.3), (0.5, 0.2), (0.5, 0.3)]
    rows = [
        {"epoch": i, "validation_micro_f1": micro, "validation_macro_f1": macro}
        for i, (micro, macro) in enumerate(scores, start=1)
    ]
    raw = {"name": "a", "data": {"source": "jsonl", "inputs": ["a"]}, "model": {"name": "bow"}}
    config = config_from_dict(raw | {"train": {"objective": objective}}, what="")
    (tmp_path / "history.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    run = multihot.Run(tmp_path)
    assert run.best["epoch"] == best
    assert f"best {best}: validation {objective[:5]}-F1" in repr(run)


@pytest.mark.parametrize("opened", [multihot.Run, multihot.Dataset])
def test_a_run_or_dataset_on_a_store_that_is_not_known_is_refused(opened):
    with pytest.raises(UserError, match="received 'ftp://b/x'; expected a local path, gs://"):
        opened("ftp://b/x")


def test_documents_in_memory_are_first_written_to_a_disk():
    table = {"text": ["a"], "labels": [["x"]]}
    with pytest.raises(UserError, match="output_dir: received 's3://b/x', expected a directory on"):
        multihot.preprocess(table, text="text", labels="labels", output_dir="s3://b/x")
