"""Strict YAML -> frozen config objects. One file an experiment; it drives every stage.

Every key has a type, a range, a default and a description; an unknown key, a duplicate key
or a wrong type is an error that names the key, what was received and what was expected.
Nothing here imports TensorFlow, so that a wrong config is answered in a moment.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.validation import Section, validate

Fraction = Annotated[float, Field(ge=0, le=1)]
Path_ = Annotated[str, Field(min_length=1)]


# --- data: where documents come from ---------------------------------------------------


class _Source(Section):
    max_reject_fraction: Fraction = Field(
        0.01, description="stop, with the most frequent reasons, when more than this fraction of the documents read is rejected"
    )


class JsonlData(_Source):
    """One JSON object a line."""

    source: Literal["jsonl"] = Field(description="the kind of source")
    inputs: tuple[Path_, ...] = Field(min_length=1, description="files or glob patterns; relative paths start at the working directory")
    id_field: str | None = Field(None, description="the field with the document's id; null: the file's name and the line number")
    text_fields: tuple[str, ...] = Field(("text",), min_length=1, description="the fields with text; several are joined by a blank line")
    labels_field: str = Field("labels", description="the field with the labels: a list of strings, or a string if label_delimiter is set")
    label_delimiter: str | None = Field(None, min_length=1, description="the string between the labels where labels_field holds one string")
    weight_field: str | None = Field(None, description="the field with the document's weight in the loss, a number of 0 or more; null: 1")


class PythonDocstringsData(_Source):
    """The docstrings of installed Python packages, read with `ast`; nothing is imported.

    A document's labels are its package, its sub-modules down to `label_depth`, and the kind of
    object (`kind:module`, `kind:class`, `kind:function`).
    """

    source: Literal["python_docstrings"] = Field(description="the kind of source")
    packages: tuple[str, ...] = Field((), description="names of importable packages; `stdlib` is the standard library; empty: all that is installed")
    min_words: int = Field(8, ge=1, description="shorter docstrings are no documents")
    label_depth: int = Field(2, ge=1, description="2 gives the labels `numpy` and `numpy.linalg`")


DataConfig = Annotated[JsonlData | PythonDocstringsData, Field(discriminator="source")]


# --- text: the analyzer's whole specification ------------------------------------------


class TextConfig(Section):
    """How raw text becomes tokens: the specification of the analyzer, step by step in this order."""

    strip_html: bool = Field(True, description="remove comments, scripts, styles and tags, and decode common entities")
    strip_urls: bool = Field(True, description="remove http://, https://, ftp:// and www. addresses")
    normalize: Literal["none", "lower", "nfkc", "nfkc_casefold"] = Field(
        "nfkc_casefold", description="Unicode normalisation; `none` and `lower` need no TensorFlow Text when serving"
    )
    expand_contractions: bool = Field(True, description="English contractions: don't -> do not")
    keep_characters: str | None = Field(
        r"\p{L}\p{M}\p{N}", min_length=1, description="inside of an RE2 character class; all other characters become spaces; null: keep all"
    )
    token_pattern: str | None = Field(None, min_length=1, description="RE2 pattern; only its matches remain, each split at spaces again; null: off")
    tokenizer: Literal["whitespace", "unicode_script", "character"] = Field("whitespace", description="how text is split into tokens")
    drop_tokens_with_digits: bool = Field(False, description="drop every token that holds a decimal digit")
    stop_words: None | tuple[str, ...] | Path_ = Field(
        None, description="tokens to drop: `english`, a list, or a file with one word a line; null: none"
    )
    max_tokens: int | None = Field(512, ge=1, description="tokens kept a document, from its start; null: all")


class VocabularyConfig(Section):
    """Which tokens of the train split the model knows."""

    max_tokens: int = Field(50_000, ge=1, description="the most frequent tokens kept")
    min_document_count: int = Field(2, ge=1, description="tokens in fewer train documents are left out")


# --- labels, splits, output ------------------------------------------------------------


class LabelsConfig(Section):
    """Which labels the dataset keeps, counted over all documents after duplicates are dropped."""

    min_count: int = Field(1, ge=1, description="labels on fewer documents are left out")
    top_k: int | None = Field(None, ge=1, description="keep only the K most frequent labels; null: no limit")
    keep_unlabeled: bool = Field(True, description="keep documents that have none of the kept labels")


class SplitsConfig(Section):
    """The fraction of documents in each split; a document's split is decided by a hash of its analyzed text."""

    train: Fraction = Field(0.8, description="what the model learns from")
    validation: Fraction = Field(0.1, description="decides thresholds, the best checkpoint and early stopping")
    test: Fraction = Field(0.1, description="only reported on")

    @pydantic.model_validator(mode="after")
    def _sum_to_one(self):
        if not math.isclose(self.train + self.validation + self.test, 1.0, abs_tol=1e-9) or self.train == 0:
            raise ValueError(f"expected a sum of 1 with train above 0, not {self.train} + {self.validation} + {self.test}")
        return self


