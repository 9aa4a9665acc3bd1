"""Files of metadata that are damaged or made up: how they are made, and how many are tried."""

import copy
import datetime
import json
import math
import os
import random
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import strategies as st

# Of each subject, in the long run; the tests' own numbers otherwise.
CASES = int(os.environ.get("MULTIHOT_FUZZ", "0"))

OUTSIDE = (
    "../x",
    "/etc/passwd",
    "a/../../x",
    "..",
    "a/..",
    "./../x",
    "/",
    "../" * 40 + "etc/passwd",
)
_JUNK = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -1e308, math.nan, math.inf),
    *("", " ", "a", "\0", "\x85", "true", "1e-4", "x" * 3000, "\ud800", "é", "2026-01-01"),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [1, "a", 0.5], OUTSIDE[0], OUTSIDE[1]),
)


def fuzz(check: Callable[[random.Random], None], *, cases: int) -> None:
    """Calls `check` with the random numbers of as many seeds, the same in every run."""

    @hypothesis.settings(
        max_examples=CASES or cases,
        derandomize=True,
        database=None,
        deadline=datetime.timedelta(seconds=120),  # none hangs, also where others use the machine
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.integers(0, 1 << 40))
    def run(seed):
        check(random.Random(seed))

    run()


def changed(value: Any, rng: random.Random) -> Any:
    """JSON values in which one to three things are others, gone, doubled or renamed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _change(value, rng)
    return value


def _change(value: Any, rng: random.Random) -> Any:
    places = [] if not isinstance(value, dict | list) else list(_places(value))
    if not places or rng.random() < 0.02:
        return rng.choice(_JUNK)
    holder, key = rng.choice(places)
    what = rng.random()
    if what < 0.15:
        del holder[key]
    elif what < 0.25:
        _double(holder, key, rng)
    elif what < 0.4:
        holder[key] = _like(holder[key], rng)
    elif what < 0.5:
        other, of = rng.choice(places)
        holder[key] = copy.deepcopy(other[of]) if of in other or isinstance(other, list) else None
    else:
        holder[key] = rng.choice(_JUNK)
    return value


def _places(value: Any):
    """Each place that holds something, as (the object or list, key or index)."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _double(holder: Any, key: Any, rng: random.Random) -> None:
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[rng.choice((f"{key}x", "", "extra", key.upper()))] = holder[key]


def _like(value: Any, rng: random.Random) -> Any:
    """A value of the same type, or of one that looks like it."""
    if isinstance(value, bool) or value is None:
        return rng.choice((True, False, None, 0, "null"))
    if isinstance(value, int | float):
        return rng.choice((value + 1, -value, value * 1000, float(value), str(value), [value]))
    if isinstance(value, str):
        cut = rng.randrange(len(value) + 1)
        return rng.choice((value[:cut], value + "x", value.upper(), [value], rng.choice(OUTSIDE)))
    return rng.choice((list(value), dict.fromkeys(map(str, value)), len(value), None))


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file with bits flipped, cut short, with bytes put in, or with others in its place."""
    what = rng.random()
    if what < 0.1 or not content:
        return rng.randbytes(rng.choice((0, 1, 30, 300)))
    at = rng.randrange(len(content))
    if what < 0.45:
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    if what < 0.7:
        return content[:at]
    put = rng.choice(
        (b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 2000, b'"', b"}", b"\n", b"1e999")
    )
    return content[:at] + put + content[at:]


def text_of(value: Any, content: bytes, rng: random.Random) -> bytes:
    """A JSON file: its values changed, or its bytes damaged."""
    if rng.random() < 0.3:
        return damaged(content, rng)
    try:
        return json.dumps(changed(value, rng)).encode("utf-8")
    except (ValueError, TypeError):
        return content
