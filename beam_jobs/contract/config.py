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
from datetime import datetime, timedelta, timezone
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
LabelName = Annotated[str, Field(min_length=1)]


# --- data: where documents come from ---------------------------------------------------


def _check_encoding(encoding: str) -> None:
    try:
        "a".encode(encoding)  # refuses codecs that encode no text, which codecs.lookup() knows as well
    except LookupError:
        raise ValueError(f"expected an encoding that Python knows, such as utf-8 or latin-1, not {encoding!r}") from None


class _Source(Section):
    max_reject_fraction: Fraction = Field(
        0.01, description="stop, with the most frequent reasons, when more than this fraction of the documents read is rejected"
    )


class _Files(_Source):
    inputs: tuple[Path_, ...] = Field(min_length=1, description="files or glob patterns; relative paths start at the working directory")
    max_row_bytes: int = Field(
        16 << 20, ge=1, description="a longer row, or file of a directory, is a reject: what bounds the memory that one document takes"
    )


class _Rows(_Files):
    id_field: str | None = Field(None, description="the field with the document's id, which need not be unique; null: the file's name and the row")
    text_fields: tuple[str, ...] = Field(("text",), min_length=1, description="the fields with text; several are joined by a blank line")
    labels_field: str = Field("labels", description="the field with the labels: a list of strings, or a string if label_delimiter is set")
    label_delimiter: str | None = Field(None, min_length=1, description="the string between the labels where labels_field holds one string")
    label_columns: tuple[str, ...] = Field(
        (), description="fields that each stand for the label of their name: 0 or 1, true or false, or soft; in the place of labels_field"
    )
    label_threshold: float = Field(0.5, gt=0, description="a label of label_columns is there where its field is at least this")
    weight_field: str | None = Field(None, description="the field with the document's weight in the loss, a number of 0 or more; null: 1")
    split_field: str | None = Field(None, description="the field that says which split the document is in, for splits.method column")
    time_field: str | None = Field(None, description="the field with the document's time, for splits.method time")


class JsonlData(_Rows):
    """One JSON object a line."""

    source: Literal["jsonl"] = Field(description="the kind of source")


class CsvData(_Rows):
    """CSV, TSV and their kin; without label_delimiter, labels_field holds one label."""

    source: Literal["csv"] = Field(description="the kind of source")
    columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="names of the columns of files without a header; null: the first row has them"
    )
    delimiter: str = Field(",", min_length=1, max_length=1, description='between the fields of a row; a tab is "\\t"')
    quote_character: str | None = Field(
        '"', min_length=1, max_length=1, description="around fields that hold delimiters or line breaks; null: no quoting"
    )
    double_quote: bool = Field(True, description="within quotes, a quote character is written twice; else behind escape_character")
    escape_character: str | None = Field(
        None, min_length=1, max_length=1, description="takes the meaning from the character behind it; null: none does"
    )
    encoding: str = Field("utf-8", description="how characters are encoded, by Python's name, such as latin-1")

    @pydantic.model_validator(mode="after")
    def _consistent(self):
        _check_encoding(self.encoding)
        marks = [mark for mark in (self.delimiter, self.quote_character, self.escape_character) if mark is not None]
        if len(set(marks)) < len(marks) or set(marks) & {"\n", "\r", "\0"}:
            raise ValueError(f"expected different characters, no line breaks, as delimiter, quote_character and escape_character, not {marks}")
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError(f"expected columns with different names, not {list(self.columns)}")
        return self


class ParquetData(_Rows):
    """Parquet; only the columns named here are read."""

    source: Literal["parquet"] = Field(description="the kind of source")


class DirectoriesData(_Files):
    """One document a file, labelled with the name of the directory that it stands in; also within tar archives."""

    source: Literal["directories"] = Field(description="the kind of source")
    encoding: str | None = Field(None, description="how characters are encoded, by Python's name; null: UTF-8, or else what each file looks like")
    remove: tuple[Literal["headers", "footers", "quotes"], ...] = Field(
        (), description="parts of posts to leave out, by the rules of scikit-learn's fetch_20newsgroups"
    )

    @pydantic.model_validator(mode="after")
    def _known_encoding(self):
        if self.encoding is not None:
            _check_encoding(self.encoding)
        return self


