"""Strict JSON: every key once, finite numbers, no deeper and no longer than anything we write."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .errors import ArtifactError
from .files import decode

MAX_DEPTH = 64
MAX_DIGITS = 40
STRINGS_OR_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def parse_json(content: bytes, name: str) -> Any:
    """What ``content``, the file ``name``, holds.

    Raises:
        ArtifactError: it is not UTF-8 or not JSON, has a key twice, a number that is none, or nests too deep.
    """
    text = decode(content, name)
    try:
        check_depth(text)
        return json.loads(
            text,
            object_pairs_hook=unique,
            parse_int=whole_number,
            parse_float=finite_number,
            parse_constant=no_number,
        )
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name} is not valid JSON: {error}") from None


def check_depth(text: str) -> None:
    """Raises ValueError where lists and objects nest deeper than ``MAX_DEPTH``."""
    depth = 0
    for found in STRINGS_OR_BRACKETS.finditer(text):
        character = found[0][0]
        if character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it nests deeper than {MAX_DEPTH}")
        elif character in "]}":
            depth -= 1


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys all differ."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:80]!r} occurs twice in one object")
        found[key] = value
    return found


def whole_number(digits: str) -> int:
    """An integer that is not absurdly long: reading one takes time by the square of its length."""
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"{digits[:20]}... has {len(digits)} digits, expected at most {MAX_DIGITS}")
    return int(digits)


def finite_number(digits: str) -> float:
    """A number that float64 can hold."""
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large a number")
    return value


def no_number(name: str) -> None:
    """Refuses NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{name} is not a number")
