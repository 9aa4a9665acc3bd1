"""A bag of embeddings with label-wise attention over a shortlist, through the commands."""

import numpy as np
import pytest

from tests.command_lines import succeed, train
from tests.runs import SETTINGS, assert_same_bits, variables
from tests.small_experiment import CONFIG, make_dataset

# Three labels of the five are candidates; some labels are drawn.
MODEL = "{name: bow_lwan, bigram_buckets: 64, filters: 8, candidates: 3, embedding_dim: 16}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small dataset with a run that nothing interrupts."""
    root = tmp_path_factory.mktemp("label_attention")
    make_dataset(root, 500, CONFIG.replace("{embedding_dim: 16}", MODEL))
    train(root, "train.run_dir=whole", *SETTINGS)
    return root


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
    word_of_largest_effect = labels.split("\n")[2].split()[1]
    assert word_of_largest_effect in ("rocket", "orbit", "moon")


def test_sampled_negatives_mixed_precision_replicas_and_rates_of_groups_train(place):
    def run(name, *settings):
        train(place, f"train.run_dir={name}", "train.epochs=1", *settings)
        return variables(place / name)

    mixed = ("train.precision=bfloat16", "train.strategy=mirrored", "train.replicas=2")
    sampled = run("sampled", *mixed, "loss.negatives=sampled", "loss.num_sampled=2")
    still = run("still", "optimizer.learning_rate_encoder=1e-9")
    plain = run("plain")
    assert all(np.isfinite(weights).all() for weights in sampled.values())
    changed = {name for name in plain if not np.allclose(plain[name], still[name], atol=1e-5)}
    assert changed and changed != set(plain)
