"""What can be done to a specimen.  An edit is a JSON object; ``do`` names the function that carries it out.

    {"do": "set", "file": "manifest.json", "as": "json", "path": ["task", "horizon"], "raw": "1e400"}
    {"do": "flip", "file": "model.onnx", "at": 1234, "bit": 3}

Long texts are described, not spelt out: ``{"text": "9", "times": 400}``, nesting with ``open`` and ``close``.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .documents import DOCUMENTS, MARK

Edit = dict[str, Any]
Change = Callable[[Path, Edit], None]
EDITS: dict[str, Change] = {}
MOST_BYTES = 4 << 20
"""Of what is repeated: the attack must not be its own victim."""
MISFITS = (
    OSError, ValueError, LookupError, TypeError, AttributeError, SyntaxError, EOFError, NotImplementedError,
    RuntimeError, MemoryError, zlib.error, zipfile.BadZipFile, struct.error,
)  # fmt: skip
"""What an edit raises that no longer fits."""


def apply(root: Path, edits: Sequence[Edit]) -> None:
    """Carries the edits out below ``root``, in order.

    One that no longer fits, because an edit before it took its file or broke the tree that it changes, is
    skipped.
    """
    for each in edits:
        path = root / each.get("file", "")
        if path.is_symlink() or (path.exists() and not path.is_file() and "file" in each):
            continue  # what an edit before has made of it could be read without end
        with suppress(*MISFITS):
            EDITS[each["do"]](root, each)


def text_of(raw: Any) -> str:
    """A text, or one described: ``text`` repeated ``times``, between ``open`` and ``close`` repeated too."""
    if isinstance(raw, str):
        return raw
    times = raw["times"]
    middle = raw.get("text", "")
    if "open" in raw:
        return raw["open"] * times + middle + raw["close"] * times
    return raw.get("before", "") + middle * times + raw.get("after", "")


def edit(change: Change) -> Change:
    """Registers a change under its name."""
    EDITS[change.__name__.rstrip("_")] = change
    return change


def on_bytes(change: Callable[[bytearray, Edit], bytes | bytearray]) -> Change:
    """Registers a change of one file's bytes."""

    def on_file(root: Path, wanted: Edit) -> None:
        path = root / wanted["file"]
        if path.is_file():
            path.write_bytes(bytes(change(bytearray(path.read_bytes()), wanted)))

    on_file.__name__ = change.__name__
    return edit(on_file)


# Trees


def on_tree(change: Callable[[Any, Any, Edit], str]) -> Change:
    """Registers a change of one value: it gets the value's parent and key and returns the raw text that goes
    where it left ``MARK``."""

    def on_file(root: Path, wanted: Edit) -> None:
        path, document = root / wanted["file"], DOCUMENTS[wanted["as"]]
        before = path.read_bytes()
        tree = document.load(before)
        holder, at = [tree], 0
        parent: Any = holder
        key: Any = at
        for step in wanted["path"]:
            parent, key = parent[key], step
        raw = change(parent, key, wanted)
        path.write_bytes(document.dump(holder[0] if holder else None, before, raw))

    on_file.__name__ = change.__name__
    return edit(on_file)


@on_tree
def set_(parent: Any, key: Any, wanted: Edit) -> str:
    """Another value."""
    parent[key] = MARK
    return text_of(wanted["raw"])


@on_tree
def delete(parent: Any, key: Any, wanted: Edit) -> str:
    del parent[key]
    return ""


@on_tree
def rename(parent: Any, key: Any, wanted: Edit) -> str:
    """Another key, the same value."""
    if isinstance(parent, dict):
        parent[text_of(wanted["to"])] = parent.pop(key)
    return ""


