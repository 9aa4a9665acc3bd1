"""A bag of embeddings with a label tree, through the commands."""

import json

import numpy as np
import pytest

from beam_jobs.contract import saved_model
from beam_jobs.contract.config import load_config
from tests.command_lines import succeed, train
from tests.runs import SETTINGS, assert_same_bits, history, variables
from tests.small_experiment import make_run
from trainer.evaluation import evaluator
from trainer.evaluation.evaluate import evaluate

# One label of the five is always scored; of two clusters of two others one is in the beam.
MODEL = (
    "{name: bow_tree, head_labels: 1, cluster_labels: 2, beam: 1, embedding_dim: 16, dropout: 0.3}"
)


@pytest.fixture(scope="module")
def place(small_dataset, tmp_path_factory):
    """A small dataset with a run that nothing interrupts."""
    root = tmp_path_factory.mktemp("label_tree") / "root"
    return make_run(small_dataset, root, MODEL, *SETTINGS)


def test_a_run_that_is_resumed_has_the_weights_and_the_tree_of_one_that_was_not(place):
    train(place, "train.run_dir=parts", *SETTINGS, "train.epochs=1")
    train(place, "train.run_dir=parts", *SETTINGS)
    assert_same_bits(place / "parts", place / "whole")


def test_it_is_evaluated_exported_and_predicts_the_labels_that_evaluation_saw(place):
    config = ("--config", "small.yaml", "--set", "train.run_dir=whole")
    succeed("trainer.task", "evaluate", *config, cwd=place)
    succeed("trainer.task", "export", *config, "--set", "export.model_dir=model", cwd=place)
    text = "rocket orbit moon with some more"
    printed = succeed("trainer.task", "predict", "--model", "model", "--json", text, cwd=place)
    prediction = json.loads(printed)
    assert prediction["labels"][0] == "space" and "space" in prediction["assigned"]

    model = saved_model.load(str(place / "model"))
    scores = model.module.signatures["scores"](**{model.text_fields[0]: np.array([text])})
    names = [name.decode() for name in model.module.label_names().numpy()]
    by_label = dict(zip(names, scores["scores"].numpy()[0].tolist(), strict=True))
    assert 0.0 in by_label.values()  # a label that is not in the beam
    scored = [by_label[name] for name in prediction["labels"]]
    np.testing.assert_allclose(prediction["scores"], scored, rtol=1e-5)


def test_evaluation_in_columns_is_that_of_all_labels(place, monkeypatch):
    monkeypatch.chdir(place)
    records = []
    for model_in_columns in (evaluator.BagWithLabelTree, type(None)):
        monkeypatch.setattr(evaluator, "BagWithLabelTree", model_in_columns)
        settings = ["train.run_dir=whole", "evaluate.batch_size=7"]
        evaluate(load_config("small.yaml", overrides=settings))
        records.append((place / "whole/evaluation-validation.json").read_text())
    assert records[0] == records[1]


def test_it_trains_in_mixed_precision_on_replicas_with_accumulation(place):
    replicas = ("train.precision=bfloat16", "train.strategy=mirrored", "train.replicas=2")
    train(place, "train.run_dir=replicas", "train.epochs=1", "train.accumulate_steps=2", *replicas)
    assert all(np.isfinite(weights).all() for weights in variables(place / "replicas").values())
    assert history(place / "replicas")[0]["validation_micro_f1"] > 0.5
