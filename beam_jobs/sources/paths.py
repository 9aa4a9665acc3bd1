"""Fields within fields: `doc.body` is the field `body` of the object `doc`.

A field whose own name is the whole path comes first. Through a list of objects a path gives a list:
`labels.name` of `[{"name": "a"}, {"name": "b"}]` is `["a", "b"]`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

_MAX_DEPTH = 16  # of the nested fields that errors list
MISSING = object()  # what `find` returns where there is no such field


def find(values: Any, path: str) -> Any:
    """The value at a path, or MISSING; null where something before its end is null."""
    if isinstance(values, list):
        found = [find(item, path) for item in values]
        return [None if item is MISSING else item for item in found]
    if not isinstance(values, Mapping):
        return None if values is None else MISSING
    if path in values:
        return values[path]
    for name, rest in _partitions(path):
        if name in values:
            value = find(values[name], rest)
            if value is not MISSING:
                return value
    return MISSING


def _partitions(path: str) -> Iterator[tuple[str, str]]:
    """`a.b.c` -> (`a.b`, `c`), (`a`, `b.c`): a field and the path within it, the longest first."""
    end = path.rfind(".")
    while end >= 0:
        yield path[:end], path[end + 1 :]
        end = path.rfind(".", 0, end)


def with_paths(values: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """A row that has each of the paths that lead to something as a field of its own too."""
    found = {path: find(values, path) for path in paths}
    return {path: value for path, value in found.items() if value is not MISSING} | dict(values)


def nested_names(values: Any, depth: int = 0) -> Iterator[str]:
    """The paths of the fields within a row's fields."""
    if depth == _MAX_DEPTH or not isinstance(values, Mapping):
        return
    for name, value in values.items():
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, Mapping):
            for path in (*map(str, inner), *nested_names(inner, depth + 1)):
                yield f"{name}.{path}"


def nested_names_of_type(fields: Iterable[pa.Field]) -> Iterator[str]:
    """The paths of the fields within the fields of a schema or a struct."""
    for field in fields:
        kind = field.type
        while is_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            inner = [kind.field(i) for i in range(kind.num_fields)]
            for path in (*(one.name for one in inner), *nested_names_of_type(inner)):
                yield f"{field.name}.{path}"


def type_of(kind: pa.Schema | pa.DataType, path: str) -> pa.DataType | None:
    """The type at a path; None where there is no such field."""
    if isinstance(kind, pa.DataType):
        if is_list(kind):
            inner = type_of(kind.value_type, path)
            return None if inner is None else pa.list_(inner)
        if not pa.types.is_struct(kind):
            return None
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    else:
        fields = {field.name: field.type for field in kind}
    if path in fields:
        return fields[path]
    for name, rest in _partitions(path):
        if name in fields:
            inner = type_of(fields[name], rest)
            if inner is not None:
                return inner
    return None


def top_name(names: Iterable[str], path: str) -> str:
    """Of a row's fields, the one that holds what a path leads to; the path itself if none does."""
    names = set(names)
    candidates = (path, *(name for name, _ in _partitions(path)))
    return next((name for name in candidates if name in names), path)


def prefixes(path: str) -> list[str]:
    """`a.b.c` -> `a.b`, `a`, `a.b.c`: the fields that may hold what the path leads to."""
    return [*(name for name, _ in _partitions(path)), path]


def is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )
