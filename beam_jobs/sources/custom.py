"""A user's own source, named by a dotted path: a reader of files, or a Beam transform."""

import dataclasses
import math
import os
import sys
from typing import Any

import apache_beam as beam

from beam_jobs.contract import user_code
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import CustomData
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.fields import MAX_WEIGHT
from beam_jobs.sources.input_files import InputFile
from beam_jobs.sources.invalid_row import InvalidRow, checked_labels

_METHODS = ("files", "read")
NO_DOCUMENT = "no document"


@dataclasses.dataclass(frozen=True)
class TransformSource:
    """A source that is a Beam transform: from the pipeline to documents and rejects, in any order.

    What it reads is not known before it runs: no files are listed, no time left can be estimated,
    and an existing dataset is recognised by its config alone.

    Attributes:
      transform: from the pipeline to documents and rejects.
      data: what the documents hold.
    """

    transform: beam.PTransform
    data: CustomData

    def files(self) -> list[InputFile]:
        return []

    def checked(self, element: Any) -> Document | Reject:
        """What the transform yielded, or a reject where it is not a document of the config."""
        if isinstance(element, Reject):
            return element
        source, row = self.data.reader, 0
        try:
            if not isinstance(element, Document):
                raise InvalidRow(
                    NO_DOCUMENT,
                    f"received {type(element).__name__}, expected multihot.Document or "
                    "multihot.Reject",
                )
            source, row = str(element.source), element.row
            return self._document(element)
        except InvalidRow as error:
            return error.reject(source, row, repr(element))

    def _document(self, document: Document) -> Document:
        spec = self.data.record_spec
        for name, expected in (
            ("texts", len(spec.text_names)),
            ("metadata", len(spec.metadata_names)),
            ("labels", None),
        ):
            received = getattr(document, name)
            if not isinstance(received, tuple) or not all(
                isinstance(value, str) for value in received
            ):
                raise InvalidRow(
                    NO_DOCUMENT, f"{name}: received {received!r:.80}, expected a tuple of strings"
                )
            if expected is not None and len(received) != expected:
                raise InvalidRow(
                    NO_DOCUMENT,
                    f"{name}: received {len(received)}, expected {expected}, as data.text_fields "
                    "and metadata_fields say",
                )
        if (
            not isinstance(document.id, str)
            or not isinstance(document.source, str)
            or not isinstance(document.row, int)
        ):
            raise InvalidRow(
                NO_DOCUMENT,
                f"received the id {document.id!r:.80} at {document.source!r:.80}, row "
                f"{document.row!r}, expected strings and an int",
            )
        if (
            not isinstance(document.weight, int | float)
            or not math.isfinite(document.weight)
            or not 0 <= document.weight <= MAX_WEIGHT
        ):
            raise InvalidRow(
                NO_DOCUMENT,
                f"weight: received {document.weight!r:.80}, expected a number of 0 or more",
            )
        return dataclasses.replace(
            document,
            labels=checked_labels(document.labels, "labels", document.labels),
        )


def make(data: CustomData):
    """What `data.reader` names, called with `data.options`: a multihot.Reader or a TransformSource.

    Raises:
      UserError: it cannot be imported or made, or is neither.
    """
    kind = user_code.load(data.reader, key="data.reader")
    _let_worker_processes_find(data.reader.partition(":")[0])
    try:
        source = kind(**data.options)
    except TypeError as error:
        raise UserError(
            f"data.options: received {sorted(data.options)}, which {data.reader} does not take: "
            f"{error}"
        ) from None
    if isinstance(source, beam.PTransform):
        return TransformSource(source, data)
    if missing := [method for method in _METHODS if not callable(getattr(source, method, None))]:
        raise UserError(
            f"data.reader: {data.reader} has no method {missing[0]}() and is not an "
            "apache_beam.PTransform; expected one of them, see multihot.Reader"
        )
    return source


def _let_worker_processes_find(module: str) -> None:
    """Has worker processes of this machine search for modules where this one is."""
    top = sys.modules[module.partition(".")[0]]
    for file in filter(None, [getattr(top, "__file__", None), *getattr(top, "__path__", [])]):
        folder = os.path.dirname(
            os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file
        )
        known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if folder not in known:
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*known, folder]))
