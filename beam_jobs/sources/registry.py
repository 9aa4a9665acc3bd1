"""The reader of each source. It lists its files and reads one at a time; Beam reads in parallel."""

from collections.abc import Iterator
from typing import Protocol

from beam_jobs.contract.sections.data import CustomData, DataConfig, LinesData, RowData
from beam_jobs.sources import custom, label_names
from beam_jobs.sources.arrow import ArrowReader
from beam_jobs.sources.delimited import CsvReader
from beam_jobs.sources.directories import DirectoriesReader
from beam_jobs.sources.docstrings import DocstringsReader
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.input_files import InputFile, input_hash, parts
from beam_jobs.sources.jsonl import JsonlReader
from beam_jobs.sources.lines import FasttextReader, LinesReader
from beam_jobs.sources.parquet import ParquetReader
from beam_jobs.sources.stack_exchange import StackExchangeReader

__all__ = ["Reader", "input_hash", "make_reader", "parts"]

_READERS = {
    "jsonl": JsonlReader,
    "csv": CsvReader,
    "fasttext": FasttextReader,
    "lines": LinesReader,
    "parquet": ParquetReader,
    "arrow": ArrowReader,
    "directories": DirectoriesReader,
    "stack_exchange": StackExchangeReader,
    "python_docstrings": DocstringsReader,
}


class Reader(Protocol):
    """A source. It is pickled to the workers, so it holds nothing but its config."""

    def files(self) -> list[InputFile]:
        """The input files.

        Raises:
          UserError: there are none, or they cannot hold what the config names.
        """

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        """Everything in one file, or in its range, in its order. Nothing is dropped silently."""


def make_reader(data: DataConfig | LinesData) -> Reader | custom.TransformSource:
    """The source of a config's `data` section; it depends on no other file than its inputs.

    Raises:
      UserError: a file that the section names cannot be read, or the section makes no source.
    """
    if isinstance(data, RowData):
        data = label_names.resolve(data)
    return custom.make(data) if isinstance(data, CustomData) else _READERS[data.source](data)
