"""What several workers share by files is not on a store, where each has a copy of its own."""

from types import SimpleNamespace

import pytest

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from trainer import document_vectors
from trainer.training import train as train_module


def experiment(place: str, **sections) -> SimpleNamespace:
    config = config_from_dict(
        {"name": "x", "data": {"source": "python_docstrings"}} | sections, what=""
    )
    return SimpleNamespace(
        config=config, strategy=None, dataset=SimpleNamespace(place=place), run_place=place
    )


def test_labels_that_several_workers_fit_need_a_run_directory_on_a_disk(monkeypatch):
    monkeypatch.setattr(train_module, "num_workers", lambda strategy: 2)
    given = experiment("", model={"name": "linear"}, train={"run_dir": "s3://b/run"})
    with pytest.raises(UserError, match="received 's3://b/run' for `model.name: linear` with 2"):
        train_module._fit(given, fresh=False)


def test_vectors_that_several_workers_encode_need_a_directory_on_a_disk(monkeypatch):
    monkeypatch.setattr(document_vectors, "num_workers", lambda strategy: 2)
    given = experiment(
        "s3://b/dataset",
        text={"tokenizer": "encoder"},
        model={"name": "pretrained", "trainable_layers": 0},
    )
    with pytest.raises(UserError, match="model.cache_dir: received none for 2 workers and the"):
        document_vectors.with_vectors(given, ["train"])
