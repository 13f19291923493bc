"""The one reader of JSON and TOML: capped, strict and typed.

Whatever a file holds, reading it ends in plain values or in one line of the error class that the caller
names.  Refused are: more bytes than ``max_bytes`` (before they are read) or more levels than ``max_depth``
(before anything recurses); what is no regular file (a folder, a pipe, a device); text that is no UTF-8 or
holds lone surrogates; a key given twice; numbers that are not finite, and integers of more than 64 bits.

:func:`validated` holds the values to a pydantic model, and :func:`read_model` does both.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable
from io import BufferedReader
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import TsfmcError

MAX_BYTES = 16 << 20
MAX_DEPTH = 64
MAX_INTEGER = 1 << 64
_LONGEST_INTEGER = 20

# One match per string, comment, word or bracket; what precedes a dot goes with it.  The quantifiers are
# possessive, and no text is left for a second try at its middle: linear in the text, whatever it is.
_JSON_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?+|[\[{\]}]', re.DOTALL)
_TOML_KEY = r"""(?:[\w-]++|"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+')"""
_TOML_TOKENS = re.compile(
    rf"(?P<dotted>(?:{_TOML_KEY}[ \t]*+\.[ \t]*+)++)"
    r'|"""(?:[^"\\]++|\\.|"(?!""))*+(?:"""){0,1}+'
    r"|'''(?:[^']++|'(?!''))*+(?:'''){0,1}+"
    r'|"(?:[^"\\\n]++|\\.)*+"?+'
    r"|'[^'\n]*+'?+"
    r"|#[^\n]*+"
    r"|[\w-]++"
    r"|[\[{\]}]",
    re.DOTALL,
)

Model = TypeVar("Model", bound=BaseModel)


class _Refused(Exception):
    """Why a text is not read; turned into the caller's error with what and where."""


def read_bytes(
    source: Path, *, what: str, error: type[TsfmcError], max_bytes: int = MAX_BYTES, hint: str = ""
) -> bytes:
    """The content of one regular file of at most ``max_bytes``.

    Raises:
        TsfmcError: of the class ``error``; the file is missing, unreadable, too large or no regular file.
    """
    try:
        return _content(source, max_bytes)
    except FileNotFoundError:
        raise error(f"{source}: no such {what}", hint=hint) from None
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or str(failure)
        raise error(f"{source}: {what}: cannot be read: {reason}", hint=hint) from None
    except _Refused as refused:
        raise error(f"{source}: {what}: {refused}", hint=hint) from None


def read_json(
    source: Path | str | bytes,
    *,
    what: str,
    error: type[TsfmcError],
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    hint: str = "",
    finite: bool = True,
) -> Any:
    """The value of a JSON file, or of JSON text.

    Args:
        source: a path, or the text itself.
        what: what it is, for the message: ``"recipe"``, ``"record of the teacher store"``.
        error: the class of every refusal.
        hint: what the user can do about a refusal.
        finite: False for what this package itself has written, where a weight may be infinite.

    Raises:
        TsfmcError: of the class ``error``; see the module.
    """
    return _read(
        source,
        _parse_json if finite else _parse_infinite_json,
        "JSON",
        _JSON_TOKENS,
        what,
        error,
        max_bytes,
        max_depth,
        hint,
    )


def read_toml(
    source: Path | str | bytes,
    *,
    what: str,
    error: type[TsfmcError],
    max_bytes: int = 1 << 20,
    max_depth: int = MAX_DEPTH,
    hint: str = "",
    finite: bool = True,
) -> dict[str, Any]:
    """The tables of a TOML file, or of TOML text; as :func:`read_json`.

    Args:
        finite: False where a weight may be infinite, as in recipes; NaN is refused all the same.
    """
    tables: dict[str, Any] = _read(
        source,
        _parse_toml if finite else _parse_infinite_toml,
        "TOML",
        _TOML_TOKENS,
        what,
        error,
        max_bytes,
        max_depth,
        hint,
    )
    return tables


def validated(
    value: Any, model: type[Model], *, what: str, error: type[TsfmcError], hint: str = "", strict: bool = True
) -> Model:
    """A parsed value as a pydantic ``model``, without turning text into numbers (``strict``).

    Raises:
        TsfmcError: of the class ``error``, naming the first field that is wrong, what it is and why.
    """
    try:
        # The JSON mode of pydantic: strict, and a list is still a tuple and a string still a path.
        return model.model_validate_json(json.dumps(value, default=str), strict=strict)
    except ValidationError as failure:
        first = failure.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        more = f" (and {failure.error_count() - 1} more)" if failure.error_count() > 1 else ""
        got = _short(first["input"])
        raise error(f"{what}: {field} is {got}: {first['msg'].lower()}{more}", hint=hint) from None


def read_model(
    source: Path | str | bytes,
    model: type[Model],
    *,
    what: str,
    error: type[TsfmcError],
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    hint: str = "",
) -> Model:
    """A JSON file as a pydantic ``model``: :func:`read_json`, then :func:`validated`."""
    value = read_json(source, what=what, error=error, max_bytes=max_bytes, max_depth=max_depth, hint=hint)
    where = f"{source}: {what}" if isinstance(source, Path) else what
    return validated(value, model, what=where, error=error, hint=hint)


def _read(
    source: Path | str | bytes,
    parse: Callable[[str], Any],
    form: str,
    tokens: re.Pattern[str],
    what: str,
    error: type[TsfmcError],
    max_bytes: int,
    max_depth: int,
    hint: str,
) -> Any:
    where = what
    content: str | bytes
    if isinstance(source, Path):
        where = f"{source}: {what}"
        content = read_bytes(source, what=what, error=error, max_bytes=max_bytes, hint=hint)
    else:
        content = source
    try:
        text = _text(content, max_bytes)
        _check_depth(text, tokens, max_depth)
        value = parse(text)
        _check_values(value, max_depth)
    except _Refused as refused:
        raise error(f"{where}: {refused}", hint=hint) from None
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, RecursionError) as failure:
        raise error(f"{where}: not {form}: {_short_line(str(failure))}", hint=hint) from None
    except ValueError:  # more digits than Python turns into an integer
        raise error(f"{where}: an integer has more than 64 bits", hint=hint) from None
    return value


