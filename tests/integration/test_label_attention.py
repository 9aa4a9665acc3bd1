"""A bag of embeddings with label-wise attention over a shortlist, through the commands."""

import numpy as np
import pytest

from tests.command_lines import succeed, train
from tests.runs import SETTINGS, assert_same_bits, history, variables
from tests.small_experiment import make_run

# Three labels of the five are candidates; some labels are drawn.
MODEL = "{name: bow_lwan, bigram_buckets: 64, filters: 8, candidates: 3, embedding_dim: 16}"


@pytest.fixture(scope="module")
def place(small_dataset, tmp_path_factory):
    """A small dataset with a run that nothing interrupts."""
    root = tmp_path_factory.mktemp("label_attention") / "root"
    return make_run(small_dataset, root, MODEL, *SETTINGS)


def test_a_run_that_is_resumed_has_the_weights_of_one_that_was_not(place):
    train(place, "train.run_dir=parts", *SETTINGS, "train.epochs=1")
    train(place, "train.run_dir=parts", *SETTINGS)
    assert_same_bits(place / "parts", place / "whole")


def test_it_is_evaluated_exported_and_explained(place):
    config = ("--config", "small.yaml", "--set", "train.run_dir=whole")
    succeed("trainer.task", "evaluate", *config, cwd=place)
    succeed("trainer.task", "export", *config, "--set", "export.model_dir=model", cwd=place)
    text = "rocket orbit moon with some more"
    printed = succeed("trainer.task", "explain", "--model", "model", text, cwd=place)
    method, _, labels = printed.partition("\n")
    assert method.startswith("By occlusion")
    assert labels.lstrip().startswith("space: ")
    effects = {line.split()[1]: float(line.split()[0]) for line in labels.strip().split("\n")[1:]}
    assert sum(effects.get(word, 0.0) for word in ("rocket", "orbit", "moon")) > 0


def test_it_trains_with_sampled_negatives_mixed_precision_and_replicas(place):
    replicas = ("train.precision=bfloat16", "train.strategy=mirrored", "train.replicas=2")
    sampled = ("loss.negatives=sampled", "loss.num_sampled=2")
    train(place, "train.run_dir=sampled", "train.epochs=1", *replicas, *sampled)
    assert all(np.isfinite(weights).all() for weights in variables(place / "sampled").values())
    assert history(place / "sampled")[0]["validation_micro_f1"] > 0.5
