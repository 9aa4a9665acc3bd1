"""Learning rates of their own for embeddings, encoder and output."""

import keras

from beam_jobs.contract.training_config import OptimizerConfig
from trainer.models.layers import HEAD_LAYER

GROUPS = ("embeddings", "encoder", "output")


def group_of(variable: keras.Variable) -> str:
    """The group of a weight, by its path, such as `table/embeddings` or `logits/kernel`.

    `embeddings` have that in their own name. `output` is a layer called `logits`, what is between
    it and a pretrained encoder, and of a label-wise attention the `outputs_kernel` and the model's
    bias. All else is `encoder`.
    """
    *layers, name = variable.path.split("/")
    if "embeddings" in name:
        return "embeddings"
    in_head = any(layer == "logits" or layer.startswith(f"{HEAD_LAYER}_") for layer in layers)
    is_output = in_head or name in ("outputs_kernel", "labels_bias")
    return "output" if is_output else "encoder"


def rate_factors(config: OptimizerConfig) -> dict[str, float]:
    """By group, what the learning rate is multiplied by; empty where all groups have the same."""
    rates = {group: getattr(config, f"learning_rate_{group}") for group in GROUPS}
    return {group: rate / config.learning_rate for group, rate in rates.items() if rate is not None}


class GroupRates:
    """A mixin of optimizers: multiplies the learning rate of each group's weights by a factor.

    Weight decay, which is times the learning rate, is multiplied as well.
    """

    def __init__(self, *, rate_factors: dict[str, float], **options):
        super().__init__(**options)
        self._factor_of_group, self._factor = rate_factors, 1.0

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._factors = [self._factor_of_group.get(group_of(v), 1.0) for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        factor = self._factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def _apply_weight_decay(self, variables):
        for factor in dict.fromkeys(self._factors):
            self._factor = factor
            super()._apply_weight_decay(
                [v for v in variables if self._factors[self._get_variable_index(v)] == factor]
            )
        self._factor = 1.0

    def _get_current_learning_rate(self):
        return super()._get_current_learning_rate() * self._factor
