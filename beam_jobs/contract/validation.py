"""Strict validation of plain values: errors name the key, what was received and expected."""

import dataclasses
import difflib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic import Field

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError, shown

_UNIONS = (Union, type(int | str))

Fraction = Annotated[float, Field(ge=0, le=1)]
Path_ = Annotated[str, Field(min_length=1)]
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_directory(path: str) -> str:
    """A directory's path; raises ValueError if it names another file system, such as gs://.

    The system would take it for a local folder named `gs:`, which nobody looks for.
    """
    if _SCHEME.match(path):
        raise ValueError("expected a directory of a mounted file system; write there, then copy it")
    return path


Directory = Annotated[Path_, pydantic.AfterValidator(local_directory)]
Place = Annotated[Path_, pydantic.AfterValidator(places.check)]


def canonical_label(name: str) -> str:
    """A label's name as it is compared and kept: NFC, so that no two labels look alike."""
    name = name.strip()
    return name if name.isascii() else unicodedata.normalize("NFC", name)


LabelName = Annotated[str, Field(min_length=1), pydantic.AfterValidator(canonical_label)]


class Section(pydantic.BaseModel):
    """A config section: unknown keys are refused, types are not coerced, instances are frozen."""

    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False
    )


class SectionWithOptions(Section):
    """A section whose other keys are options, which somebody else's code receives."""

    model_config = pydantic.ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are not declared."""
        return dict(self.model_extra or {})


def validate(model: type[pydantic.BaseModel], raw: Any, *, what: str):
    """Validates plain values as `model`, with the keys' full names in the error.

    Raises:
      UserError: one line for each wrong key: what was received and what was expected.
    """
    try:
        text = json.dumps(raw, default=str, ensure_ascii=False).encode()
    except (
        TypeError,
        ValueError,
        RecursionError,
    ) as error:  # a list as a key, a value that holds itself, half a surrogate pair
        raise UserError(
            f"{what}: received values that JSON cannot hold ({error}); expected text, numbers, "
            "lists and mappings of them"
        ) from None
    try:
        # Strict JSON mode takes a list for a tuple, which strict Python mode refuses.
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        lines = _explain_all(error.errors(), model)
        raise UserError(f"{what}: {error_lines(lines)}") from None


def error_lines(lines: Sequence[str]) -> str:
    """One error as it is; of several their number, then a line for each."""
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} errors", *lines])


@dataclasses.dataclass(frozen=True)
class KeyDescription:
    """A config key: its name, its type as a person would say it, `required` or its default as
    JSON, and its meaning."""

    name: str
    type: str
    default: str
    meaning: str

    def __str__(self) -> str:
        default = self.default if self.default == "required" else f"default {self.default}"
        meaning = f" -- {self.meaning}" if self.meaning else ""
        return f"{self.name}: {self.type}, {default}{meaning}"


@dataclasses.dataclass(frozen=True)
class SectionDescription:
    """One kind of a config section: its purpose in a line, and its keys."""

    name: str
    purpose: str
    keys: tuple[KeyDescription, ...]


def sections_of(
    model: type[pydantic.BaseModel],
) -> list[SectionDescription | KeyDescription]:
    """The sections of a config, one entry a kind, and the keys outside of sections, in order."""
    entries: list[SectionDescription | KeyDescription] = []
    for name, field in model.model_fields.items():
        variants = variants_of(field.annotation)
        if not variants:
            entries.append(_describe_field(name, field))
        for variant in variants:
            purpose = (variant.__doc__ or "").strip().splitlines()[0]
            keys = tuple(_describe_field(k, value) for k, value in variant.model_fields.items())
            entries.append(SectionDescription(name, purpose, keys))
    return entries


def describe_keys(model: type[pydantic.BaseModel]) -> str:
    """Every key of a config with its type, default and meaning, a line each."""
    lines = []
    for entry in sections_of(model):
        if isinstance(entry, KeyDescription):
            lines.append(str(entry))
        else:
            lines.append(f"\n{entry.name}:  # {entry.purpose}")
            lines += [f"  {key}" for key in entry.keys]
    return "\n".join(lines)


def variants_of(annotation: Any) -> list[type[Section]]:
    """The sections that a key's annotation allows: its kinds, or the one that it is."""
    if hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    return [variant for variant in _variants(annotation) if _is_section(variant)]


def _variants(annotation: Any) -> list[Any]:
    if get_origin(annotation) in _UNIONS:
        return list(get_args(annotation))
    return [annotation] if isinstance(annotation, type) else []


def _is_section(annotation: Any) -> bool:
    # In Python 3.10, isinstance(tuple[str, ...], type) is true and issubclass of it raises.
    return (
        get_origin(annotation) is None
        and isinstance(annotation, type)
        and issubclass(annotation, Section)
    )


def _explain_all(
    problems: Sequence[Mapping[str, Any]], model: type[pydantic.BaseModel]
) -> list[str]:
    """A line a key: what pydantic says of each member of a union is joined by `or`."""
    lines: list[str] = []
    for problem in problems:
        if problem["type"] == "too_short" and len(problem["input"]) >= problem["ctx"]["min_length"]:
            continue  # it is too short only without its wrong items, which have errors of their own
        if problem["type"] == "default_factory_not_called":
            continue  # the key that the default follows from is wrong, and has an error of its own
        line = _explain(problem, model)
        start, separator, rest = line.partition("; expected ")
        if separator and lines and lines[-1].startswith(start + separator):
            lines[-1] += f" or {rest}"
        else:
            lines.append(line)
    return lines