class StackExchangeData(_Files):
    """The questions of Stack Exchange's `Posts.xml`, labelled with their tags; other posts are no documents."""

    source: Literal["stack_exchange"] = Field(description="the kind of source")
    text_fields: tuple[Literal["title", "body"], ...] = Field(
        ("title", "body"), min_length=1, description="parts of the text, joined by a blank line"
    )


class CustomData(_Source):
    """A source of your own: a class with the methods of beam_jobs.readers.Reader."""

    source: Literal["custom"] = Field(description="the kind of source")
    reader: str = Field(pattern=r"^[\w.]+:\w+$", description="the class, as package.module:Class; workers must be able to import it")
    options: dict[str, str | int | float | bool | tuple[str, ...] | None] = Field({}, description="keyword arguments of the class")


class PythonDocstringsData(_Source):
    """The docstrings of installed Python packages, read with `ast`; nothing is imported.

    A document's labels are its package, its sub-modules down to `label_depth`, and the kind of
    object (`kind:module`, `kind:class`, `kind:function`).
    """

    source: Literal["python_docstrings"] = Field(description="the kind of source")
    packages: tuple[str, ...] = Field((), description="names of importable packages; `stdlib` is the standard library; empty: all that is installed")
    min_words: int = Field(8, ge=1, description="shorter docstrings are no documents")
    label_depth: int = Field(2, ge=1, description="2 gives the labels `numpy` and `numpy.linalg`")


DataConfig = Annotated[
    JsonlData | CsvData | ParquetData | DirectoriesData | StackExchangeData | PythonDocstringsData | CustomData, Field(discriminator="source")
]


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


class DuplicatesConfig(Section):
    """Near-duplicates: documents that share most of their shingles, by MinHash. Documents with equal analyzed text are always merged."""

    near: Literal["ignore", "report", "drop"] = Field(
        "ignore", description="report: count those that stand in several splits, in statistics.json; drop: keep one of each, of the last split"
    )
    similarity: float = Field(0.8, ge=0.5, le=1, description="least Jaccard similarity of two near-duplicates' sets of shingles")
    shingle_tokens: int = Field(3, ge=1, le=16, description="tokens in a row that make a shingle")


class LabelsConfig(Section):
    """Which labels the dataset keeps: names are cleaned first, then counted over all documents after duplicates are merged."""

    fold_case: bool = Field(False, description="fold the case of labels: `Python` and `python` are one; the names below are folded too")
    aliases: dict[LabelName, LabelName] = Field({}, description="other names of a label, such as `math-ph: math.MP`; applied after fold_case")
    deny: tuple[LabelName, ...] = Field((), description="labels to leave out")
    allow: tuple[LabelName, ...] | None = Field(None, min_length=1, description="the only labels to keep; null: all")
    min_count: int = Field(1, ge=1, description="labels on fewer documents are left out")
    top_k: int | None = Field(None, ge=1, description="keep only the K most frequent labels; null: no limit")
    keep_unlabeled: bool = Field(True, description="keep documents that have none of the kept labels")

    @pydantic.model_validator(mode="after")
    def _aliases_end_at_once(self):
        fold = str.casefold if self.fold_case else str
        aliases = {fold(name): fold(target) for name, target in self.aliases.items()}
        chained = sorted(target for name, target in aliases.items() if aliases.get(target, target) != target)
        if chained:
            raise ValueError(f"expected aliases of labels that are no aliases themselves, unlike {chained[0]!r}")
        return self


class _Fractions(Section):
    train: Fraction = Field(0.8, description="what the model learns from")
    validation: Fraction = Field(0.1, description="decides thresholds, the best checkpoint and early stopping")
    test: Fraction = Field(0.1, description="only reported on")

    @pydantic.model_validator(mode="after")
    def _sum_to_one(self):
        if not math.isclose(self.train + self.validation + self.test, 1.0, abs_tol=1e-9) or self.train == 0:
            raise ValueError(f"expected a sum of 1 with train above 0, not {self.train} + {self.validation} + {self.test}")
        return self


