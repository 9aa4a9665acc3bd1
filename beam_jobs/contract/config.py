"""Strict YAML -> frozen config objects. One file per experiment drives every stage.

Every key has a type, a range, a default and a description; an unknown key, a duplicate key
or a wrong type is an error that names the key, what was received and what was expected.
Nothing here imports TensorFlow, so that a wrong config is reported at once.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pydantic
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import DataConfig, RowData
from beam_jobs.contract.sections.duplicates import DuplicatesConfig
from beam_jobs.contract.sections.evaluate import EvaluateConfig
from beam_jobs.contract.sections.export import ExportConfig
from beam_jobs.contract.sections.labels import LabelsConfig
from beam_jobs.contract.sections.linear_model import LinearConfig
from beam_jobs.contract.sections.loss import (
    DistributionBalancedConfig,
    LossConfig,
    WeightedBceConfig,
)
from beam_jobs.contract.sections.model import AutoConfig, ModelConfig
from beam_jobs.contract.sections.network_models import BowTreeConfig
from beam_jobs.contract.sections.optimizer import OptimizerConfig
from beam_jobs.contract.sections.output import OutputConfig
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from beam_jobs.contract.sections.splits import HashSplits, SplitsConfig
from beam_jobs.contract.sections.text import TextConfig
from beam_jobs.contract.sections.train import TrainConfig
from beam_jobs.contract.sections.tune import TuneConfig
from beam_jobs.contract.sections.vocabulary import VocabularyConfig
from beam_jobs.contract.validation import Section, error_lines, validate

CONFIG_FILE = "config.yaml"  # the resolved config, in a dataset, a run and a model


class Config(Section):
    """A whole experiment."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", description="the experiment's name; shards are named after it"
    )
    data: DataConfig
    text: TextConfig = TextConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    duplicates: DuplicatesConfig = DuplicatesConfig()
    labels: LabelsConfig = LabelsConfig()
    splits: SplitsConfig = Field(HashSplits(), discriminator="method")
    output: OutputConfig
    model: ModelConfig = AutoConfig()
    loss: LossConfig = WeightedBceConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig
    tune: TuneConfig

    @pydantic.model_validator(mode="after")
    def _splits_have_their_field(self):
        field = {"column": "split_field", "time": "time_field", "time_fractions": "time_field"}.get(
            self.splits.method
        )
        if field and isinstance(self.data, RowData) and getattr(self.data, field) is None:
            raise ValueError(
                f"expected data.{field}, which `splits.method: {self.splits.method}` reads"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _linear_is_not_trained_by_steps(self):
        if isinstance(self.model, LinearConfig):
            for section in ("loss", "optimizer"):
                if getattr(self, section) != Config.model_fields[section].default:
                    raise ValueError(
                        f"expected no section `{section}` with `model.name: linear`: its labels "
                        "are fitted as by liblinear, not by steps of training; see model.loss and "
                        "model.C"
                    )
        return self

    @pydantic.model_validator(mode="after")
    def _encoders_read_their_own_pieces(self):
        size = self.vocabulary.size
        if self.text.encoder_directory is None:
            if isinstance(self.model, PretrainedConfig):
                raise ValueError(
                    "expected the directory of the encoder as text.tokenizer with `model.name: "
                    f"pretrained`, which reads the pieces of its own tokenizer, not "
                    f"{self.text.tokenizer}"
                )
        elif size != VocabularyConfig.model_fields["size"].default:
            raise ValueError(
                f"expected no vocabulary.size with the tokenizer of an encoder, not {size}: the "
                "vocabulary is all of its pieces"
            )
        window, kept = getattr(self.model, "window", None), self.text.max_tokens_per_document
        if window is not None and kept is not None and self.model.max_tokens - 2 > kept:
            raise ValueError(
                f"expected model.max_tokens of at most {kept + 2} with "
                f"text.max_tokens_per_document {kept}, not {self.model.max_tokens}: records hold "
                "no more of a document; make the dataset with more, or null"
            )
        return self

    @property
    def encoder_directory(self) -> str | None:
        """Where the weights of the encoder are: `model.backbone`, or else `text.tokenizer`."""
        return getattr(self.model, "backbone", None) or self.text.encoder_directory

    @pydantic.model_validator(mode="after")
    def _tree_has_negatives_and_devices_of_its_own(self):
        if isinstance(self.model, BowTreeConfig):
            if self.loss.negatives != "all":
                raise ValueError(
                    "expected `loss.negatives: all` with `model.name: bow_tree`, not "
                    f"{self.loss.negatives!r}: the negatives are the labels of the best clusters, "
                    "see model.beam"
                )
            if isinstance(self.loss, DistributionBalancedConfig):
                raise ValueError(
                    "expected another loss with `model.name: bow_tree`, not "
                    "'distribution_balanced': its weights depend on all labels of a document, and "
                    "the tree takes them cluster by cluster"
                )
            if self.model.output_devices > 1 and self.train.strategy in (
                "mirrored",
                "multi_worker",
            ):
                raise ValueError(
                    "expected `train.strategy: auto` or one_device with model.output_devices "
                    f"{self.model.output_devices}, not {self.train.strategy!r}: the output layer "
                    "of one replica is divided over devices"
                )
        return self

    def dataset_config(self) -> dict[str, Any]:
        """The part that decides the dataset's bytes, as plain JSON values."""
        sections = self.model_dump(
            mode="json",
            include={
                "name",
                "data",
                "text",
                "vocabulary",
                "duplicates",
                "labels",
                "splits",
                "output",
            },
        )
        del sections["output"]["dataset_dir"]
        return sections

    def to_yaml(self, *, with_place: bool = True) -> str:
        """The resolved config as YAML that `load_config` reads back to an equal config.

        Where `model.name` is `auto`, keys that the trainer is to choose stay unset.

        Args:
          with_place: whether `output.dataset_dir` is in it; a dataset has the same bytes anywhere.
        """
        values = self.model_dump(mode="json")
        if isinstance(self.model, AutoConfig):
            set_by_user = self.model_dump(mode="json", exclude_unset=True)
            for section in ("loss", "optimizer", "train"):
                del values[section]
                if section in set_by_user:
                    values[section] = set_by_user[section]
        if not with_place:
            del values["output"]["dataset_dir"]
        return _dump_yaml(values)


class OutdatedKeys(UserError):
    """A config has keys or choices of an earlier version."""

    def __init__(self, reasons: Sequence[str], what: str):
        super().__init__(f"{what}: {error_lines(reasons)}")
        self.reason = reasons[0]


_ABSENT = object()
# Directories that follow from the experiment's name where the config does not name them.
_DEFAULT_DIRS = {
    ("output", "dataset_dir"): "dataset",
    ("train", "run_dir"): "run",
    ("export", "model_dir"): "model",
    ("tune", "dir"): "tune",
}
# The kind of a section that sets keys and does not name one.
_DEFAULT_KINDS = {
    "model": {"name": "bow"},
    "loss": {"name": "weighted_bce"},
    "splits": {"method": "hash"},
}


# Keys of earlier versions, by their dotted paths, and what they are called now.
RENAMED_KEYS = {
    "vocabulary.max_tokens": "vocabulary.size",
    "text.max_tokens": "text.max_tokens_per_document",
    "text.wordpiece": "text.subwords",
    "train.length_window": "train.length_bucket_steps",
    "evaluate.ranks": "evaluate.at_k",
    "optimizer.ema_momentum": "optimizer.average_epochs",
    "model.vectors": "model.pretrained_vectors",
    "model.freeze_vectors": "model.freeze_pretrained_vectors",
}
# Values of earlier versions that are gone, and what does their work now.
REMOVED_VALUES = {
    ("splits.method", "folds"): (
        "expected another method, such as hash: `train.folds` and `train.fold` make folds of the "
        "train and validation splits when training"
    )
}


def load_config(path: str | Path, *, overrides: Sequence[str] = ()) -> Config:
    """Reads an experiment's YAML file.

    Args:
      path: the YAML file.
      overrides: `section.key=value` strings; the value is read as YAML.

    Raises:
      UserError: the file is missing, is not YAML, holds a duplicate or unknown key, or a value
        of a wrong type or range. All wrong keys are named at once.
    """
    try:
        text = places.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the config {path}: {error}. Expected a YAML file, such as "
            "configs/docstrings.yaml"
        ) from None
    return config_from_yaml(text, what=str(path), overrides=overrides)


