"""Drawing edits: which file, which place, which change; all of it follows from the given generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .documents import DOCUMENTS
from .edits import Edit, interesting

VALUES: tuple[Any, ...] = (
    "null", "true", "false", "-1", "0", "1", "2", "0.5", "-0.0", "1e308", "1e400", "NaN", "Infinity",
    "-Infinity", "1000000000", "2147483648", "9223372036854775808", "1e18", "1e7", "300000",
    {"text": "9", "times": 400},
    {"text": "9", "times": 5000},
    '""', '"x"', '"1"', '"nan"', '"../../etc/passwd"', '"/etc/passwd"', '"\\u0000"', '"\\ud800"',
    '"\\u001b[2J"',
    '"\\u202e"', '"=cmd|calc"', '"a\\nb"', '"%s%n"', '"../x"', '"C:\\\\x"',
    {"before": '"', "text": "a", "times": 400, "after": '"'},
    {"before": '"', "text": "é", "times": 100_000, "after": '"'},
    "[]", "{}", "[[1]]", '{"a": {"b": 1}}', "[null]", '["a", "a"]', "[1, 2, 1000000000]", "[1e308, 1e308]",
    {"open": "[", "close": "]", "times": 90}, {"open": "[", "close": "]", "times": 100_000},
    {"open": '{"a":', "close": "}", "text": "1", "times": 2_000},
    {"before": "[0", "text": ",0", "times": 300_000, "after": "]"}, "", "{", "1 2", "'x'", "0x10", "\\u0041",
)  # fmt: skip
COMPANY = (
    "json.py", "numpy.py", "x.so", "__pycache__/run.cpython-311.pyc", "__pycache__/x.pyc", "sitecustomize.py",
    "a/b/c", ".hidden", "x\x1b[2J", "=cmd", "__init__.py",
)  # fmt: skip
"""Files that have no business beside others."""
KEYS = ("", "x", "__class__", "../x", "\x1b[2J", {"text": "k", "times": 400}, "schema")
CELLS: tuple[Any, ...] = (
    "", "nan", "NaN", "inf", "-inf", "1e400", "-1e308", "1e-400", "abc", "=cmd|calc", "\x1b[2J", "\x00",
    "0x10",
    "1_000", "1,5", '"', '""', '"a', "None", "١٢", "1e5", "9999-12-31 23:00:00", "0001-01-01", "2024-02-30",
    "2024-01-01T00:00:00Z", "2024-01-01 00:00:00+99:00", "1e18", "99999999999999999999", "date", "v0",
    {"text": "9", "times": 400}, {"text": "9", "times": 2_000_000}, {"text": "a", "times": 100_000},
    {"text": ",", "times": 1_000_000}, {"text": ",", "times": 300}, "\ufeff", " 1.0 ", "\u202e1",
)  # fmt: skip
LINES: tuple[Any, ...] = (
    "", ",", '"', "\x00", "#", ",,,,,,,,", {"text": ",", "times": 3_000_000},
    {"text": "1", "times": 20_000_000},
    {"text": "\n", "times": 100_000}, {"text": '"', "times": 100_001}, "2024-01-01 00:00:00,1,2,3,4",
)  # fmt: skip

Draw = Callable[[random.Random, Path, str], list[Edit]]
"""Generator, the specimen's folder, the file's name in it."""


def tree(kind: str) -> Draw:
    """One or two changes of a document's values."""

    def draw(rng: random.Random, root: Path, name: str) -> list[Edit]:
        found = DOCUMENTS[kind].load((root / name).read_bytes())
        return [_change(rng, found, {"file": name, "as": kind})]

    return draw


def _change(rng: random.Random, found: Any, where: Edit) -> Edit:
    path, value = _walk(rng, found)
    where = {**where, "path": path}
    kind = rng.random()
    if not path or kind < 0.55:
        return {"do": "set", **where, "raw": rng.choice(VALUES)}
    if kind < 0.7:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            by, plus = rng.choice([(1, 1), (1, -1), (-1, 0), (2, 0), (1000, 0), (10**9, 0), (0, 0)])
            return {"do": "scale", **where, "by": by, "plus": plus}
        if isinstance(value, str) and value:
            return {"do": "set", **where, "raw": _near(rng, value)}
    if kind < 0.82:
        return {"do": "delete", **where}
    if kind < 0.9 and isinstance(path[-1], str):
        return {"do": "rename", **where, "to": rng.choice(KEYS)}
    return {"do": "double", **where, **rng.choice([{}, {"raw": rng.choice(VALUES)}, {"times": 100_000}])}


def _walk(rng: random.Random, found: Any) -> tuple[list[Any], Any]:
    """A place in the tree; the leaves of a large branch are no likelier than those of a small one."""
    path: list[Any] = []
    while isinstance(found, (dict, list)) and found and (not path or rng.random() < 0.75):
        if not path and rng.random() < 0.02:
            break
        key = rng.choice(list(found)) if isinstance(found, dict) else rng.randrange(len(found))
        path.append(key)
        found = found[key]
    return path, found


def _near(rng: random.Random, text: str) -> str:
    import json

    at = rng.randrange(len(text))
    return json.dumps(text[:at] + rng.choice(["", "x", "/", "..", "é", " "]) + text[at + 1 :])


