"""Learning rates over the steps of a run."""

import math

import keras
from keras import ops

from beam_jobs.contract.sections.optimizer import OptimizerConfig


def build_schedule(
    config: OptimizerConfig, *, total_steps: int | None
) -> keras.optimizers.schedules.LearningRateSchedule | float:
    """The learning rate of the config section `optimizer`: a number if it is constant.

    Args:
      config: the section.
      total_steps: steps of the whole run, `train.epochs` epochs; None only if the rate is constant.

    Raises:
      ValueError: total_steps is missing.
    """
    # When `plateau` lowers the rate is not known beforehand: the optimizer has a variable for it.
    shape = "constant" if config.schedule == "plateau" else config.schedule
    if shape == "constant" and config.warmup_fraction == 0:
        return config.learning_rate
    if total_steps is None:
        raise ValueError(
            f"received no total_steps, expected a number: schedule is {config.schedule!r}, "
            f"warmup_fraction {config.warmup_fraction}"
        )
    return WarmUpThenDecay(
        config.learning_rate,
        total_steps=total_steps,
        warmup_steps=round(config.warmup_fraction * total_steps),
        shape=shape,
        final_fraction=config.final_fraction,
    )


class WarmUpThenDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to the peak, then stays, or falls to a fraction of it.

    With t from 0 at the warm-up's end to 1 at the run's end, the rate is the peak times 1 - (1 - f)
    t for `linear`, and times f + (1 - f) (1 + cos(pi t)) / 2 for `cosine` (Loshchilov & Hutter
    2017, SGDR, equation 5, without restarts). After the end it stays.

    Args:
      peak: the highest rate, that of the first step after the warm-up.
      total_steps: steps of the run.
      warmup_steps: steps in which the rate rises; the first step's is peak / warmup_steps, not 0.
      shape: `constant`, `linear` or `cosine`.
      final_fraction: f above.
    """

    def __init__(
        self, peak: float, *, total_steps: int, warmup_steps: int, shape: str, final_fraction: float
    ):
        self._peak, self._total_steps, self._warmup_steps = peak, total_steps, warmup_steps
        self._shape, self._final_fraction = shape, final_fraction

    def __call__(self, step):
        """The rate, float32, of a step, which is counted from 0."""
        step = ops.cast(step, "float32")
        t = ops.clip(
            (step - self._warmup_steps) / max(1, self._total_steps - self._warmup_steps), 0.0, 1.0
        )
        fallen = {"constant": 0.0 * t, "linear": t, "cosine": (1 - ops.cos(math.pi * t)) / 2}[
            self._shape
        ]
        rise = ops.minimum((step + 1) / max(1, self._warmup_steps), 1.0)
        return self._peak * rise * (1 - (1 - self._final_fraction) * fallen)

    def get_config(self):
        return {
            "peak": self._peak,
            "total_steps": self._total_steps,
            "warmup_steps": self._warmup_steps,
            "shape": self._shape,
            "final_fraction": self._final_fraction,
        }
