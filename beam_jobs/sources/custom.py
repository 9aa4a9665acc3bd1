"""A user's own source, named by a dotted path."""

import importlib

from beam_jobs.contract.dataset_config import CustomData
from beam_jobs.contract.errors import UserError

_METHODS = ("files", "read")


def make(data: CustomData):
    """The reader that `data.reader` names, made with `data.options`; a reader as beam_jobs.readers.Reader describes it.

    Raises:
      UserError: the class cannot be imported or made, or lacks a method.
    """
    module, _, name = data.reader.partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"data.reader: cannot import {data.reader!r}: {error}; expected package.module:Class, on PYTHONPATH or installed") from None
    try:
        reader = kind(**data.options)
    except TypeError as error:
        raise UserError(f"data.options: received {sorted(data.options)}, which {data.reader} does not take: {error}") from None
    if missing := [method for method in _METHODS if not callable(getattr(reader, method, None))]:
        raise UserError(f"data.reader: {data.reader} has no method {missing[0]}(); expected the methods of beam_jobs.readers.Reader")
    return reader
