"""Files that hold a tree, read into Python and written again with one raw text in the place of a value.

The text need not be legal: absurd numbers, double keys and deep nesting cannot be said by a Python value.
"""

from __future__ import annotations

import ast
import json
import struct
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tomli_w

MARK = "@@here@@"
"""Stands in the tree where the raw text goes."""


@dataclass(frozen=True)
class Document:
    """How a file becomes a tree and the other way round."""

    load: Callable[[bytes], Any]
    dump: Callable[[Any, bytes, str], bytes]
    """The tree, the file that it was read from, and the text that replaces ``MARK``."""


def _fill(text: str, raw: str) -> bytes:
    return text.replace(json.dumps(MARK), raw).encode("utf-8", "surrogatepass")


def _load_json(content: bytes) -> Any:
    return json.loads(content)


def _dump_json(tree: Any, before: bytes, raw: str) -> bytes:
    return _fill(json.dumps(tree), raw)


def _load_toml(content: bytes) -> Any:
    return tomllib.loads(content.decode())


def _dump_toml(tree: Any, before: bytes, raw: str) -> bytes:
    return raw.encode() if tree == MARK else _fill(tomli_w.dumps(tree), raw)


def _load_safetensors(content: bytes) -> Any:
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size])


def _dump_safetensors(tree: Any, before: bytes, raw: str) -> bytes:
    (size,) = struct.unpack("<Q", before[:8])
    header = _fill(json.dumps(tree), raw)
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + before[8 + size :]


def _load_statistics(content: bytes) -> Any:
    """The JSON text in the header's metadata."""
    return json.loads(_load_safetensors(content)["__metadata__"]["tsfmc"])


def _dump_statistics(tree: Any, before: bytes, raw: str) -> bytes:
    header = _load_safetensors(before)
    header["__metadata__"]["tsfmc"] = _fill(json.dumps(tree), raw).decode("utf-8", "replace")
    return _dump_safetensors(header, before, "")


def _load_npy(content: bytes) -> Any:
    (size,) = struct.unpack("<H", content[8:10])
    header = ast.literal_eval(content[10 : 10 + size].decode("latin1"))
    return {**header, "shape": list(header["shape"])}


def _dump_npy(tree: Any, before: bytes, raw: str) -> bytes:
    (size,) = struct.unpack("<H", before[8:10])
    if isinstance(tree, dict) and isinstance(tree.get("shape"), list):
        tree = {**tree, "shape": tuple(tree["shape"])}
    text = repr(tree).replace(repr(MARK), raw)
    header = text.encode("latin1", "replace")[:60_000] + b"\n"
    return before[:8] + struct.pack("<H", len(header)) + header + before[10 + size :]


DOCUMENTS = {
    "json": Document(_load_json, _dump_json),
    "toml": Document(_load_toml, _dump_toml),
    "safetensors": Document(_load_safetensors, _dump_safetensors),
    "statistics": Document(_load_statistics, _dump_statistics),
    "npy": Document(_load_npy, _dump_npy),
}