def config_from_yaml(text: str, *, what: str, overrides: Sequence[str] = ()) -> Config:
    """Reads the YAML of an experiment, as `load_config` does; `what` names its origin in errors."""
    raw = _parse_yaml(text, what=what)
    if not isinstance(raw, dict):
        raise UserError(
            f"{what}: received {type(raw).__name__} at the top level, expected a mapping of "
            "sections such as `data:`"
        )
    for override in overrides:
        _apply_override(raw, override)
    return config_from_dict(raw, what=what)


def load_saved_config(path: str | Path, *, remedy: str) -> Config:
    """Reads the config that a run or a model has saved.

    Args:
      path: the YAML file that `Config.to_yaml` wrote.
      remedy: what to do if an older version of multihot wrote it.

    Raises:
      UserError: it is not a config of this version.
    """
    try:
        return load_config(path)
    except OutdatedKeys as error:
        raise UserError(
            f"{path} was made by an older version of multihot ({error.reason}); {remedy}"
        ) from None


def config_from_dict(raw: Mapping[str, Any], *, what: str) -> Config:
    """Validates plain values into a Config; `what` names their origin in errors."""
    _check_outdated(raw, what)
    raw = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    for (section, key), leaf in _DEFAULT_DIRS.items():
        values = {} if raw.get(section) is None else raw[section]
        if isinstance(values, dict) and values.get(key) is None:
            raw[section] = values | {key: f"out/{raw.get('name')}/{leaf}"}
    for section, kind in _DEFAULT_KINDS.items():
        if isinstance(raw.get(section), dict):
            raw[section] = kind | raw[section] if raw[section] else None
    return validate(
        Config, {key: value for key, value in raw.items() if value is not None}, what=what
    )


