"""What a search tries: values of config keys, around those that a config has."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from beam_jobs.contract.config import Config, config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.linear_model import LinearConfig
from beam_jobs.contract.sections.tune import SearchRange, searched_fields
from beam_jobs.contract.validation import variants_of

# Around a value v: from v / _FACTOR to v * _FACTOR, on a logarithmic scale.
_FACTOR = 4.0
# What the default space has, if the config has the key: choices, beside the config's own value.
_CHOICES: dict[str, tuple] = {
    "model.embedding_dim": (128, 256, 512),
    "model.bigram_buckets": (0, 262_144),
    "model.filters": (64, 128, 256),
    "model.units": (64, 128, 256),
    "model.layers": (1, 2, 3),
    "optimizer.schedule": ("linear", "cosine"),
    "optimizer.average_epochs": (None, 1.0),
}
_DROPOUT = (0.0, 0.7)
# The default space of a linear model. Its features and C are chosen while it is fitted if the
# config leaves them open.
_LINEAR = {
    "model.features": CategoricalDistribution(
        ("words", "words_bigrams", "words_chars", "words_bigrams_chars")
    ),
    "model.C": FloatDistribution(0.05, 8.0, log=True),
    "model.loss": CategoricalDistribution(("squared_hinge", "logistic")),
    "model.pos_weight": CategoricalDistribution(("none", "fourth_root")),
}


@dataclasses.dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
      base: the config whose other keys stay; it names a model.
      distributions: by dotted key; the names of kinds come first.
    """

    base: Config
    distributions: Mapping[str, BaseDistribution]

    @classmethod
    def of(cls, base: Config) -> "Space":
        """The space of `tune.space`, or the default one around the config's values.

        Raises:
          UserError: a bound or a value is none that its key may have.
        """
        if base.tune.space is None:
            distributions = _default(base)
        else:
            distributions = {key: _parse(key, of) for key, of in base.tune.space.items()}
        ordered = sorted(distributions, key=lambda key: not key.endswith(".name"))
        space = cls(base, {key: distributions[key] for key in ordered})
        space._check()
        return space

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """The trial's values by dotted key. Keys that its model or loss does not have are none."""
        values: dict[str, Any] = {}
        for key, distribution in self.distributions.items():
            if self._has(key, values):
                values[key] = _suggest(trial, key, distribution)
        return values

    def config(self, values: Mapping[str, Any], **directories: str) -> Config:
        """The config with these values.

        Args:
          values: by dotted key.
          directories: of keys of `train`, such as run_dir.

        Raises:
          UserError: they do not fit together.
        """
        raw = self.base.model_dump(mode="json")
        for key, value in values.items():
            section, _, name = key.partition(".")
            if name == "name" and raw[section]["name"] != value:
                known = self._fields(section, value)
                raw[section] = {k: v for k, v in raw[section].items() if k in known}
            raw[section][name] = value
        raw["train"] |= directories
        shown = ", ".join(f"{key} {value!r}" for key, value in values.items())
        return config_from_dict(raw, what=f"the trial of {shown}" if values else "the config")

    def start_values(self) -> dict[str, Any]:
        """The base's own values of the keys that are searched, as far as the space has them."""
        values = {key: _value(self.base, key) for key in self.distributions}
        return self.known(values)

    def known(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of some values that the space has."""
        return {
            key: value
            for key, value in values.items()
            if key in self.distributions and _contains(self.distributions[key], value)
        }

    def describe(self) -> list[str]:
        """A line a key."""
        return [f"{key}: {_describe(of)}" for key, of in self.distributions.items()]

    def _has(self, key: str, values: Mapping[str, Any]) -> bool:
        section, _, name = key.partition(".")
        kind = values.get(f"{section}.name")
        return kind is None or name in self._fields(section, kind)

    def _fields(self, section: str, kind: str) -> set[str]:
        for variant in variants_of(Config.model_fields[section].annotation):
            if kind in typing.get_args(variant.model_fields["name"].annotation):
                return set(variant.model_fields)
        return set()

    def _check(self) -> None:
        """Raises UserError unless every key may have its bounds or values, with some model."""
        kinds = {key: of for key, of in self.distributions.items() if key.endswith(".name")}
        for key, distribution in self.distributions.items():
            errors = []
            for values in _combinations(kinds):
                if not self._has(key, values):
                    continue
                try:
                    for value in _extremes(distribution):
                        self.config(values | {key: value})
                    break
                except UserError as error:
                    errors.append(error)
            else:
                reason = (
                    str(errors[0]).partition(": ")[2]
                    if errors
                    else (f"{key}: no model or loss of the space has this key")
                )
                raise UserError(f"tune.space: {reason}") from None


def _suggest(trial: optuna.Trial, key: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    kind = isinstance(distribution, IntDistribution)
    suggest = trial.suggest_int if kind else trial.suggest_float
    return suggest(
        key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def _combinations(kinds: Mapping[str, CategoricalDistribution]) -> list[dict[str, Any]]:
    combinations: list[dict[str, Any]] = [{}]
    for key, distribution in kinds.items():
        combinations = [c | {key: value} for c in combinations for value in distribution.choices]
    return combinations


def _extremes(distribution: BaseDistribution) -> tuple:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return distribution.low, distribution.high


def _parse(key: str, searched: SearchRange | tuple) -> BaseDistribution:
    if isinstance(searched, tuple):
        return CategoricalDistribution(searched)
    texts = [str(field.annotation) for field in searched_fields(key)]
    bounds = (searched.low, searched.high, 1 if searched.step is None else searched.step)
    if not any("float" in text for text in texts) and all(isinstance(b, int) for b in bounds):
        return IntDistribution(*bounds[:2], log=searched.log, step=bounds[2])
    return FloatDistribution(*map(float, bounds[:2]), log=searched.log, step=searched.step)


def _default(base: Config) -> dict[str, BaseDistribution]:
    if isinstance(base.model, LinearConfig):
        return dict(_LINEAR)
    space: dict[str, BaseDistribution] = {
        "optimizer.learning_rate": _around(base.optimizer.learning_rate)
    }
    for key, choices in _CHOICES.items():
        section, _, name = key.partition(".")
        values = getattr(base, section)
        if name in type(values).model_fields:
            own = getattr(values, name)
            space[key] = CategoricalDistribution((own, *(c for c in choices if c != own)))
    if "dropout" in type(base.model).model_fields:
        space["model.dropout"] = FloatDistribution(
            _DROPOUT[0], max(_DROPOUT[1], base.model.dropout)
        )
    if base.loss.name == "squared_hinge":
        space["loss.margin"] = _around(base.loss.margin)
    elif base.loss.name == "weighted_bce" and base.loss.pos_weight != "file":
        choices = dict.fromkeys((base.loss.pos_weight, "none", "sqrt"))
        space["loss.pos_weight"] = CategoricalDistribution(tuple(choices))
    epochs = base.train.epochs
    space["train.epochs"] = IntDistribution(max(1, epochs // 2), 2 * epochs)
    return space


def _around(value: float) -> FloatDistribution:
    return FloatDistribution(value / _FACTOR, value * _FACTOR, log=True)


def _value(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name, None)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        # True is 1 and 1 is 1.0, but not where they are choices.
        return any(
            value == choice and type(value) is type(choice) for choice in distribution.choices
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return distribution.low <= value <= distribution.high


def _describe(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join("null" if c is None else str(c) for c in distribution.choices)
    text = f"{distribution.low:g} to {distribution.high:g}"
    return f"{text}, logarithmic" if distribution.log else text
