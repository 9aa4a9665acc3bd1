"""Fits of linear models that are killed, stopped or shared out end with the same bits."""

import json
import os
import random
import signal

import numpy as np
import pytest
import tensorflow as tf

from tests.command_lines import succeed
from tests.runs import history
from tests.small_experiment import CONFIG
from tests.system.processes import finish, kill, run_workers, start, train, wait_for

# Each label takes the solver's 1,000 iterations, so that there is time to kill it.
MODEL = "model={name: linear, features: words_bigrams_chars, C: 100000}"
LABELS = 40


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dataset of 40 labels, some of which follow from words in part."""
    root, generator = tmp_path_factory.mktemp("fits"), random.Random(0)
    words = [f"word{i}" for i in range(LABELS)]
    with open(root / "documents.jsonl", "w", encoding="utf-8") as stream:
        for i in range(400):
            text = generator.sample(words, 12)
            labels = sorted({*generator.sample(text, 2), generator.choice(words)})
            row = {"key": f"d{i}", "text": f"{' '.join(text)} n{i}", "labels": labels}
            stream.write(json.dumps(row) + "\n")
    (root / "small.yaml").write_text(CONFIG, encoding="utf-8")
    succeed("beam_jobs.preprocess", "--config", "small.yaml", cwd=root)
    return root


@pytest.fixture(scope="module")
def whole(place):
    """A run that nothing interrupts."""
    train(place, MODEL, "train.run_dir=whole")
    return place / "whole"


def blocks(run):
    return list(run.glob("label_fits/*/labels-*.npz"))


def assert_same_model(run, whole):
    assert history(run) == history(whole)
    readers = [tf.train.load_checkpoint(str(each / "best")) for each in (run, whole)]
    names = [name for name in readers[0].get_variable_to_shape_map() if name.startswith("model")]
    assert len(names) > 3
    for name in names:
        one, other = (reader.get_tensor(name) for reader in readers)
        np.testing.assert_array_equal(one, other, err_msg=name)


def test_killed_it_goes_on_with_the_labels_that_are_left(place, whole):
    process = start(place, MODEL, "train.run_dir=killed")
    wait_for(lambda: len(blocks(place / "killed")) >= 3, process)
    kill(process)
    assert "labels are fitted already" in train(place, MODEL, "train.run_dir=killed")
    assert_same_model(place / "killed", whole)


def test_a_signal_keeps_the_labels_that_are_fitted(place, whole):
    process = start(place, MODEL, "train.run_dir=stopped")
    wait_for(lambda: len(blocks(place / "stopped")) >= 2, process)
    os.kill(process.pid, signal.SIGINT)
    output = finish(process, status=128 + signal.SIGINT)
    assert "stopped by SIGINT; the labels that are fitted are kept" in output
    assert "Traceback" not in output
    train(place, MODEL, "train.run_dir=stopped")
    assert_same_model(place / "stopped", whole)


def test_two_workers_share_the_labels_and_have_the_model_of_one(place, whole):
    output = run_workers(place, MODEL, "train.run_dir=workers", workers=2)
    assert output.count("weights kept") == 1
    assert_same_model(place / "workers", whole)