@on_tree
def double(parent: Any, key: Any, wanted: Edit) -> str:
    """The same key once more with another value; of a list, the same item once more."""
    value = json.dumps(parent[key], default=str)
    parent[key] = MARK
    separator = f", {json.dumps(key)}: " if isinstance(parent, dict) else ", "
    more = separator + text_of(wanted.get("raw", value))
    return value + more * min(wanted.get("times", 1), 1 + MOST_BYTES // len(more))


@on_tree
def scale(parent: Any, key: Any, wanted: Edit) -> str:
    """A number that is still a number."""
    value = parent[key]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        parent[key] = type(value)(value * wanted["by"] + wanted.get("plus", 0))
    return ""


# Bytes


@on_bytes
def flip(content: bytearray, wanted: Edit) -> bytearray:
    if content:
        content[wanted["at"] % len(content)] ^= 1 << wanted["bit"]
    return content


@on_bytes
def truncate(content: bytearray, wanted: Edit) -> bytearray:
    return content[: wanted["at"] % (len(content) + 1)]


@on_bytes
def splice(content: bytearray, wanted: Edit) -> bytearray:
    """``delete`` bytes at ``at`` give way to ``hex``, or to a described text."""
    at = wanted["at"] % (len(content) + 1)
    new = bytes.fromhex(wanted["hex"]) if "hex" in wanted else text_of(wanted.get("raw", "")).encode()
    return content[:at] + new + content[at + wanted.get("delete", 0) :]


@on_bytes
def copy(content: bytearray, wanted: Edit) -> bytearray:
    """A piece of the file over another place of it."""
    size = max(1, len(content))
    piece = content[wanted["from"] % size : wanted["from"] % size + wanted["length"]]
    at = wanted["at"] % size
    return content[:at] + piece + content[at + len(piece) :]


@on_bytes
def inflate(content: bytearray, wanted: Edit) -> bytes:
    """A gzip file of ``times`` members that hold a megabyte of ``text`` each: little on disk, much inside."""
    member = gzip.compress(wanted["text"].encode() * (1 << 20), 9)
    head = (
        gzip.compress(gzip.decompress(bytes(content))[: wanted.get("keep", 0)]) if wanted.get("keep") else b""
    )
    return head + member * wanted["times"]


@on_bytes
def recode(content: bytearray, wanted: Edit) -> bytes:
    return content.decode("utf-8", "replace").encode(wanted["to"], "replace")


# Lines of text, also inside gzip


def on_lines(change: Callable[[list[str], Edit], None]) -> Change:
    def on_file(root: Path, wanted: Edit) -> None:
        path = root / wanted["file"]
        packed = path.suffix == ".gz"
        content = path.read_bytes()
        lines = (gzip.decompress(content) if packed else content).decode("utf-8", "replace").split("\n")
        change(lines, wanted)
        after = "\n".join(lines).encode("utf-8", "surrogatepass")
        path.write_bytes(gzip.compress(after, 1) if packed else after)

    on_file.__name__ = change.__name__
    return edit(on_file)


@on_lines
def cell(lines: list[str], wanted: Edit) -> None:
    """Another text in one cell; row 0 is the header."""
    row = wanted["row"] % len(lines)
    cells = lines[row].split(",")
    cells[wanted["column"] % len(cells)] = text_of(wanted["raw"])
    lines[row] = ",".join(cells)


@on_lines
def lines(lines: list[str], wanted: Edit) -> None:
    """``delete`` lines at ``row`` give way to copies of the line ``from``."""
    row = wanted["row"] % len(lines)
    new = [lines[wanted["from"] % len(lines)]] * wanted.get("times", 0)
    lines[row : row + wanted.get("delete", 0)] = new


@on_lines
def line(lines: list[str], wanted: Edit) -> None:
    lines.insert(wanted["row"] % len(lines), text_of(wanted["raw"]))


# Files


@edit
def remove(root: Path, wanted: Edit) -> None:
    path = root / wanted["file"]
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@edit
def add(root: Path, wanted: Edit) -> None:
    path = root / wanted["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(wanted.get("raw", "x")))


@edit
def link(root: Path, wanted: Edit) -> None:
    """The file becomes a link to ``to``."""
    (root / wanted["file"]).unlink(missing_ok=True)
    (root / wanted["file"]).symlink_to(wanted["to"])


@edit
def folder(root: Path, wanted: Edit) -> None:
    """The file becomes a folder."""
    (root / wanted["file"]).unlink(missing_ok=True)
    (root / wanted["file"]).mkdir()


@edit
def pipe(root: Path, wanted: Edit) -> None:
    """The file becomes a pipe that nobody writes into."""
    (root / wanted["file"]).unlink(missing_ok=True)
    os.mkfifo(root / wanted["file"])


@edit
def sparse(root: Path, wanted: Edit) -> None:
    """The file ends after ``size`` bytes, most of them holes."""
    with (root / wanted["file"]).open("r+b") as stream:
        stream.truncate(wanted["size"])


@edit
def swap(root: Path, wanted: Edit) -> None:
    """Two files change places."""
    one, other = root / wanted["file"], root / wanted["with"]
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


# Archives


@edit
def archive(root: Path, wanted: Edit) -> None:
    """The zip file is unpacked, ``edits`` are applied to its content, and it is packed again with ``trick``.

    A trick changes the entry ``entry``: its name, method or mode, a second copy, or what the headers say.
    """
    path = root / wanted["file"]
    inner = root / ".unpacked"
    with zipfile.ZipFile(path) as source:
        names = source.namelist()
        source.extractall(inner)
    apply(inner, wanted.get("edits", ()))
    present = [file.relative_to(inner).as_posix() for file in sorted(inner.rglob("*")) if file.is_file()]
    names = [name for name in names if name in present] + [name for name in present if name not in names]
    trick = wanted.get("trick", {})
    chosen = names[trick.get("entry", 0) % len(names)] if names else ""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as sink:
        for name in names:
            _pack(sink, inner / name, name, trick if name == chosen else {})
    content = bytearray(buffer.getvalue())
    if "header" in trick:
        _lie(content, trick)
    path.write_bytes(bytes.fromhex(trick.get("prefix", "")) + bytes(content))
    shutil.rmtree(inner)


def _pack(sink: zipfile.ZipFile, path: Path, name: str, trick: Edit) -> None:
    entry = zipfile.ZipInfo(text_of(trick.get("name", name)), (1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = trick.get("mode", stat.S_IFREG | 0o644) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED if trick.get("deflate") else zipfile.ZIP_STORED
    content = path.read_bytes() if path.is_file() else b""
    content = b"\0" * trick["zeros"] if "zeros" in trick else content
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(trick.get("copies", 1)):
            sink.writestr(entry, content)


def _lie(content: bytearray, trick: Edit) -> None:
    """Writes ``value`` at offset ``header`` of every central directory entry."""
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        if trick["header"] + 4 <= 46:
            struct.pack_into("<I", content, at + trick["header"], trick["value"] & 0xFFFFFFFF)
        at = content.find(b"PK\x01\x02", at + 4)


def interesting(rng: random.Random) -> str:
    """Bytes that lengths, offsets and types are often made of, as hex."""
    number = rng.choice(
        [0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1]
    )
    return number.to_bytes(8, "little")[: rng.choice([1, 2, 4, 8])].hex()
