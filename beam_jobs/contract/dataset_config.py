"""The sections of the config that the Beam job reads: they decide the dataset's bytes."""

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Annotated, Literal, get_args

import pydantic
from pydantic import Field

from beam_jobs.contract.records import TEXT_FIELDS, RecordSpec
from beam_jobs.contract.validation import Fraction, LabelName, Path_, Place, Section

# --- data: where documents come from ---------------------------------------------------


def _check_encoding(encoding: str) -> None:
    try:
        "a".encode(
            encoding
        )  # also refuses codecs of bytes, such as hex, which codecs.lookup() knows
    except LookupError:
        raise ValueError(
            f"expected an encoding that Python knows, such as utf-8 or latin-1, not {encoding!r}"
        ) from None


class _Source(Section):
    max_reject_fraction: Fraction = Field(
        0.01,
        description=(
            "stop, with the most frequent reasons, when more than this fraction of the documents "
            "read is rejected"
        ),
    )

    @property
    def record_spec(self) -> RecordSpec:
        """What the records of the documents hold."""
        return RecordSpec()


class _Files(_Source):
    inputs: tuple[Path_, ...] = Field(
        min_length=1,
        description="files or glob patterns; relative paths start at the working directory",
    )
    max_row_bytes: int = Field(
        16 << 20,
        ge=1,
        description=(
            "a longer row, or file of a directory, is a reject: this bounds the memory that one "
            "document takes"
        ),
    )


def _check_separate(text_fields: tuple[str, ...]) -> None:
    if len(set(text_fields)) < len(text_fields):
        raise ValueError(f"expected different text_fields, not {list(text_fields)}")
    if odd := [name for name in text_fields if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)]:
        raise ValueError(
            "text_fields that are not joined name inputs of the model: expected letters, digits "
            f"and _, not {odd[0]!r}"
        )


class _Fields(_Source):
    text_fields: tuple[str, ...] = Field(
        TEXT_FIELDS, min_length=1, description="the fields with text"
    )
    join_text_fields: bool = Field(
        True,
        description=(
            "join several text fields with blank lines to one text; false: keep them separate, "
            "each with its own part of the model"
        ),
    )
    metadata_fields: tuple[str, ...] = Field(
        (), description="fields kept beside the text as strings; null and missing are empty"
    )

    @property
    def record_spec(self) -> RecordSpec:
        return RecordSpec(
            TEXT_FIELDS if self.join_text_fields else self.text_fields, self.metadata_fields
        )

    def texts(self, of_fields: Sequence[str]) -> tuple[str, ...]:
        """The texts of `text_fields` -> those of a record."""
        return ("\n\n".join(of_fields),) if self.join_text_fields else tuple(of_fields)

    @pydantic.model_validator(mode="after")
    def _are_separate(self):
        if not self.join_text_fields:
            _check_separate(self.text_fields)
        return self


