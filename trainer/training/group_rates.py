"""Learning rates of their own for embeddings, encoder and output."""

from collections.abc import Sequence

import keras

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.optimizer import OptimizerConfig
from trainer.models.backbones import layer_number
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


def layer_factors(variables: Sequence[keras.Variable], decay: float) -> list[float]:
    """`decay` to the power of the number of layers of a pretrained encoder above each weight.

    It is 1 for what stands on the encoder. What has no number, such as embeddings, is below all.

    Raises:
      UserError: no weight is of a layer of an encoder, and `decay` is not 1.
    """
    if decay == 1:
        return [1.0] * len(variables)
    numbers = [layer_number(variable.path) for variable in variables]
    known = [number for number in numbers if number is not None]
    if not known:
        raise UserError(
            f"optimizer.layer_decay: received {decay}, and no layer of a pretrained encoder is "
            "trained; expected null, or `model.name: pretrained` with trainable_layers above 0"
        )
    return [
        1.0
        if group_of(variable) == "output"
        else decay ** (max(known) - (min(known) - 1 if number is None else number))
        for variable, number in zip(variables, numbers, strict=True)
    ]


class GroupRates:
    """A mixin of optimizers: multiplies the learning rate of each weight by factors.

    They are that of its group, and that of its layer. Weight decay, which is times the learning
    rate, is multiplied as well.
    """

    def __init__(self, *, rate_factors: dict[str, float], layer_decay: float = 1.0, **options):
        super().__init__(**options)
        self._factor_of_group, self._layer_decay, self._factor = rate_factors, layer_decay, 1.0

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        of_layers = layer_factors(variables, self._layer_decay)
        self._factors = [
            self._factor_of_group.get(group_of(variable), 1.0) * of_layer
            for variable, of_layer in zip(variables, of_layers, strict=True)
        ]

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