class OutputConfig(Section):
    """Where the dataset goes, and in what shards."""

    dataset_dir: Path_ = Field(description="the dataset directory; default: out/NAME/dataset")
    shards: int | None = Field(None, ge=1, le=99_999, description="shards a split; null: as many as shard_bytes asks for")
    shard_bytes: int = Field(128 << 20, ge=1 << 10, description="target size of a shard in bytes (default 128 MiB), where shards is null")


# --- what the trainer reads ------------------------------------------------------------


class BowConfig(Section):
    """Bag of embeddings: the sum of the tokens' embeddings, then one dense layer."""

    name: Literal["bow"] = Field("bow", description="the architecture")
    embedding_dim: int = Field(128, ge=1, description="size of a token's embedding")
    token_weights: Literal["tfidf", "uniform"] = Field("tfidf", description="a token's weight in the sum; each document's weights have L2 norm 1")
    bigram_buckets: int = Field(0, ge=0, description="hashed embeddings for pairs of neighbouring tokens; 0: no pairs")
    dropout: float = Field(0.0, ge=0, lt=1, description="fraction of the document vector's units dropped while training")


ModelConfig = BowConfig


class LossConfig(Section):
    """Weighted binary cross-entropy, summed over labels and averaged over the global batch."""

    pos_weight: Literal["none", "sqrt", "balanced"] = Field(
        "sqrt", description="weight of a label's positives: 1, sqrt(negatives / positives), or negatives / positives, in the train split"
    )
    max_pos_weight: float = Field(20.0, ge=1, description="positive weights are clipped to [1, this]")


class OptimizerConfig(Section):
    """The optimizer."""

    name: Literal["lazy_adam", "adam", "adamw", "adagrad", "sgd", "rmsprop", "lion"] = Field(
        "lazy_adam", description="`lazy_adam` updates only the embeddings that a batch used; the others are those of Keras"
    )
    learning_rate: float = Field(1e-2, gt=0, description="step size")


class TrainConfig(Section):
    """The training run."""

    run_dir: Path_ = Field(description="checkpoints, logs and reports; default: out/NAME/run")
    strategy: Literal["auto", "one_device", "mirrored"] = Field("auto", description="auto: mirrored where there are several GPUs, else one device")
    replicas: int | None = Field(None, ge=1, description="replicas of `mirrored`; null: one a GPU; without GPUs they are logical CPUs")
    batch_size: int = Field(256, ge=1, description="documents a step, over all replicas")
    epochs: int = Field(10, ge=1, description="most epochs to train")
    patience: int | None = Field(2, ge=1, description="stop after this many epochs without a better validation micro-F1; null: never")
    steps_per_call: int = Field(16, ge=1, description="training steps in one call of the compiled function")
    shuffle_buffer: int = Field(10_000, ge=1, description="documents in the shuffle buffer; shards are shuffled as well")
    checkpoint_steps: int | None = Field(None, ge=1, description="also save a checkpoint every so many steps; null: each epoch's end only")
    keep_checkpoints: int = Field(2, ge=1, description="the newest checkpoints kept; the best is kept besides")
    seed: int = Field(0, ge=0, description="seed of weights, shuffling and dropout")

    @pydantic.model_validator(mode="after")
    def _replicas_share_the_batch(self):
        if self.replicas is not None:
            if self.strategy != "mirrored":
                raise ValueError(f"expected replicas with `strategy: mirrored` only, not with {self.strategy!r}")
            if self.batch_size % self.replicas:
                raise ValueError(f"expected a batch_size that replicas divide, not {self.batch_size} and {self.replicas}")
        return self


class EvaluateConfig(Section):
    """The evaluation."""

    batch_size: int = Field(1024, ge=1, description="documents a step, over all replicas")
    ranks: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 3, 5), min_length=1, description="the k of precision at k")
    min_positives: int = Field(10, ge=1, description="validation positives a label needs for a threshold of its own; others take the global one")


