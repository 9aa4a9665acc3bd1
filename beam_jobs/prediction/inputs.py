"""Where the documents of a bulk prediction come from: a config, or flags."""

import os
from collections.abc import Sequence
from typing import Any, Literal

from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import (
    ArrowData,
    CsvData,
    DataConfig,
    FasttextData,
    JsonlData,
    LinesData,
    ParquetData,
    RowData,
)
from beam_jobs.contract.validation import validate

_EXTENSIONS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}

_COMPRESSIONS = {".gz", ".bz2", ".xz", ".zst", ".zip"}

Source = Literal["jsonl", "csv", "tsv", "parquet", "arrow", "fasttext", "text"]


def data_of_config(
    config: Config, inputs: Sequence[str], *, max_reject_fraction: float | None = None
) -> DataConfig:
    """An experiment's source, for documents without labels; `inputs` replace its own, if any."""
    changes: dict[str, Any] = {"inputs": tuple(inputs)} if inputs else {}
    if max_reject_fraction is not None:
        changes["max_reject_fraction"] = max_reject_fraction
    if inputs and "inputs" not in type(config.data).model_fields:
        raise UserError(
            f"--input: data.source {config.data.source!r} of the config reads no files that could "
            "be named; leave --input out"
        )
    if isinstance(config.data, RowData):
        changes |= {
            "labels_field": None,
            "label_columns": (),
            "label_delimiter": None,
            "label_score_field": None,
            "label_format": None,
            "label_names": None,
            "metadata_fields": (),
        }
        changes |= {"weight_field": None, "split_field": None, "time_field": None}
    return config.data.model_copy(update=changes)


def data_of_flags(
    inputs: Sequence[str],
    *,
    source: Source | None,
    text_fields: Sequence[str],
    id_field: str | None,
    join: bool,
    max_reject_fraction: float | None = None,
    quote_character: str | None = None,
) -> DataConfig | LinesData:
    """A source without labels, by the kind of its files.

    Args:
      inputs: files or glob patterns.
      source: what they are; None: as their names say.
      text_fields: the fields with text.
      id_field: the field with the id; None: the file's name and the row.
      join: whether several text fields are one text.
      max_reject_fraction: None: the default.
      quote_character: of CSV and TSV; empty: none; None: the default.

    Raises:
      UserError: the kind of the files does not follow from their names.
    """
    if not inputs:
        raise UserError(
            "--input: received none, expected files to score, or a --config that names them"
        )
    kind = source or _kind(inputs[0])
    if quote_character is not None and kind not in ("csv", "tsv"):
        raise UserError(f"--quote-character: received for {kind}, expected for csv or tsv only")
    fields = {"inputs": inputs, "text_fields": text_fields, "join_text_fields": join}
    if max_reject_fraction is not None:
        fields["max_reject_fraction"] = max_reject_fraction
    if kind in ("text", "fasttext"):
        if len(text_fields) > 1 or id_field:
            raise UserError(
                f"--source {kind}: received several text fields or an id field, expected neither: "
                "a line is a document"
            )
        if kind == "text":
            return validate(LinesData, fields, what="--input")
        del fields["text_fields"], fields["join_text_fields"]
        return validate(FasttextData, fields | {"source": "fasttext"}, what="--input")
    fields |= {"labels_field": None, "id_field": id_field}
    if kind == "jsonl":
        return validate(JsonlData, fields | {"source": "jsonl"}, what="--input")
    if kind == "parquet":
        return validate(ParquetData, fields | {"source": "parquet"}, what="--input")
    if kind == "arrow":
        return validate(ArrowData, fields | {"source": "arrow"}, what="--input")
    if kind == "tsv":
        fields["delimiter"] = "\t"
    if quote_character is not None:
        fields["quote_character"] = quote_character or None
    return validate(CsvData, fields | {"source": "csv"}, what="--input")


def _kind(path: str) -> str:
    stem, extension = os.path.splitext(path.lower())
    if extension in _COMPRESSIONS:
        extension = os.path.splitext(stem)[1]
    if os.path.isdir(path):
        return "arrow"  # a folder of Hugging Face's datasets
    if extension not in _EXTENSIONS:
        raise UserError(
            f"--input: {path!r} does not say what it holds; expected one of "
            f"{', '.join(_EXTENSIONS)}, or --source"
        )
    return _EXTENSIONS[extension]
