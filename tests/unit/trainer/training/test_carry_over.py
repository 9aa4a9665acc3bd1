"""What is known of tokens and labels is carried over by their names."""

import json

import numpy as np
import pytest
from pydantic import TypeAdapter

from beam_jobs.contract.sections.model import ModelConfig
from tests.small_models import SMALL
from trainer.training.carry_over import Axes, Names, axes_of, carried

OLD = Names(tokens=["a", "b", "c"], labels=["x", "y"])
NEW = Names(tokens=["c", "d", "a", "e"], labels=["w", "y", "x"])


def test_rows_of_tokens_go_by_name_and_reserved_ones_stay_first():
    known, initial = np.arange(10.0).reshape(5, 2), -np.ones((6, 2))
    result = carried(initial, known, Axes(tokens=0), old=OLD, new=NEW)
    assert result[:, 0].tolist() == [0, 2, 8, -1, 4, -1] and (initial == -1).all()


def test_tokens_and_labels_of_one_variable_go_by_name_on_both_axes():
    known = np.arange(10.0).reshape(2, 5)  # [labels, tokens]
    initial = -np.ones((3, 6))
    result = carried(initial, known, Axes(tokens=1, labels=0), old=OLD, new=NEW)
    assert result.tolist() == [[-1] * 6, [5, 6, 9, -1, 7, -1], [0, 1, 4, -1, 2, -1]]


def test_a_variable_of_neither_is_taken_as_it_is():
    known = np.arange(3.0)
    assert (carried(np.zeros(3), known, Axes(), old=OLD, new=NEW) == known).all()


@pytest.mark.parametrize("name", ["bow", "mlp", "cnn", "bow_lwan"])
def test_every_variable_with_tokens_or_labels_is_recognised_whatever_its_other_sizes(name):
    config = TypeAdapter(ModelConfig).validate_json(json.dumps({"name": name} | SMALL[name]))
    axes = axes_of(config)
    assert sum(of.tokens is not None for of in axes) >= 1
    assert sum(of.labels is not None for of in axes) >= 2  # the logits' kernel and bias


def test_an_axis_of_the_same_size_as_the_number_of_labels_is_not_taken_for_it():
    config = TypeAdapter(ModelConfig).validate_json(
        json.dumps({"name": "mlp", "embedding_dim": 3, "hidden_units": [3, 5]})
    )
    kernels = [of for of in axes_of(config) if of.labels is not None]
    assert len(kernels) == 2