class NotAFileError(OSError):
    """A folder, a pipe or a device in the place of a file."""


def open_regular(path: Path) -> BufferedReader:
    """A file for reading that is one: a pipe that nobody writes to would hold its reader for ever.

    Raises:
        NotAFileError: it is something else.
        OSError: missing or unreadable.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise NotAFileError(f"this is {kind}, expected a file")
    return os.fdopen(descriptor, "rb")


def _content(path: Path, max_bytes: int) -> bytes:
    try:
        file = open_regular(path)
    except NotAFileError as error:
        raise _Refused(str(error)) from None
    with file:
        content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            size = max(os.fstat(file.fileno()).st_size, len(content))
            raise _Refused(f"{size} bytes, expected at most {max_bytes}")
        return content


def _text(content: str | bytes, max_bytes: int) -> str:
    if len(content) > max_bytes:
        raise _Refused(f"{len(content)} bytes, expected at most {max_bytes}")
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Refused(f"not UTF-8: byte {content[error.start]:#04x} at {error.start}") from None


def _check_depth(text: str, tokens: re.Pattern[str], max_depth: int) -> None:
    """Counts brackets outside of strings and comments, and the parts of dotted keys."""
    depth = 0
    for match in tokens.finditer(text):
        token = match[0]
        if token in ("[", "{"):
            depth += 1
        elif token in ("]", "}"):
            depth = max(0, depth - 1)
        parts = token.count(".") if match.lastgroup == "dotted" else 0
        if depth + parts > max_depth:
            raise _Refused(f"nested deeper than {max_depth} levels")


def _check_values(value: Any, max_depth: int) -> None:
    """What either parser lets through: deep tables of dotted keys, long integers, lone surrogates."""
    level = [value]
    for _ in range(max_depth + 2):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(one.keys())
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
            elif isinstance(one, str):
                _check_string(one)
            elif isinstance(one, int) and abs(one) >= MAX_INTEGER:
                raise _Refused(f"the integer {_short(one)} has more than 64 bits")
        if not below:
            return
        level = below
    raise _Refused(f"nested deeper than {max_depth} levels")


def _check_string(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _Refused(f"the text {_short(text)} holds half a character (a lone surrogate)") from None


def _parse_json(text: str) -> Any:
    return json.loads(
        text,
        object_pairs_hook=_object,
        parse_constant=_no_constant,
        parse_float=_finite,
        parse_int=_integer,
    )


def _parse_infinite_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_int=_integer)


def _parse_toml(text: str) -> dict[str, Any]:
    return tomllib.loads(text, parse_float=_finite)


def _parse_infinite_toml(text: str) -> dict[str, Any]:
    return tomllib.loads(text, parse_float=_no_nan)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"the key {_short(twice)} is given twice")
    return value


def _no_constant(text: str) -> float:
    raise _Refused(f"{text} is not allowed, expected a finite number")


def _no_nan(text: str) -> float:
    return float(text) if text.strip("+-") == "inf" else _finite(text)


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise _Refused(f"{_short_line(text)} is not allowed, expected a finite number")
    return value


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER + 1:
        raise _Refused(f"the integer {_short_line(text)} has more than 64 bits")
    return int(text)


def _short(value: Any) -> str:
    huge = isinstance(value, int) and abs(value) >= MAX_INTEGER  # Python may refuse to write it in decimal
    return _short_line(hex(value) if huge else repr(value))


def _short_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:97]}..."