class HashSplits(_Fractions):
    """A fraction of the documents in each split; a document's split is decided by a hash of its analyzed text."""

    method: Literal["hash"] = Field("hash", description="how documents are split")


class StratifiedSplits(_Fractions):
    """A fraction of the documents of every label in each split, rare labels first."""

    method: Literal["stratified"] = Field(description="how documents are split")


class FoldSplits(Section):
    """One of k folds, by a hash of the analyzed text: fold `fold` is the test split, the next one validation, the others train."""

    method: Literal["folds"] = Field(description="how documents are split")
    folds: int = Field(10, ge=3, description="number of folds")
    fold: int = Field(0, ge=0, description="the fold that is the test split, from 0")

    @pydantic.model_validator(mode="after")
    def _one_of_the_folds(self):
        if self.fold >= self.folds:
            raise ValueError(f"expected a fold below folds = {self.folds}, not {self.fold}")
        return self


class ColumnSplits(Section):
    """The split that the source says; of duplicates the last counts: test before validation before train."""

    method: Literal["column"] = Field(description="how documents are split")
    train: tuple[str, ...] = Field(("train",), min_length=1, description="what the source calls the train split")
    validation: tuple[str, ...] = Field(("validation", "valid", "val", "dev"), description="what the source calls the validation split")
    test: tuple[str, ...] = Field(("test",), description="what the source calls the test split")


class FileSplits(Section):
    """The split of the file that a document stands in; of duplicates the last counts: test before validation before train."""

    method: Literal["files"] = Field(description="how documents are split")
    validation: tuple[str, ...] = Field((), description="glob patterns of files of the validation split, such as `*dev*`")
    test: tuple[str, ...] = Field((), description="glob patterns of files of the test split; all other files are train")


class TimeSplits(Section):
    """Older documents train, newer ones are validation and test; of duplicates the newest counts."""

    method: Literal["time"] = Field(description="how documents are split")
    validation_from: str = Field(description="ISO 8601 time, such as 2024-01-01, of the first documents that are no longer train; UTC")
    test_from: str = Field(description="ISO 8601 time of the first documents of the test split")

    @pydantic.model_validator(mode="after")
    def _times_in_order(self):
        try:
            first, second = parse_time(self.validation_from), parse_time(self.test_from)
        except ValueError as error:
            raise ValueError(f"expected times in ISO 8601, such as 2024-01-31: {error}") from None
        if first > second:
            raise ValueError(f"expected validation_from before test_from, not {self.validation_from} and {self.test_from}")
        return self


SplitsConfig = HashSplits | StratifiedSplits | FoldSplits | ColumnSplits | FileSplits | TimeSplits


class OutputConfig(Section):
    """Where the dataset goes, and in what shards."""

    dataset_dir: Path_ = Field(description="the dataset directory; default: out/NAME/dataset")
    shards: int | None = Field(None, ge=1, le=99_999, description="shards a split; null: as many as shard_bytes asks for")
    shard_bytes: int = Field(128 << 20, ge=1 << 10, description="target size of a shard in bytes (default 128 MiB), where shards is null")
    compression: Literal["none", "gzip"] = Field("none", description="compression of the shards; TensorFlow Datasets reads only `none`")


# --- what the trainer reads ------------------------------------------------------------


class _Model(Section):
    name: str  # each kind has its own; it stands here to be the first key
    embedding_dim: int = Field(128, ge=1, description="size of a token's embedding")
    dropout: float = Field(0.1, ge=0, lt=1, description="fraction of the units dropped while training")
    vectors: Path_ | None = Field(None, description="GloVe or word2vec text file that the tokens' embeddings start from; its size is embedding_dim")
    freeze_vectors: bool = Field(False, description="embeddings from the file stay as they are; those of other tokens are learned")


