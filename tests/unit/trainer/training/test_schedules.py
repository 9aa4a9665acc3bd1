import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.sections.optimizer import OptimizerConfig
from trainer.training.schedules import WarmUpThenDecay, build_schedule


def _rates(config, total_steps, steps=None):
    schedule = build_schedule(
        OptimizerConfig(**({"learning_rate": 0.5} | config)), total_steps=total_steps
    )
    return np.array([schedule(step) for step in range(steps or total_steps)])


def test_a_rate_that_does_not_change_is_a_plain_number():
    assert build_schedule(OptimizerConfig(learning_rate=0.25), total_steps=None) == 0.25


@pytest.mark.parametrize(
    "config", [{"schedule": "linear"}, {"schedule": "cosine"}, {"warmup_fraction": 0.1}]
)
def test_a_rate_that_changes_needs_the_number_of_steps(config):
    with pytest.raises(ValueError, match="received no total_steps"):
        build_schedule(OptimizerConfig(**config), total_steps=None)


def test_rates_equal_their_formulas():
    steps = np.arange(10)
    np.testing.assert_allclose(
        _rates({"schedule": "linear"}, 10), 0.5 * (1 - steps / 10), rtol=1e-6
    )
    np.testing.assert_allclose(
        _rates({"schedule": "cosine"}, 10), 0.25 * (1 + np.cos(np.pi * steps / 10)), rtol=1e-5
    )
    np.testing.assert_allclose(
        _rates({"warmup_fraction": 0.4}, 10), 0.5 * np.minimum(1, (steps + 1) / 4), rtol=1e-6
    )
    warm = 0.5 * np.array([0.25, 0.5, 0.75, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5])
    got = _rates({"schedule": "linear", "warmup_fraction": 0.4, "final_fraction": 0.4}, 10)
    np.testing.assert_allclose(got, warm, rtol=1e-5)


def test_warm_up_over_the_whole_run_and_runs_of_one_step_are_defined():
    np.testing.assert_allclose(
        _rates({"warmup_fraction": 1.0, "schedule": "cosine"}, 4),
        0.5 * np.array([0.25, 0.5, 0.75, 1]),
        rtol=1e-6,
    )
    np.testing.assert_allclose(_rates({"schedule": "linear"}, 1), [0.5])


@given(
    total=st.integers(1, 10**6),
    warmup=st.floats(0, 1),
    final=st.floats(0, 1),
    shape=st.sampled_from(["constant", "linear", "cosine"]),
    place=st.floats(0, 2),
)
def test_rates_stay_between_0_and_the_peak_and_fall_after_the_warm_up(
    total, warmup, final, shape, place
):
    steps = round(warmup * total)
    schedule = WarmUpThenDecay(
        2.0, total_steps=total, warmup_steps=steps, shape=shape, final_fraction=final
    )
    step = int(place * total)
    rate, following = float(schedule(step)), float(schedule(step + 1))
    assert 0 <= rate <= 2.0
    assert following <= rate * (1 + 1e-6) if step >= steps else following >= rate * (1 - 1e-6)
    if step >= total > steps:
        assert rate == pytest.approx(
            2.0 * (1 if shape == "constant" else final), rel=1e-5, abs=1e-6
        )


def test_schedule_survives_keras_serialisation_and_runs_in_a_graph():
    schedule = WarmUpThenDecay(
        2.0, total_steps=9, warmup_steps=3, shape="cosine", final_fraction=0.1
    )
    again = WarmUpThenDecay.from_config(schedule.get_config())
    in_graph = tf.function(lambda step: schedule(step))
    for step in range(10):
        assert float(again(step)) == float(schedule(step))
        assert float(in_graph(tf.constant(step, tf.int64))) == pytest.approx(
            float(schedule(step)), rel=1e-6
        )
    assert isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