class ExportConfig(Section):
    """The SavedModel."""

    model_dir: Path_ = Field(description="parent of the numbered versions; default: out/NAME/model")
    top_k: int = Field(5, ge=1, description="labels that serving_default answers with")
    threshold: Literal["global", "per_label"] = Field("per_label", description="which tuned thresholds `decide` applies")


class Config(Section):
    """A whole experiment."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="the experiment's name; shards are named after it")
    data: DataConfig
    text: TextConfig = TextConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    labels: LabelsConfig = LabelsConfig()
    splits: SplitsConfig = SplitsConfig()
    output: OutputConfig
    model: ModelConfig = BowConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig

    def dataset_config(self) -> dict[str, Any]:
        """The part that decides the dataset's bytes, as plain JSON values: all but where it is written."""
        sections = self.model_dump(mode="json", include={"name", "data", "text", "vocabulary", "labels", "splits", "output"})
        del sections["output"]["dataset_dir"]
        return sections

    def to_yaml(self) -> str:
        """The resolved config as YAML that `load_config` reads back to an equal config."""
        values = self.model_dump(mode="json")
        stream = StringIO()
        writer = YAML(typ="safe", pure=True)
        # Two faults of ruamel: it adds a space where it folds a quoted line, and it writes the three characters
        # below as line breaks, which YAML 1.2 then reads as none, so they must be escaped.
        writer.width = 1 << 30
        writer.allow_unicode = not re.search("[\x85\u2028\u2029]", json.dumps(values, ensure_ascii=False))
        writer.default_flow_style = False
        writer.sort_base_mapping_type_on_output = False
        writer.dump(values, stream)
        return stream.getvalue()


# Directories that the experiment's name decides where the config is silent.
_DEFAULT_DIRS = {("output", "dataset_dir"): "dataset", ("train", "run_dir"): "run", ("export", "model_dir"): "model"}


def load_config(path: str | Path, *, overrides: Sequence[str] = ()) -> Config:
    """Reads an experiment's YAML file.

    Args:
      path: the YAML file.
      overrides: `section.key=value` strings; the value is read as YAML.

    Raises:
      UserError: the file is missing, is no YAML, holds a duplicate or unknown key, or a value
        of a wrong type or range. All wrong keys are told at once.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the config {path}: {error}. Expected a YAML file, such as configs/docstrings.yaml") from None
    raw = _parse_yaml(text, what=str(path))
    if not isinstance(raw, dict):
        raise UserError(f"{path}: received {type(raw).__name__} at the top level, expected a mapping of sections such as `data:`")
    for override in overrides:
        _apply_override(raw, override)
    return config_from_dict(raw, what=str(path))


def config_from_dict(raw: Mapping[str, Any], *, what: str) -> Config:
    """Validates plain values into a Config; `what` names their origin in errors."""
    raw = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    for (section, key), leaf in _DEFAULT_DIRS.items():
        values = {} if raw.get(section) is None else raw[section]
        if isinstance(values, dict) and values.get(key) is None:
            raw[section] = values | {key: f"out/{raw.get('name')}/{leaf}"}
    return validate(Config, {key: value for key, value in raw.items() if value is not None}, what=what)


def config_hash(values: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of plain JSON values in canonical form."""
    canonical = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def differing_keys(left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
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


def _parse_yaml(text: str, *, what: str) -> Any:
    # YAML 1.2 by ruamel: `1e-4` is a number, `no` is a string, and a duplicate key is an error.
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, KeyError, RecursionError) as error:  # ruamel lets through what int() and the like raise
        message = str(error).split("\nTo suppress this check")[0].strip()
        raise UserError(f"{what} is not valid YAML: {message}") from None


def _apply_override(raw: dict[str, Any], override: str) -> None:
    dotted, separator, value = override.partition("=")
    keys = dotted.strip().split(".")
    if not separator or not all(keys):
        raise UserError(f"--set: received {override!r}, expected section.key=value, such as --set train.epochs=3")
    at = raw
    for key in keys[:-1]:
        inner = {} if at.get(key) is None else at[key]
        if not isinstance(inner, dict):
            raise UserError(f"--set: received {override!r}, expected section.key=value, and {key!r} is no section")
        at[key] = dict(inner)  # a copy: through a YAML alias two sections may share one mapping
        at = at[key]
    at[keys[-1]] = _parse_yaml(value, what=f"--set {dotted}")