class _BagModel(_Model):
    token_weights: Literal["tfidf", "uniform"] = Field("tfidf", description="a token's weight in the sum; each document's weights have L2 norm 1")
    bigram_buckets: int = Field(0, ge=0, description="hashed embeddings for pairs of neighbouring tokens; 0: no pairs")


class BowConfig(_BagModel):
    """Bag of embeddings: the sum of the tokens' embeddings, then one dense layer."""

    name: Literal["bow"] = Field("bow", description="the architecture")
    dropout: float = Field(0.0, ge=0, lt=1, description="fraction of the document vector's units dropped while training")
    wide: bool = Field(False, description="add a linear model: a weight for each token or pair and each label")


class MlpConfig(_BagModel):
    """Bag of embeddings, then hidden layers."""

    name: Literal["mlp"] = Field(description="the architecture")
    hidden_units: tuple[Annotated[int, Field(ge=1)], ...] = Field((256,), min_length=1, description="units of each hidden layer")


class _SequenceModel(_Model):
    max_tokens: int | None = Field(512, ge=1, description="tokens of a document that are read, from its start; null: all")


class CnnConfig(_SequenceModel):
    """Convolutions of several widths beside each other, each filter's highest value over the document (Kim 2014)."""

    name: Literal["cnn"] = Field(description="the architecture")
    filter_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field((3, 4, 5), min_length=1, description="tokens that the filters span")
    filters: int = Field(128, ge=1, description="filters of each width")


class LstmConfig(_SequenceModel):
    """LSTM layers over the tokens, read forwards or both ways."""

    name: Literal["lstm"] = Field(description="the architecture")
    units: int = Field(128, ge=1, description="units of each layer and direction")
    layers: int = Field(1, ge=1, description="layers, one on the other")
    bidirectional: bool = Field(True, description="read both ways")
    pooling: Literal["max", "last"] = Field("max", description="the document's vector: each unit's highest state, or its last one")
    spatial_dropout: float = Field(0.1, ge=0, lt=1, description="fraction of whole channels dropped before each layer while training")


class CnnLwanConfig(_SequenceModel):
    """A convolution, then an attention of each label's own over the document (CAML, Mullenbach et al. 2018)."""

    name: Literal["cnn_lwan"] = Field(description="the architecture")
    filter_width: int = Field(10, ge=1, description="tokens that a filter spans")
    filters: int = Field(128, ge=1, description="number of filters")


class TransformerConfig(_Model):
    """Transformer encoder with the norm before each layer (Vaswani et al. 2017, Xiong et al. 2020), and the mean over tokens."""

    name: Literal["transformer"] = Field(description="the architecture")
    max_tokens: int = Field(256, ge=1, description="tokens of a document that are read, from its start")
    layers: int = Field(2, ge=1, description="encoder layers")
    heads: int = Field(4, ge=1, description="attention heads; they divide embedding_dim")
    feed_forward_dim: int = Field(512, ge=1, description="units between the two dense layers of each encoder layer")
    positions: Literal["sinusoidal", "learned"] = Field("sinusoidal", description="how a token's place is told")

    @pydantic.model_validator(mode="after")
    def _heads_share_the_embedding(self):
        if self.embedding_dim % self.heads:
            raise ValueError(f"expected heads that divide embedding_dim, not {self.heads} and {self.embedding_dim}")
        return self


class CustomConfig(Section):
    """A model of your own; every further key is an option that its function receives."""

    model_config = pydantic.ConfigDict(extra="allow")

    name: Literal["custom"] = Field(description="the architecture")
    build: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="the function that builds it, as package.module:function")

    @property
    def options(self) -> dict[str, Any]:
        """The further keys."""
        return dict(self.model_extra or {})


ModelConfig = Annotated[
    BowConfig | MlpConfig | CnnConfig | LstmConfig | CnnLwanConfig | TransformerConfig | CustomConfig, Field(discriminator="name")
]


class _Loss(Section):
    name: str  # as in _Model
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="a label's target is drawn to 1/2 by this fraction of the way")


