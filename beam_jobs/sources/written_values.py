"""Lists and objects that were written into a string: as JSON, or as Python or NumPy print them."""

import json
import re
from collections.abc import Iterator
from typing import Any

from beam_jobs.contract.errors import shown

_MAX_DEPTH = 8  # of lists and objects in one another
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>[bBuU]?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))
        |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
        |(?P<word>[A-Za-z]\w*)
        |(?P<mark>[][(){},:])
    )\s*""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_WORDS |= {"nan": float("nan"), "NaN": float("nan")}
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": ""}

Token = tuple[str, str]  # kind and text


def parse(text: str) -> Any:
    """The value that a string holds: null, booleans, numbers, strings, lists and objects of them.

    Tuples and sets are lists. NumPy prints no commas between the items of a list: they are items
    all the same, where Python would join strings.

    Raises:
      ValueError: it holds none.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        pass
    if text.strip() in ("set()", "frozenset()"):
        return []
    tokens = _Tokens(text)
    value = tokens.value()
    tokens.expect_end()
    return value


def is_written(text: str) -> bool:
    """Whether a string looks like a list of strings or numbers, or an object, and not like a name
    in brackets.
    """
    if text.lstrip()[:1] not in _CLOSING and not text.strip().endswith("set()"):
        return False
    try:
        value = parse(text)
    except ValueError:
        return False
    if isinstance(value, list):
        return all(isinstance(item, str | int | float) for item in value)
    return isinstance(value, dict)


class _Tokens:
    """The tokens of a text as Python prints values, from left to right."""

    def __init__(self, text: str):
        self._tokens = _tokens(text)
        self._advance()

    def value(self, depth: int = 0) -> Any:
        if depth == _MAX_DEPTH:
            raise ValueError(f"lists in one another, more than {_MAX_DEPTH}")
        kind, text = self._take()
        if kind == "string":
            return _unquoted(text)
        if kind == "number":
            return int(text) if text.lstrip("+-").isdigit() else float(text)
        if kind == "word" and text in _WORDS:
            return _WORDS[text]
        if kind == "mark" and text in _CLOSING:
            return self._items(text, depth)
        raise ValueError(f"received {shown(text)}, expected a list or an object")

    def expect_end(self) -> None:
        if self._next != ("end", ""):
            raise ValueError(f"received {shown(self._next[1])} after the end")

    def _items(self, opening: str, depth: int) -> Any:
        """What follows an opening bracket, to its end."""
        items: list[Any] = []
        keys: list[Any] = []
        commas = 0
        while self._next != ("mark", _CLOSING[opening]):
            items.append(self.value(depth + 1))
            if opening == "{" and self._next == ("mark", ":"):
                self._take()
                keys.append(items.pop())
                items.append(self.value(depth + 1))
            if self._next == ("mark", ","):
                self._take()
                commas += 1
        self._take()
        if opening == "{" and len(keys) == len(items):
            return _object(list(zip(keys, items, strict=True)))
        if keys:
            raise ValueError("received an object of which not every value has a key")
        if opening == "(" and len(items) == 1 and not commas:
            return items[0]
        return items

    def _take(self) -> Token:
        taken = self._next
        self._advance()
        return taken

    def _advance(self) -> None:
        self._next: Token = next(self._tokens, ("end", ""))


def _tokens(text: str) -> Iterator[Token]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"received {shown(text[position : position + 20])}")
        yield match.lastgroup, match[match.lastgroup]
        position = match.end()


def _object(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("received an object with keys that are no strings")
    if len(set(names)) < len(names):
        raise ValueError("received an object with a key twice")
    return dict(pairs)


def _unquoted(text: str) -> str:
    text = text.lstrip("bBuU")[1:-1]
    return _ESCAPE.sub(_unescaped, text) if "\\" in text else text


def _unescaped(match: re.Match) -> str:
    escape = match[1]
    if len(escape) > 1:
        number = int(escape[1:], 16)
        if number > 0x10FFFF:
            raise ValueError(f"received {shown(match[0])}, expected a character")
        return chr(number)
    if escape in _ESCAPES:
        return _ESCAPES[escape]
    return escape if escape in "\\'\"" else match[0]