class RowData(_Files, _Fields):
    """Rows of named fields."""

    id_field: str | None = Field(
        None,
        description=(
            "the field with the document's id, which need not be unique; null: the file's name "
            "and the row"
        ),
    )
    labels_field: str | None = Field(
        "labels",
        description=(
            "the field with the labels, or its path, such as `meta.tags`, or `labels.name` for a "
            "list of objects; null: the documents have none"
        ),
    )
    label_format: None | Literal["names", "written_list", "ids", "multi_hot", "scores"] = Field(
        None,
        description=(
            "what labels_field holds: names: a list of strings, joined ones where label_delimiter "
            "is set, in CSV one; written_list: a string with a list, as JSON or as Python prints "
            "it; ids: integers from 0; multi_hot: 0 or 1 by position; scores: an object of labels "
            "and scores; null: names, of which none may look like a written list"
        ),
    )
    label_delimiter: str | None = Field(
        None,
        min_length=1,
        description="the string between the labels where labels_field holds one string",
    )
    label_score_field: str | None = Field(
        None,
        description=(
            "the field with the score of each label that labels_field lists, or its path, such as "
            "`labels.score` beside `labels.name`: a document has those labels whose score is at "
            "least label_threshold; null: all that are listed"
        ),
    )
    label_names: None | Annotated[tuple[LabelName, ...], Field(min_length=1)] | Path_ = Field(
        None,
        description=(
            "the names of ids and of positions, from 0: a list, or a file with one per line; null: "
            "those of Hugging Face's ClassLabel in Parquet's or Arrow's schema, else ids are names"
        ),
    )
    missing_labels: Literal["reject_absent", "reject", "none"] = Field(
        "reject_absent",
        description=(
            "reject_absent: a row without labels_field is a reject, and null, or nothing in CSV, "
            "means no labels; reject: these are rejects too; none: all of them mean no labels"
        ),
    )
    label_columns: tuple[str, ...] = Field(
        (),
        description=(
            "fields that each say whether the document has the label of their name, as 0 or 1, "
            "true or false, or a score; instead of labels_field. `topic_*` takes all fields of "
            "such names that no other key names, `*` all others"
        ),
    )
    label_threshold: float = Field(
        0.5,
        gt=0,
        description=(
            "a document has a label of label_columns, label_score_field, multi_hot or scores if "
            "its value is at least this"
        ),
    )
    weight_field: str | None = Field(
        None,
        description=(
            "the field with the document's weight in the loss, a number of 0 or more; null: 1"
        ),
    )
    split_field: str | None = Field(
        None,
        description="the field that says which split the document is in, for splits.method column",
    )
    time_field: str | None = Field(
        None,
        description="the field with the document's time, for splits.method time and time_fractions",
    )
    time_format: Literal["iso", "seconds", "milliseconds", "microseconds"] = Field(
        "iso",
        description=(
            "how time_field says it: in ISO 8601, such as 2024-01-31T12:00:00Z, or as a number of "
            "seconds, milliseconds or microseconds since 1970"
        ),
    )

    @pydantic.model_validator(mode="after")
    def _scores_belong_to_names(self):
        if self.label_score_field is None or self.label_columns:
            return self
        of_names = self.label_format in (None, "names", "written_list")
        if self.labels_field is None or not of_names or self.label_delimiter is not None:
            raise ValueError(
                "label_score_field: expected lists of names in labels_field beside it, with "
                "label_format null, names or written_list, and no label_delimiter"
            )
        return self


class JsonlData(RowData):
    """One JSON object per line, or one array of objects."""

    source: Literal["jsonl"] = Field(description="the kind of source")


class CsvData(RowData):
    """CSV, TSV and the like; without label_format and label_delimiter, a field holds one label."""

    source: Literal["csv"] = Field(description="the kind of source")
    columns: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="names of the columns of files without a header; null: the first row has them",
    )
    delimiter: str = Field(
        ",", min_length=1, max_length=1, description='between the fields of a row; a tab is "\\t"'
    )
    quote_character: str | None = Field(
        default_factory=lambda data: None if data.get("delimiter") == "\t" else '"',
        min_length=1,
        max_length=1,
        description=(
            "around fields that hold delimiters or line breaks; null: no quoting, which is the "
            "default where the delimiter is a tab"
        ),
    )
    double_quote: bool = Field(
        True,
        description=(
            "within quotes, a quote character is written twice; false: after escape_character"
        ),
    )
    escape_character: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="the character after it loses its special meaning; null: none",
    )
    encoding: str = Field(
        "utf-8", description="how characters are encoded, by Python's name, such as latin-1"
    )

    @pydantic.model_validator(mode="after")
    def _consistent(self):
        _check_encoding(self.encoding)
        marks = [
            mark
            for mark in (self.delimiter, self.quote_character, self.escape_character)
            if mark is not None
        ]
        if len(set(marks)) < len(marks) or set(marks) & {"\n", "\r", "\0"}:
            raise ValueError(
                "expected different characters, no line breaks, as delimiter, quote_character "
                f"and escape_character, not {marks}"
            )
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError(f"expected columns with different names, not {list(self.columns)}")
        return self


class LinesData(_Files, _Fields):
    """A document a line, without labels: for bulk prediction alone, so no config names it."""

    source: Literal["lines"] = Field("lines", description="the kind of source")


class ParquetData(RowData):
    """Parquet; only the columns named here are read."""

    source: Literal["parquet"] = Field(description="the kind of source")