class WeightedBceConfig(_Loss):
    """Binary cross-entropy with weighted positives, summed over labels and averaged over the global batch."""

    name: Literal["weighted_bce"] = Field("weighted_bce", description="the loss")
    pos_weight: Literal["none", "sqrt", "balanced", "effective_number", "file"] = Field(
        "sqrt",
        description="weight of a label's positives, from the train split: 1, sqrt(negatives / positives), negatives / positives, that of their "
        "effective numbers, or read from pos_weight_file",
    )
    max_pos_weight: float = Field(20.0, ge=1, description="positive weights are clipped to [1, this]; those from a file are not")
    effective_number_beta: float = Field(0.999, ge=0, lt=1, description="n documents count as (1 - beta^n) / (1 - beta) in effective_number")
    pos_weight_file: Path_ | None = Field(None, description="JSON file, one object with the weight of each label by its name")

    @pydantic.model_validator(mode="after")
    def _file_where_it_is_read(self):
        if (self.pos_weight == "file") != (self.pos_weight_file is not None):
            raise ValueError(f"expected pos_weight_file with `pos_weight: file` only, not {self.pos_weight_file!r} with {self.pos_weight!r}")
        return self


class FocalConfig(_Loss):
    """Focal loss (Lin et al. 2017): labels that are predicted well weigh less."""

    name: Literal["focal"] = Field(description="the loss")
    gamma: float = Field(2.0, ge=0, description="focusing; 0: none")
    alpha: float | None = Field(0.25, gt=0, lt=1, description="weight of positives, and 1 - alpha of negatives; null: 1 for both")


class AsymmetricConfig(_Loss):
    """Asymmetric loss (Ridnik et al. 2021): negatives are focused more than positives, and the easiest are dropped."""

    name: Literal["asymmetric"] = Field(description="the loss")
    gamma_positive: float = Field(0.0, ge=0, description="focusing of positives")
    gamma_negative: float = Field(4.0, ge=0, description="focusing of negatives")
    probability_shift: float = Field(0.05, ge=0, lt=1, description="negatives with a probability up to this have no loss")


class ClassBalancedConfig(_Loss):
    """Class-balanced loss (Cui et al. 2019): a label weighs by the inverse of its effective number of documents."""

    name: Literal["class_balanced"] = Field(description="the loss")
    beta: float = Field(0.999, ge=0, lt=1, description="n documents count as (1 - beta^n) / (1 - beta)")
    gamma: float = Field(0.0, ge=0, description="focusing as in focal loss; 0: none")


class DistributionBalancedConfig(_Loss):
    """Distribution-balanced loss (Wu et al. 2020, Huang et al. 2021): weights by co-occurring labels, and tolerance for negatives."""

    name: Literal["distribution_balanced"] = Field(description="the loss")
    alpha: float = Field(0.1, ge=0, description="the smoothed weight of a label in a document is alpha + sigmoid(beta * (weight - mu))")
    beta: float = Field(10.0, gt=0, description="slope of the smoothing")
    mu: float = Field(0.2, ge=0, le=1, description="centre of the smoothing")
    negative_scale: float = Field(2.0, ge=1, description="negatives' logits are multiplied, and their loss divided, by this; 1: no tolerance")
    bias_scale: float = Field(0.05, ge=0, description="logits are moved by this times their labels' log-odds in training; 0: not at all")
    gamma: float = Field(2.0, ge=0, description="focusing as in focal loss; 0: none")


LossConfig = Annotated[
    WeightedBceConfig | FocalConfig | AsymmetricConfig | ClassBalancedConfig | DistributionBalancedConfig, Field(discriminator="name")
]