def raw(rng: random.Random, root: Path, name: str) -> list[Edit]:
    """One change of bytes; headers, which say most, are hit as often as all the rest."""
    size = max(1, (root / name).stat().st_size)
    at = rng.randrange(min(size, 256)) if rng.random() < 0.5 else rng.randrange(size)
    kind = rng.randrange(8)
    here: Edit = {"file": name, "at": at}
    if kind < 3:
        return [{"do": "flip", **here, "bit": rng.randrange(8)}]
    if kind == 3:
        return [{"do": "truncate", **here, "at": rng.choice([0, 1, 7, at, size // 2, size - 1])}]
    if kind == 4:
        return [{"do": "copy", **here, "from": rng.randrange(size), "length": rng.choice([1, 8, 64, 4096])}]
    if kind == 5:
        return [{"do": "splice", **here, "delete": rng.choice([1, 8, 64])}]
    if kind == 6:
        return [
            {
                "do": "splice",
                **here,
                "raw": {"text": rng.choice("\x00\x7fA"), "times": rng.choice([1, 9, 5000])},
            }
        ]
    number = interesting(rng)
    return [{"do": "splice", **here, "hex": number, "delete": len(number) // 2}]


def header_length(rng: random.Random, root: Path, name: str) -> list[Edit]:
    """Another length in the first eight bytes: safetensors."""
    return [{"do": "splice", "file": name, "at": 0, "delete": 8, "hex": rng.choice(
        [0, 1, 7, 10**6, 2**31, 2**40, 2**63 - 1, 2**64 - 1]).to_bytes(8, "little").hex()}]  # fmt: skip


def cells(rng: random.Random, root: Path, name: str) -> list[Edit]:
    """Changes of a table of text."""
    kind = rng.random()
    row = rng.choice([0, 1, 2, -1, -2, rng.randrange(2000)])
    if kind < 0.5:
        return [
            {"do": "cell", "file": name, "row": row, "column": rng.randrange(4), "raw": rng.choice(CELLS)}
        ]
    if kind < 0.7:
        count = rng.choice([0, 0, 1, 2, 100])
        times = {"times": rng.choice([0, 1, 2, 50]), "from": rng.randrange(2000)}
        return [{"do": "lines", "file": name, "row": row, "delete": count, **times}]
    if kind < 0.8:
        return [{"do": "line", "file": name, "row": row, "raw": rng.choice(LINES)}]
    if kind < 0.84 and name.endswith(".gz"):
        times = rng.choice([10, 200, 3000])
        return [
            {
                "do": "inflate",
                "file": name,
                "text": rng.choice("0,\n\x00"),
                "times": times,
                "keep": rng.choice([0, 40]),
            }
        ]
    if kind < 0.84:
        return [{"do": "sparse", "file": name, "size": rng.choice([1 << 20, 1 << 28, 3 << 30])}]
    if kind < 0.88:
        return [
            {
                "do": "recode",
                "file": name,
                "to": rng.choice(["utf-16", "utf-32", "utf-8-sig", "latin1", "cp037"]),
            }
        ]
    return raw(rng, root, name)


def alone(rng: random.Random, root: Path, name: str) -> list[Edit]:
    """The file itself: gone, a link, a folder, or huge.  To wait for a pipe that a user gives is right."""
    huge = rng.choice([1 << 24, 1 << 32, (4 << 30) + 1])
    changes: list[Edit] = [
        {"do": "remove"},
        {"do": "link", "to": rng.choice(["/etc/passwd", "/dev/zero", "missing", ".", name])},
        {"do": "folder"},
        {"do": "sparse", "size": huge},
    ]
    return [{**rng.choice(changes), "file": name}]


def place(rng: random.Random, root: Path, name: str) -> list[Edit]:
    """As ``alone``; or a pipe, another file's content, or company that it should not have."""
    others = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
    kind = rng.random()
    if kind < 0.45:
        return alone(rng, root, name)
    if kind < 0.55:
        return [{"do": "pipe", "file": name}]
    if kind < 0.7 and len(others) > 1:
        return [{"do": "swap", "file": name, "with": rng.choice(others)}]
    return [{"do": "add", "file": rng.choice(COMPANY), "raw": "print('owned')"}]


def zipped(inner: Draw | None = None) -> Draw:
    """Tricks of a zip file."""

    def draw(rng: random.Random, root: Path, name: str) -> list[Edit]:
        tricks: list[Edit] = [
            {"name": rng.choice(
                ["../x", "/etc/x", "a\\..\\x", "", "run.py", "x/", {"text": "n", "times": 60_000}])},
            {"copies": 2}, {"deflate": True}, {"deflate": True, "zeros": 1 << 26}, {"zeros": 0},
            {"mode": 0o120777}, {"mode": 0o060644}, {"mode": 0o040755},
            {"prefix": "4d5a" * rng.choice([1, 500])},
            {"header": rng.choice([8, 10, 16, 20, 24, 28, 30, 38, 42]),
             "value": rng.choice([0, 1, 8, 255, 2**31, 2**32 - 1])},
        ]  # fmt: skip
        trick = {"entry": rng.randrange(12), **rng.choice(tricks)}
        return [{"do": "archive", "file": name, "trick": trick}]

    return draw


def one_of(choices: Mapping[Draw, float]) -> Draw:
    """Any of these, by weight."""

    def draw(rng: random.Random, root: Path, name: str) -> list[Edit]:
        (chosen,) = rng.choices(list(choices), list(choices.values()))
        return chosen(rng, root, name)

    return draw
