"""The one reader of JSON and TOML: what it takes, and what it refuses in one line."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tsfmc.compiler.base.errors import DataError, RecipeError, TsfmcError, VerificationError
from tsfmc.compiler.base.reading import MAX_DEPTH, read_json, read_model, read_toml, validated

DEEP = 200_000

BAD_JSON: dict[str, tuple[str | bytes, str]] = {
    "syntax": ("[1,\n}", "not JSON: Expecting value: line 2"),
    "empty": ("", "not JSON"),
    "truncated": ('{"a": "b', "not JSON: Unterminated string"),
    "not a number": ("[NaN]", "NaN is not allowed, expected a finite number"),
    "infinity": ("[-Infinity]", "-Infinity is not allowed"),
    "overflow": ("[1e999]", "1e999 is not allowed"),
    "twice": ('{"a": {"b": 1, "b": 2}}', "the key 'b' is given twice"),
    "no UTF-8": (b'{"a": "\xff"}', "not UTF-8: byte 0xff at 7"),
    "half a character": ('["\\ud800"]', "lone surrogate"),
    "half a character in a key": ('{"\\ud800": 1}', "lone surrogate"),
    "many digits": ("9" * 100_000, "more than 64 bits"),
    "65 bits": (str(2**64), "more than 64 bits"),
    "deep arrays": ("[" * DEEP, f"nested deeper than {MAX_DEPTH} levels"),
    "deep objects": ('{"a":' * DEEP, f"nested deeper than {MAX_DEPTH} levels"),
    "one level too deep": ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper"),
    "a bracket behind a quote": (r'["\\",' + "[" * DEEP, "nested deeper"),
    "too long": ("[" + " " * (17 << 20) + "]", "bytes, expected at most"),
}
BAD_TOML: dict[str, tuple[str | bytes, str]] = {
    "syntax": ("a = ", "not TOML"),
    "twice": ("a = 1\na = 2", "not TOML: Cannot overwrite a value"),
    "infinity": ("a = inf", "inf is not allowed, expected a finite number"),
    "not a number": ("a = nan", "nan is not allowed"),
    "many digits": ("a = " + "9" * 100_000, "more than 64 bits"),
    "65 bits": (f"a = {2**64}", "more than 64 bits"),
    "no UTF-8": (b"a = '\xff'", "not UTF-8"),
    "deep arrays": ("a = " + "[" * DEEP, "nested deeper"),
    "deep tables": ("a = " + "{b=" * DEEP, "nested deeper"),
    "dotted key": (".".join("a" * DEEP) + " = 1", "nested deeper"),
    "dotted quoted key": (".".join(['"a"'] * DEEP) + " = 1", "nested deeper"),
    "dotted table": ("[" + " . ".join("a" * DEEP) + "]", "nested deeper"),
    "brackets behind text": ("a = '''[['''\nb = " + "[" * DEEP, "nested deeper"),
    "too long": ("# " + " " * (2 << 20), "bytes, expected at most"),
}


def _refused(call: Any, *parts: str, error: type[TsfmcError] = DataError) -> None:
    began = time.monotonic()
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    for part in parts:
        assert part in caught.value.what
    assert len(caught.value.what) < 500 and "\n" not in caught.value.what
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json_is_one_line_of_the_callers_error(name: str, tmp_path: Path) -> None:
    text, reason = BAD_JSON[name]
    _refused(lambda: read_json(text, what="thing", error=DataError), "thing: ", reason)
    path = tmp_path / "thing.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    _refused(lambda: read_json(path, what="thing", error=DataError), f"{path}: thing: ", reason)


@pytest.mark.parametrize("name", BAD_TOML)
def test_bad_toml_is_one_line_of_the_callers_error(name: str) -> None:
    text, reason = BAD_TOML[name]
    _refused(lambda: read_toml(text, what="recipe", error=RecipeError), "recipe: ", reason, error=RecipeError)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path, "this is a directory, expected a file"),
        (tmp_path / "pipe", "this is no regular file"),
        (Path("/dev/zero"), "this is no regular file"),
        (tmp_path / "none", "no such record"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "a\0b", "null byte"),
    ):
        _refused(lambda path=path: read_json(path, what="record", error=DataError), reason)


def test_brackets_in_strings_and_comments_are_text() -> None:
    brackets = "[" * 1000
    assert read_json(json.dumps([brackets, '"' + brackets]), what="x", error=DataError)[0] == brackets
    lines = ("# {}", "a = '{}'", 'b = """\n{}"""', "c = '''{}'''", 'd = "\\"{}"')
    text = "\n".join(line.format(brackets) for line in lines)
    assert set(read_toml(text, what="x", error=DataError)) == {"a", "b", "c", "d"}
    floats = "a = [" + "1.5, " * 1000 + "]"
    assert len(read_toml(floats, what="x", error=DataError)["a"]) == 1000


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_reads_what_json_writes(value: Any) -> None:
    assert read_json(json.dumps(value), what="x", error=DataError) == value
    assert read_json(json.dumps(value, ensure_ascii=False), what="x", error=DataError) == value


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    for read in (read_json, read_toml):
        with suppress(DataError):
            read(content, what="x", error=DataError)


class Record(BaseModel, extra="forbid"):
    name: str
    sizes: tuple[int, ...]


def test_a_model_holds_types_and_names_the_field(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"name": "a", "sizes": [1, 2]}')
    assert read_model(path, Record, what="record", error=DataError).sizes == (1, 2)
    for value, reason in (
        ({"name": "a", "sizes": ["1"]}, "sizes.0 is '1'"),
        ({"name": "a", "sizes": [True]}, "sizes.0 is True"),
        ({"name": "a", "sizes": [1.5]}, "sizes.0 is 1.5"),
        ({"name": "a"}, "sizes is {'name': 'a'}: field required"),
        ({"name": "a", "sizes": [], "x": 1}, "x is 1: extra"),
        ([], "the whole is []"),
    ):
        _refused(
            lambda value=value: validated(value, Record, what="record", error=VerificationError),
            "record: ",
            reason,
            error=VerificationError,
        )