class ArrowData(RowData):
    """Hugging Face datasets as `save_to_disk` writes them, and Arrow IPC files and streams."""

    source: Literal["arrow"] = Field(description="the kind of source")


class FasttextData(_Files):
    """A document a line, with its labels among its words, as fastText has it: `__label__x text`."""

    source: Literal["fasttext"] = Field(description="the kind of source")
    label_prefix: str = Field(
        "__label__", pattern=r"^\S+$", description="what the words begin with that are labels"
    )


class DirectoriesData(_Files):
    """One document per file, labelled with the name of its directory; also within tar and zip
    archives.
    """

    source: Literal["directories"] = Field(description="the kind of source")
    encoding: str | None = Field(
        None,
        description=(
            "how characters are encoded, by Python's name; null: UTF-8, or what is detected where "
            "a file is not"
        ),
    )
    remove: tuple[Literal["headers", "footers", "quotes"], ...] = Field(
        (),
        description="parts of posts to leave out, as scikit-learn's fetch_20newsgroups does",
    )

    @pydantic.model_validator(mode="after")
    def _known_encoding(self):
        if self.encoding is not None:
            _check_encoding(self.encoding)
        return self


class StackExchangeData(_Files, _Fields):
    """The questions in Stack Exchange's `Posts.xml`, labelled with their tags."""

    source: Literal["stack_exchange"] = Field(description="the kind of source")
    text_fields: tuple[Literal["title", "body"], ...] = Field(
        ("title", "body"), min_length=1, description="parts of the text"
    )
    metadata_fields: tuple[str, ...] = Field(
        (),
        description=(
            "attributes of the post kept beside the text, such as Score; missing ones are empty"
        ),
    )


class CustomData(_Source):
    """A source of your own: a class like multihot.Reader, or a Beam transform to documents."""

    source: Literal["custom"] = Field(description="the kind of source")
    reader: str = Field(
        pattern=r"^[\w.]+:\w+$",
        description=(
            "the class or the function that makes it, as package.module:name; workers import it too"
        ),
    )
    text_fields: tuple[str, ...] = Field(
        TEXT_FIELDS,
        min_length=1,
        description="names of its documents' texts; several are kept separate",
    )
    metadata_fields: tuple[str, ...] = Field((), description="names of its documents' metadata")
    options: dict[str, str | int | float | bool | tuple[str, ...] | None] = Field(
        {}, description="keyword arguments of the class or function"
    )

    @property
    def record_spec(self) -> RecordSpec:
        return RecordSpec(self.text_fields, self.metadata_fields)

    @pydantic.field_validator("text_fields")
    @classmethod
    def _are_separate(cls, text_fields: tuple[str, ...]) -> tuple[str, ...]:
        _check_separate(text_fields)
        return text_fields


class PythonDocstringsData(_Source):
    """The docstrings of installed Python packages, read with `ast`; nothing is imported.

    A document's labels are its package, its sub-modules down to `label_depth`, and the kind of
    object (`kind:module`, `kind:class`, `kind:function`).
    """

    source: Literal["python_docstrings"] = Field(description="the kind of source")
    packages: tuple[str, ...] = Field(
        (),
        description=(
            "names of importable packages; `stdlib` is the standard library; empty: all that is "
            "installed"
        ),
    )
    min_words: int = Field(8, ge=1, description="shorter docstrings are left out")
    label_depth: int = Field(2, ge=1, description="2 gives the labels `numpy` and `numpy.linalg`")


DataConfig = Annotated[
    JsonlData
    | CsvData
    | ParquetData
    | ArrowData
    | FasttextData
    | DirectoriesData
    | StackExchangeData
    | PythonDocstringsData
    | CustomData,
    Field(discriminator="source"),
]


# --- text: the analyzer's whole specification ------------------------------------------


TokenizerName = Literal["whitespace", "unicode_script", "character"]
# What an encoder's own tokenizer takes the place of.
_STEPS_BEFORE_TOKENS = (
    "normalize",
    "case",
    "strip_accents",
    "expand_contractions",
    "keep_characters",
    "keep_symbols",
    "keep_emoji",
    "token_pattern",
    "drop_tokens_with_digits",
    "stop_words",
    "subwords",
)


