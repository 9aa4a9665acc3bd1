"""The section `data`: where documents come from, and how a source says what they are."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from beam_jobs.contract.records import TEXT_FIELDS, RecordSpec
from beam_jobs.contract.validation import Fraction, LabelName, Path_, Section


def _check_encoding(encoding: str) -> None:
    try:
        # This also refuses codecs of bytes, such as hex, which codecs.lookup() knows.
        "a".encode(encoding)
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
