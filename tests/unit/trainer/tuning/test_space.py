import optuna
import pytest

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from trainer.tuning.space import Space

BOW = {"name": "bow", "embedding_dim": 256, "dropout": 0.5, "bigram_buckets": 1_048_576}


def _space(searched=None, **sections):
    raw = {"name": "tiny", "data": {"source": "jsonl", "inputs": ["a"]}, "model": BOW} | sections
    return Space.of(config_from_dict(raw | {"tune": {"space": searched}}, what=""))


def _suggested(space, **params):
    """What a trial with these values gives, by dotted key with `__` for the dot."""
    study = optuna.create_study()
    study.enqueue_trial({key.replace("__", "."): value for key, value in params.items()})
    return space.suggest(study.ask())


def test_the_default_space_is_around_the_config_and_holds_it():
    space = _space(optimizer={"learning_rate": 0.01}, loss={"name": "squared_hinge"})
    start = space.start_values()
    assert start.keys() == space.distributions.keys()
    assert start["model.bigram_buckets"] == 1_048_576 and start["optimizer.learning_rate"] == 0.01
    rate = space.distributions["optimizer.learning_rate"]
    assert rate.log and (rate.low, rate.high) == (0.0025, 0.04)
    assert "loss.margin" in space.distributions and "loss.pos_weight" not in space.distributions


def test_every_corner_of_the_default_space_is_a_config():
    for model in ({"name": name} for name in ("bow", "cnn", "lstm", "bow_lwan", "transformer")):
        space = _space(model=model)
        for choose in (min, max):
            values = {
                key: of.choices[-1] if hasattr(of, "choices") else choose(of.low, of.high)
                for key, of in space.distributions.items()
            }
            assert space.config(values).model.name == model["name"]


def test_a_linear_model_is_searched_by_what_its_fit_depends_on():
    space = _space(model={"name": "linear"})
    assert set(space.distributions) == {
        f"model.{key}" for key in ("features", "C", "loss", "pos_weight")
    }
    # Features and C that are left open are not in the space.
    start = {"model.loss": "squared_hinge", "model.pos_weight": "fourth_root"}
    assert space.start_values() == start


def test_a_space_of_ones_own_takes_the_place_of_the_default():
    space = _space(
        {
            "train.epochs": {"low": 2, "high": 8, "step": 2},
            "model.dropout": {"low": 0, "high": 1 / 2},
            "optimizer.clip_norm": [None, 1.0],
        }
    )
    assert space.describe() == [
        "train.epochs: 2 to 8",
        "model.dropout: 0 to 0.5",
        "optimizer.clip_norm: null, 1.0",
    ]
    values = _suggested(space, train__epochs=4, model__dropout=0.25, optimizer__clip_norm=None)
    config = space.config(values, run_dir="here")
    assert (config.train.epochs, config.model.dropout, config.train.run_dir) == (4, 0.25, "here")
    assert config.model.embedding_dim == 256


def test_models_share_a_space_and_each_has_its_own_keys():
    space = _space(
        {
            "model.filters": [32, 64],
            "model.name": ["bow", "cnn"],
            "model.bigram_buckets": [0, 100],
            "model.dropout": [0.1],
        }
    )
    bow = _suggested(space, model__name="bow", model__bigram_buckets=100)
    assert bow == {"model.name": "bow", "model.bigram_buckets": 100, "model.dropout": 0.1}
    cnn = _suggested(space, model__name="cnn", model__filters=64)
    assert cnn == {"model.name": "cnn", "model.filters": 64, "model.dropout": 0.1}
    assert space.config(cnn).model.filters == 64 and space.config(cnn).model.name == "cnn"


@pytest.mark.parametrize(
    ("searched", "message"),
    [
        ({"model.filters": [64]}, "model.filters: unknown key"),
        ({"model.dropout": {"low": 0.5, "high": 1.5}}, "model.dropout: received 1.5 (float)"),
        ({"loss.name": ["focal", "hinge"]}, "loss.name: received 'hinge'"),
        ({"model.name": ["bow", "cnn"], "model.units": [8]}, "no model or loss of the space"),
        ({"train.epochs": {"low": 1.5, "high": 4}}, "train.epochs: received 1.5 (float)"),
    ],
)
def test_values_that_a_key_cannot_have_are_refused_before_any_trial(searched, message):
    with pytest.raises(UserError, match="tune.space: ") as raised:
        _space(searched)
    assert message in str(raised.value)