class TextConfig(Section):
    """How raw text becomes tokens: the steps of the analyzer, in this order."""

    strip_html: bool = Field(
        True,
        description=(
            "remove comments, scripts, styles and HTML's own tags, and decode its character "
            "references, such as `&eacute;`"
        ),
    )
    strip_urls: bool = Field(
        True, description="remove http://, https://, ftp:// and www. addresses"
    )
    normalize: Literal["none", "lower", "nfkc", "nfkc_casefold"] = Field(
        "nfkc_casefold",
        description=(
            "Unicode normalisation; `none` and `lower` need no TensorFlow Text when serving"
        ),
    )
    case: Literal["default", "turkic"] = Field(
        "default",
        description=(
            "how normalize lowers I: to i, or, for Turkish and Azeri, to the dotless U+0131; the "
            "dotted U+0130 becomes i in either"
        ),
    )
    strip_accents: bool = Field(
        False,
        description=(
            "decompose characters and remove what combines with them (NFD without Mn), as "
            "pretrained uncased subwords have it; needs TensorFlow Text when serving"
        ),
    )
    expand_contractions: bool = Field(True, description="English contractions: don't -> do not")
    keep_characters: str | None = Field(
        r"\p{L}\p{M}\p{N}",
        min_length=1,
        description=(
            "the inside of an RE2 character class; all other characters become spaces; null: keep "
            "all"
        ),
    )
    keep_symbols: tuple[Annotated[str, Field(pattern=r"^\S+$")], ...] = Field(
        (),
        description=(
            "terms that are tokens as they are, whatever keep_characters and token_pattern say, "
            "such as `[C++, C#, .NET]`; compared after normalize"
        ),
    )
    keep_emoji: bool = Field(
        False, description="each emoji is a token, whatever keep_characters and token_pattern say"
    )
    token_pattern: str | None = Field(
        None,
        min_length=1,
        description="RE2 pattern; only its matches remain, each split at spaces again; null: off",
    )
    tokenizer: TokenizerName | Path_ = Field(
        "whitespace",
        description=(
            "how text is split into tokens; or the directory of a pretrained encoder, or its "
            "name, as hf://owner/name@revision or kaggle://owner/model/framework/variant, whose "
            "tokenizer then does all that is between strip_urls and max_tokens_per_document, and "
            "whose pieces are the vocabulary. Serving then needs TensorFlow Text"
        ),
    )
    drop_tokens_with_digits: bool = Field(
        False, description="drop every token that holds a decimal digit"
    )
    stop_words: None | tuple[str, ...] | Path_ = Field(
        None,
        description=(
            "tokens to drop: `english`, a list, or a file with one word per line; null: none"
        ),
    )
    subwords: None | Literal["train"] | tuple[str, ...] | Path_ = Field(
        None,
        description=(
            "split words into subwords: `train`: at most vocabulary.size, learned from the train "
            "split; or a list, or a file with one per line, such as BERT's vocab.txt; null: "
            "tokens are words. Serving then needs TensorFlow Text"
        ),
    )
    max_tokens_per_document: int | None = Field(
        512,
        ge=1,
        description=(
            "tokens kept per document, from its start: words first, then their subwords; null: all"
        ),
    )

    @pydantic.model_validator(mode="after")
    def _settings_fit(self):
        if self.case == "turkic" and self.normalize not in ("lower", "nfkc_casefold"):
            raise ValueError(
                "case: turkic says how case is lowered: expected normalize lower or "
                f"nfkc_casefold with it, not {self.normalize}"
            )
        if (self.keep_symbols or self.keep_emoji) and self.tokenizer != "whitespace":
            raise ValueError(
                "keep_symbols and keep_emoji keep tokens whole: expected tokenizer whitespace with "
                f"them, not {self.tokenizer}, which would split them"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _encoder_has_its_own_steps(self):
        if self.encoder_directory is not None:
            for key in _STEPS_BEFORE_TOKENS:
                if getattr(self, key) != TextConfig.model_fields[key].default:
                    raise ValueError(
                        f"expected no {key} with the tokenizer of the encoder "
                        f"{self.encoder_directory}, which does that in its own way"
                    )
        return self

    @property
    def encoder_directory(self) -> str | None:
        """The directory of the encoder whose tokenizer it is; None: it is no encoder's."""
        is_name = self.tokenizer in get_args(TokenizerName)
        return self.tokenizer if isinstance(self.tokenizer, str) and not is_name else None

    @property
    def has_own_patterns(self) -> bool:
        """Whether a pattern is the user's own, and so may be wrong."""
        return (
            bool(self.keep_symbols)
            or self.token_pattern is not None
            or self.keep_characters
            not in (
                None,
                TextConfig.model_fields["keep_characters"].default,
            )
        )


class VocabularyConfig(Section):
    """Which tokens of the train split the model knows."""

    size: int = Field(50_000, ge=1, description="the most frequent tokens kept")
    min_document_count: int | None = Field(
        None,
        ge=1,
        description=(
            "tokens and n-grams in fewer train documents are left out; null: 1 for tokens, 2 for "
            "n-grams"
        ),
    )
    ngrams: int = Field(
        1,
        ge=1,
        le=3,
        description=(
            "2: also pairs of neighbouring tokens, which bow and mlp then use; 3: also triples; "
            "1: none"
        ),
    )
    max_ngrams: int = Field(100_000, ge=1, description="the most frequent pairs and triples kept")

    @property
    def min_documents_of_token(self) -> int:
        return 1 if self.min_document_count is None else self.min_document_count

    @property
    def min_documents_of_ngram(self) -> int:
        """Also the occurrences of a subword that is learned."""
        return 2 if self.min_document_count is None else self.min_document_count


# --- labels, splits, output ------------------------------------------------------------


class DuplicatesConfig(Section):
    """Near-duplicates: documents that share most of their shingles, found by MinHash.

    Documents with equal analyzed text are always merged.
    """

    near: Literal["ignore", "report", "drop"] = Field(
        "ignore",
        description="report: count those that are in several splits, in statistics.json; drop: "
        "keep one of each, of the last split; the labels of the others are dropped with them",
    )
    similarity: float = Field(
        0.8,
        ge=0.5,
        le=1,
        description="minimum Jaccard similarity of the sets of shingles of two near-duplicates",
    )
    shingle_tokens: int = Field(3, ge=1, le=16, description="consecutive tokens in a shingle")


class LabelsConfig(Section):
    """Which labels are kept: names are cleaned, then counted after duplicates are merged."""

    fold_case: bool = Field(
        False,
        description=(
            "fold the case of labels: `Python` and `python` are one; the names below are folded too"
        ),
    )
    aliases: dict[LabelName, LabelName] = Field(
        {},
        description="other names of a label, such as `math-ph: math.MP`; applied after fold_case",
    )
    deny: tuple[LabelName, ...] = Field((), description="labels to leave out")
    allow: None | Annotated[tuple[LabelName, ...], Field(min_length=1)] | Path_ = Field(
        None,
        description="the only labels to keep: a list, or a file with one label per line; null: all",
    )
    min_count: int = Field(1, ge=1, description="labels on fewer documents are left out")
    top_k: int | None = Field(
        None, ge=1, description="keep only the K most frequent labels; null: no limit"
    )
    keep_unlabeled: bool = Field(
        True, description="keep documents that have none of the kept labels"
    )

    @pydantic.model_validator(mode="after")
    def _aliases_are_not_chained(self):
        fold = str.casefold if self.fold_case else str
        aliases = {fold(name): fold(target) for name, target in self.aliases.items()}
        chained = sorted(
            target for name, target in aliases.items() if aliases.get(target, target) != target
        )
        if chained:
            raise ValueError(
                f"expected aliases of labels that are not aliases themselves, unlike {chained[0]!r}"
            )
        return self


class _Fractions(Section):
    train: Fraction = Field(0.8, description="what the model learns from")
    validation: Fraction = Field(
        0.1, description="decides thresholds, the best checkpoint and early stopping"
    )
    test: Fraction = Field(0.1, description="only reported on")

    @pydantic.model_validator(mode="after")
    def _sum_to_one(self):
        if (
            not math.isclose(self.train + self.validation + self.test, 1.0, abs_tol=1e-9)
            or self.train == 0
        ):
            raise ValueError(
                f"expected a sum of 1 with train above 0, not {self.train} + {self.validation} + "
                f"{self.test}"
            )
        return self


class HashSplits(_Fractions):
    """A fraction of the documents in each split, decided by a hash of the analyzed text."""

    method: Literal["hash"] = Field("hash", description="how documents are split")


class StratifiedSplits(_Fractions):
    """A fraction of the documents of every label in each split, rare labels first."""

    method: Literal["stratified"] = Field(description="how documents are split")


class ColumnSplits(Section):
    """The split that the source names; duplicates go to the last one: test, validation, train."""

    method: Literal["column"] = Field(description="how documents are split")
    train: tuple[str, ...] = Field(
        ("train",), min_length=1, description="what the source calls the train split"
    )
    validation: tuple[str, ...] = Field(
        ("validation", "valid", "val", "dev"),
        description="what the source calls the validation split",
    )
    test: tuple[str, ...] = Field(("test",), description="what the source calls the test split")


class FileSplits(Section):
    """The split of the document's file; duplicates go to the last one: test, validation, train."""

    method: Literal["files"] = Field(description="how documents are split")
    validation: tuple[str, ...] = Field(
        (),
        description=(
            "names or glob patterns of the files of the validation split, such as `dev.jsonl` or "
            "`*dev*`; each must match one"
        ),
    )
    test: tuple[str, ...] = Field(
        (),
        description=(
            "names or glob patterns of the files of the test split; all other files are train"
        ),
    )


class TimeSplits(Section):
    """Older documents train, newer ones validate and test; of duplicates, the newest counts."""

    method: Literal["time"] = Field(description="how documents are split")
    validation_from: str = Field(
        description=(
            "ISO 8601 time, such as 2024-01-01, of the first documents that are not train; UTC"
        )
    )
    test_from: str = Field(description="ISO 8601 time of the first documents of the test split")

    @pydantic.model_validator(mode="after")
    def _times_in_order(self):
        try:
            first, second = parse_time(self.validation_from), parse_time(self.test_from)
        except ValueError as error:
            raise ValueError(f"expected times in ISO 8601, such as 2024-01-31: {error}") from None
        if first > second:
            raise ValueError(
                f"expected validation_from before test_from, not {self.validation_from} and "
                f"{self.test_from}"
            )
        return self


class TimeFractionSplits(_Fractions):
    """A fraction of the documents in each split: the oldest train, the newest test.

    Of duplicates, the newest counts.
    """

    method: Literal["time_fractions"] = Field(description="how documents are split")


SplitsConfig = (
    HashSplits | StratifiedSplits | ColumnSplits | FileSplits | TimeSplits | TimeFractionSplits
)


class OutputConfig(Section):
    """Where the dataset is written, and in what shards."""

    dataset_dir: Place = Field(
        description=(
            "the place of the dataset: a directory, or one of gs://, s3:// or hdfs://; default: "
            "out/NAME/dataset"
        )
    )
    shards: int | None = Field(
        None, ge=1, le=99_999, description="shards per split; null: as many as shard_bytes needs"
    )
    shard_bytes: int = Field(
        128 << 20,
        ge=1 << 10,
        description="target size of a shard in bytes (default 128 MiB), where shards is null",
    )
    compression: Literal["none", "gzip"] = Field(
        "none", description="compression of the shards; TensorFlow Datasets reads only `none`"
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone(timedelta(0)))


def iso_of_epoch(text: str, unit: str) -> str | None:
    """A number of `seconds`, `milliseconds` or `microseconds` since 1970 in ISO 8601; None: it is
    no number, or outside of the years 1 to 9999.
    """
    try:
        number = float(text) if re.search("[.eE]", text) else int(text)
        return (_EPOCH + timedelta(**{unit: number})).isoformat()
    except (ValueError, OverflowError):
        return None


def parse_time(text: str) -> datetime:
    """A time in ISO 8601; without an offset it is UTC. Raises ValueError if it is not one."""
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 knows no Z
    return time if time.tzinfo else time.replace(tzinfo=timezone(timedelta(0)))