class OptimizerConfig(Section):
    """The optimizer."""

    name: Literal["lazy_adam", "row_adagrad", "adam", "adamw", "adagrad", "sgd", "rmsprop", "lion"] = Field(
        "lazy_adam",
        description="`lazy_adam` and `row_adagrad` update only the embeddings that a batch used, the latter with one number of state for each; "
        "the others are those of Keras",
    )
    learning_rate: float = Field(1e-2, gt=0, description="step size, at its highest")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="how the learning rate falls until the end of train.epochs")
    warmup_fraction: Fraction = Field(0.0, description="fraction of the steps of train.epochs in which the learning rate rises first")
    final_fraction: Fraction = Field(0.0, description="the learning rate that a schedule ends with, as a fraction of learning_rate")
    clip_norm: float | None = Field(None, gt=0, description="gradients are scaled down to this norm, over all weights and replicas; null: never")
    weight_decay: float | None = Field(
        None, ge=0, description="decay of kernels a step, times the learning rate (not of biases, norms and embeddings); null: 0.004 in adamw, else 0"
    )
    ema_momentum: float | None = Field(None, gt=0, lt=1, description="momentum of the moving average of the weights; null: no average")


class TrainConfig(Section):
    """The training run."""

    run_dir: Path_ = Field(description="checkpoints, logs and reports; default: out/NAME/run")
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker"] = Field(
        "auto",
        description="auto: multi_worker where TF_CONFIG, Slurm or Vertex AI name several workers, else mirrored where there are several GPUs, "
        "else one device",
    )
    replicas: int | None = Field(None, ge=1, description="replicas of `mirrored`; null: one a GPU; without GPUs they are logical CPUs")
    worker_timeout_seconds: int = Field(600, ge=1, description="how long workers wait for each other at the start")
    shard_by: Literal["auto", "file", "example"] = Field(
        "auto",
        description="what workers share out: whole shards, or the documents of each step, whose order is then the same with any number of workers; "
        "auto: shards, if no worker gets 5% more documents than the mean",
    )
    on_corrupt: Literal["error", "skip"] = Field(
        "error", description="a corrupt record in the train split stops the run, or what follows it in its shard is skipped and counted"
    )
    batch_size: int = Field(256, ge=1, description="documents a step, over all replicas")
    epochs: int = Field(10, ge=1, description="most epochs to train")
    patience: int | None = Field(2, ge=1, description="stop after this many epochs without a better validation micro-F1; null: never")
    steps_per_call: int = Field(16, ge=1, description="training steps in one call of the compiled function")
    shuffle_buffer: int = Field(10_000, ge=1, description="documents in the shuffle buffer; shards are shuffled as well")
    checkpoint_steps: int | None = Field(None, ge=1, description="also save a checkpoint every so many steps; null: each epoch's end only")
    keep_checkpoints: int = Field(2, ge=1, description="the newest checkpoints kept; the best is kept besides")
    seed: int = Field(0, ge=0, description="seed of weights, shuffling and dropout")
    deterministic: bool = Field(False, description="only operations that give the same bits in every run of the same seed, on GPUs too; slower")

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
    duplicates: DuplicatesConfig = DuplicatesConfig()
    labels: LabelsConfig = LabelsConfig()
    splits: SplitsConfig = Field(HashSplits(), discriminator="method")
    output: OutputConfig
    model: ModelConfig = BowConfig()
    loss: LossConfig = WeightedBceConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig

    @pydantic.model_validator(mode="after")
    def _splits_find_their_field(self):
        field = {"column": "split_field", "time": "time_field"}.get(self.splits.method)
        if field and isinstance(self.data, _Rows) and getattr(self.data, field) is None:
            raise ValueError(f"expected data.{field}, which `splits.method: {self.splits.method}` reads")
        return self

    def dataset_config(self) -> dict[str, Any]:
        """The part that decides the dataset's bytes, as plain JSON values: all but where it is written."""
        sections = self.model_dump(mode="json", include={"name", "data", "text", "vocabulary", "duplicates", "labels", "splits", "output"})
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
# The kind of a section that is there without saying which.
_DEFAULT_KINDS = {"model": {"name": "bow"}, "loss": {"name": "weighted_bce"}, "splits": {"method": "hash"}}


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
    for section, kind in _DEFAULT_KINDS.items():
        if isinstance(raw.get(section), dict):
            raw[section] = kind | raw[section]
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


def parse_time(text: str) -> datetime:
    """A time in ISO 8601; without an offset it is UTC. Raises ValueError where it is none."""
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 knows no Z
    return time if time.tzinfo else time.replace(tzinfo=timezone(timedelta(0)))


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