def _explain(problem: Mapping[str, Any], model: type[pydantic.BaseModel]) -> str:
    path, parent = _locate(problem["loc"], model)
    received = f"received {_with_type(problem['input'])}"
    kind, message = problem["type"], problem["msg"]
    if kind == "extra_forbidden":
        valid = sorted(parent.model_fields) if parent else []
        near = difflib.get_close_matches(str(path[-1]), valid, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{'.'.join(path)}: unknown key; {hint}valid keys here: {', '.join(valid)}"
    if kind == "missing":
        return f"{'.'.join(path)}: missing; expected a value"
    if kind == "union_tag_not_found":
        tags = _tags(model, path)
        path.append(problem["ctx"]["discriminator"].strip("'"))
        return f"{'.'.join(path)}: missing; expected one of {tags}"
    if kind == "union_tag_invalid":
        path.append(problem["ctx"]["discriminator"].strip("'"))
        context = problem["ctx"]
        return (
            f"{'.'.join(path)}: received {context['tag']!r}, expected one of "
            f"{context['expected_tags']}"
        )
    message = re.sub(
        r"^\w+ should (?:be|have) ", "expected ", message.removeprefix("Value error, ")
    )
    message = re.sub(r"^\w+ should ", "expected to ", message).partition(" after validation")[0]
    message = message.replace("expected a valid array", "expected a list").replace(
        "expected an object", "expected a mapping"
    )
    return f"{'.'.join(path) or 'value'}: {received}; {message}"


def _tags(model: type[pydantic.BaseModel], path: Sequence[str]) -> str:
    field = model.model_fields[path[0]]
    return ", ".join(
        repr(get_args(v.model_fields[field.discriminator].annotation)[0])
        for v in _variants(field.annotation)
    )


def _locate(
    loc: Sequence[Any], model: type[pydantic.BaseModel]
) -> tuple[list[str], type[pydantic.BaseModel] | None]:
    """The dotted path of an error, without pydantic's union tags, and the section of its last key.

    Pydantic's `loc` has, after the key of a union, the tag or the type of the member that it tried.
    """
    path: list[str] = []
    section = discriminator = None
    annotation: Any = model
    for key in loc:
        members = _members(annotation)
        if len(members) > 1:
            annotation = _tagged_member(members, discriminator, key)
            if annotation is None:  # a plain union: what follows names the type tried, not a key
                break
            continue
        path.append(str(key))
        (member,) = members
        section = member if _is_section(member) else None
        if section is None:
            annotation = _item_type(member)
        elif field := section.model_fields.get(key):
            annotation, discriminator = field.annotation, field.discriminator
        else:
            annotation = discriminator = None
    return path, section


def _members(annotation: Any) -> list[Any]:
    """The types of a union other than None; of another type, itself."""
    if get_origin(annotation) not in _UNIONS:
        return [annotation]
    return [member for member in get_args(annotation) if member is not type(None)]


def _tagged_member(members: Sequence[Any], discriminator: str | None, tag: Any) -> Any | None:
    """The section of a discriminated union whose discriminator has this value, or of a plain union
    that has this name."""
    for member in members:
        if discriminator and _is_section(member):
            if tag in get_args(member.model_fields[discriminator].annotation):
                return member
        # With a validator of its own its tag is `function-after[..., NAME]`.
        elif _is_section(member) and re.search(rf"\b{member.__name__}\]*$", str(tag)):
            return member
    return None


def _item_type(annotation: Any) -> Any | None:
    """The type of a list's items or of a mapping's values."""
    arguments = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    return arguments[-1] if arguments else None


def _with_type(value: Any) -> str:
    return f"{shown(value)} ({type(value).__name__})"


def _describe_field(name: str, field: pydantic.fields.FieldInfo) -> KeyDescription:
    default = "required"
    if not field.is_required():
        # A default that follows from other keys is shown as it is where those have theirs.
        value = field.get_default(call_default_factory=True, validated_data={})
        default = json.dumps(value)
    return KeyDescription(name, _type_name(field.annotation), default, field.description or "")


def _type_name(annotation: Any) -> str:
    """A type as a person would say it: `list of integer`, `'a' | 'b'`, `string | null`."""
    if hasattr(annotation, "__metadata__"):
        return _type_name(annotation.__origin__)
    if _is_section(annotation):
        return "mapping"
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " | ".join(repr(a) for a in arguments)
    if get_origin(annotation) is tuple:
        return f"list of {_type_name(arguments[0])}"
    if get_origin(annotation) is dict:
        return f"mapping of {_type_name(arguments[1])}"
    if arguments:
        return " | ".join(_type_name(a) for a in arguments)
    return {
        str: "string",
        int: "integer",
        float: "number",
        bool: "true | false",
        type(None): "null",
    }.get(annotation, str(annotation))
