"""The names of labels that are given as ids or positions: from the config, a file or a schema."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError, shown
from beam_jobs.contract.first_bytes import hint_of
from beam_jobs.contract.sections.data import RowData
from beam_jobs.contract.validation import canonical_label
from beam_jobs.sources.invalid_row import is_line

_HUGGING_FACE = b"huggingface"  # the key of a schema where its library `datasets` writes features
_BY_NAMES = ("ids", "multi_hot")


def resolve(data: RowData) -> RowData:
    """The section with the names in it: it depends on no file.

    Raises:
      UserError: names cannot be read, are no names of labels, or are there without need.
    """
    names = data.label_names
    if names is None:
        if data.label_format == "multi_hot" and not data.label_columns:
            raise UserError(
                "data.label_names: received null, expected the names of the positions, which "
                "label_format multi_hot needs: a list, or a file with one label per line"
            )
        return data
    if data.label_format not in _BY_NAMES:
        raise UserError(
            f"data.label_names: received with label_format {data.label_format or 'null'}, expected "
            f"{' or '.join(_BY_NAMES)} with it; or leave it out"
        )
    names = _read(names) if isinstance(names, str) else names
    _check(names)
    return data.model_copy(update={"label_names": tuple(names)})


def _read(path: str) -> list[str]:
    """A line a name. A blank line would move those after it to other ids, so it is an error."""
    try:
        content = places.read_text(path, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"data.label_names: cannot read {path!r}: {error}{hint_of(path)}; expected a list, or "
            "a UTF-8 file with one label per line"
        ) from None
    return [canonical_label(line) for line in content.removesuffix("\n").split("\n")]


def _check(names: Sequence[str]) -> None:
    if wrong := [i for i, name in enumerate(names) if not name or not is_line(name)]:
        raise UserError(
            f"data.label_names: received {shown(names[wrong[0]])} for the id {wrong[0]:,}, "
            "expected names without control characters and no empty one"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise UserError(
            f"data.label_names: received {shown(twice)} twice, expected a name for each id"
        )


def of_schema(metadata: Mapping[bytes, bytes] | None, path: str) -> tuple[str, ...] | None:
    """The names that a schema of Arrow or Parquet has for the ids at a path, as Hugging Face's
    ClassLabel writes them; None if it has none.
    """
    try:
        feature = json.loads((metadata or {})[_HUGGING_FACE])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return None
    names = _class_names(feature, path)
    return None if names is None else tuple(map(canonical_label, names))


def _class_names(feature: Any, path: str | None) -> list[str] | None:
    """Those of a feature at a path; None as path: the feature itself."""
    while isinstance(feature, list) or _is_sequence(feature):
        if isinstance(feature, list):
            feature = feature[0] if feature else None
        else:
            feature = feature["feature"]
    if not isinstance(feature, dict):
        return None
    if path is None:
        names = feature.get("names")
        is_class = feature.get("_type") == "ClassLabel" and isinstance(names, list)
        return names if is_class and all(isinstance(name, str) for name in names) else None
    if path in feature:
        return _class_names(feature[path], None)
    first, _, rest = path.partition(".")
    return _class_names(feature[first], rest) if rest and first in feature else None


def _is_sequence(feature: Any) -> bool:
    """Whether it is a list's; a column of the name `feature` has no type itself."""
    return (
        isinstance(feature, dict) and "feature" in feature and isinstance(feature.get("_type"), str)
    )
