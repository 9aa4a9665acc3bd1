"""The section `tune` of the config: what `multihot-tune` searches, and for how long."""

import difflib
import re
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from beam_jobs.contract.sections.loss import LossConfig
from beam_jobs.contract.sections.model import ModelConfig
from beam_jobs.contract.sections.optimizer import OptimizerConfig
from beam_jobs.contract.sections.train import TrainConfig
from beam_jobs.contract.validation import Directory, Section, variants_of

# The sections that may be searched. Those before them decide the dataset, which is made once.
_SEARCHED = {
    "model": ModelConfig,
    "loss": LossConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
}
# Keys of `train` that decide where and how a run is kept, or what is compared.
_NOT_SEARCHED = {
    "run_dir",
    "strategy",
    "replicas",
    "worker_timeout_seconds",
    "objective",
    "callbacks",
    "checkpoint_steps",
    "keep_checkpoints",
    "folds",
    "fold",
    "fold_repeat",
}
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")

Scalar = str | int | float | bool | None


class SearchRange(Section):
    """The numbers between two bounds, both of which are among them."""

    low: int | float
    high: int | float
    log: bool = False
    step: Annotated[int | float, Field(gt=0)] | None = None

    @pydantic.model_validator(mode="after")
    def _is_a_range(self):
        if not self.low < self.high:
            raise ValueError(f"expected low below high, not {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(
                "expected `log: true` with low above 0 and without step, not "
                f"{self.low} and {self.step}"
            )
        return self


class TuneConfig(Section):
    """The search of `multihot-tune` for good values of keys."""

    dir: Directory = Field(
        description=(
            "the study's trials, plots and best.yaml; all its workers share it; default: "
            "out/NAME/tune"
        )
    )
    time: str | None = Field(
        "30m",
        description=(
            "how long a call searches, such as 90s, 30m or 1h30m; no trial begins that is not "
            "likely to end in time; null: until there are `trials`"
        ),
    )
    trials: int | None = Field(
        None, ge=1, description="trials of the study, of all calls together; null: as time allows"
    )
    grace_seconds: int = Field(
        60,
        ge=0,
        description=(
            "how long a trial that is stopped, at the end of `time` or by Ctrl-C, has to save its "
            "step before it is ended; the next call goes on with it"
        ),
    )
    space: dict[str, SearchRange | tuple[Scalar, ...]] | None = Field(
        None,
        description=(
            "what is searched, by dotted key: a range such as {low: 1e-3, high: 1e-1, log: true}, "
            "or a list of values; null: a range around what `auto` chooses for each key that "
            "matters most"
        ),
    )
    pruner: Literal["median", "halving", "none"] = Field(
        "median",
        description=(
            "ends trials early: those below the median of the others at the same part of the run, "
            "or all but the best by successive halving (Li et al. 2020)"
        ),
    )
    storage: str | None = Field(
        None,
        description=(
            "where Optuna keeps the study: sqlite:///FILE or postgresql://USER@HOST/DATABASE; "
            "null: study.db in `dir`"
        ),
    )
    study: str | None = Field(
        None, min_length=1, description="the study's name in the storage; null: the experiment's"
    )
    seed: int = Field(
        0, ge=0, description="seed of what is tried; `train.seed` is each trial's own"
    )

    @property
    def seconds(self) -> float | None:
        """`time` in seconds."""
        return None if self.time is None else seconds_of(self.time)

    @pydantic.field_validator("time")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None and not seconds_of(value):
            raise ValueError("expected a time such as 90s, 30m or 1h30m")
        return value

    @pydantic.field_validator("space")
    @classmethod
    def _has_known_keys(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        for key, searched in (value or {}).items():
            _check_key(key)
            if searched == ():
                raise ValueError(f"expected at least one value of {key}")
        if value == {}:
            raise ValueError("expected keys, or null for the default")
        return value

    @pydantic.model_validator(mode="after")
    def _ends(self):
        if self.time is None and self.trials is None:
            raise ValueError("expected time or trials: without both the search has no end")
        return self


def seconds_of(time: str) -> float:
    """The seconds of a time such as 1h30m; 0: it is not one."""
    match = _TIME.fullmatch(time)
    if not match:
        return 0.0
    return sum(
        float(number) * _SECONDS[unit]
        for unit, number in zip("hms", match.groups(), strict=True)
        if number
    )


def searched_fields(key: str) -> list[pydantic.fields.FieldInfo]:
    """The fields that a dotted key names in the kinds of its section; of an unknown key, none."""
    section, _, name = key.partition(".")
    if section not in _SEARCHED or (section == "train" and name in _NOT_SEARCHED):
        return []
    kinds = variants_of(_SEARCHED[section])
    return [kind.model_fields[name] for kind in kinds if name in kind.model_fields]


def _check_key(key: str) -> None:
    """Raises ValueError for a key that cannot be searched."""
    section, _, name = key.partition(".")
    if section not in _SEARCHED:
        raise ValueError(
            f"{key}: expected a key of {', '.join(_SEARCHED)}; the sections before them decide the "
            "dataset, which a search does not make again"
        )
    if searched_fields(key):
        return
    if section == "train" and name in _NOT_SEARCHED:
        raise ValueError(f"{key}: cannot be searched; expected a key that decides the weights")
    known = sorted(
        f"{section}.{field}"
        for kind in variants_of(_SEARCHED[section])
        for field in kind.model_fields
        if searched_fields(f"{section}.{field}")
    )
    near = difflib.get_close_matches(key, known, n=1)
    raise ValueError(
        f"{key}: unknown key; "
        + (f"did you mean {near[0]!r}? " if near else "")
        + f"valid keys of {section}: {', '.join(dict.fromkeys(known))}"
    )