def config_hash(values: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of plain JSON values in canonical form."""
    canonical = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def differing_keys(
    left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """The dotted keys whose values differ in two nested mappings, with both values."""
    rows = []
    for key in sorted(left.keys() | right.keys()):
        a, b = left.get(key), right.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            rows += differing_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            rows.append((prefix + key, a, b))
    return rows


# --- helpers ---------------------------------------------------------------------------


def _dump_yaml(values: Mapping[str, Any]) -> str:
    stream = StringIO()
    writer = YAML(typ="safe", pure=True)
    # Two faults of ruamel: it adds a space where it folds a quoted line, and it writes the
    # three characters below as line breaks, which YAML 1.2 does not read as such: they must be
    # escaped.
    writer.width = 1 << 30
    writer.allow_unicode = not re.search(
        "[\x85\u2028\u2029]", json.dumps(values, ensure_ascii=False)
    )
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False
    writer.dump(values, stream)
    return stream.getvalue()


# ruamel takes a minute for 2,000 before it gives up.
_MAX_OPEN_BRACKETS = 500


def _parse_yaml(text: str, *, what: str) -> Any:
    steps = (("[{".count(mark) or -1) for mark in re.findall(r"[\[{\]}]", text))
    if max(itertools.accumulate(steps), default=0) > _MAX_OPEN_BRACKETS:
        raise UserError(
            f"{what} is not valid YAML: more than {_MAX_OPEN_BRACKETS} brackets are open at once"
        )
    # YAML 1.2 by ruamel: `1e-4` is a number, `no` is a string, and a duplicate key is an error.
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (
        YAMLError,
        ValueError,
        KeyError,
        RecursionError,
    ) as error:  # ruamel passes on what int() and the like raise
        message = str(error).split("\nTo suppress this check")[0].strip()
        raise UserError(f"{what} is not valid YAML: {message}") from None


def _check_outdated(raw: Mapping[str, Any], what: str) -> None:
    """Raises OutdatedKeys if values have keys or choices of earlier versions."""
    reasons = [
        f"{old}: renamed, expected {new}"
        for old, new in RENAMED_KEYS.items()
        if _value_at(raw, old) is not _ABSENT
    ]
    reasons += [
        f"{key}: received {value!r}, which no longer exists; {advice}"
        for (key, value), advice in REMOVED_VALUES.items()
        if _value_at(raw, key) == value
    ]
    if reasons:
        raise OutdatedKeys(reasons, what)


def _value_at(raw: Mapping[str, Any], dotted: str) -> Any:
    section, _, key = dotted.partition(".")
    values = raw.get(section)
    return values.get(key, _ABSENT) if isinstance(values, Mapping) else _ABSENT


def _apply_override(raw: dict[str, Any], override: str) -> None:
    dotted, separator, value = override.partition("=")
    keys = dotted.strip().split(".")
    if not separator or not all(keys):
        raise UserError(
            f"--set: received {override!r}, expected section.key=value, such as --set "
            "train.epochs=3"
        )
    section = raw
    for key in keys[:-1]:
        inner = {} if section.get(key) is None else section[key]
        if not isinstance(inner, dict):
            raise UserError(
                f"--set: received {override!r}, expected section.key=value, and {key!r} is not "
                "a section"
            )
        section[key] = dict(inner)  # a copy: by a YAML alias two sections may share one mapping
        section = section[key]
    section[keys[-1]] = _parse_yaml(value, what=f"--set {dotted}")
