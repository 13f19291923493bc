"""The attack finds planted defects, and calls a sound reader sound."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzz.campaign import Campaign, Case, keep, read_case
from fuzz.corpus import SPECIMEN, Format, Reader
from fuzz.draw import cells, one_of, raw, tree
from fuzz.edits import apply
from tsfmc.compiler.base.errors import VerificationError


def checked() -> dict[str, object]:
    """A sound reader of a JSON file with its own hash."""
    try:
        facts, payload = Path(SPECIMEN, "facts.json"), Path(SPECIMEN, "payload")
        if not (facts.is_file() and payload.is_file()):
            raise ValueError("no file: a pipe, say, that nobody writes into")
        found, content = json.loads(facts.read_bytes()), payload.read_bytes()
        if hashlib.sha256(content).hexdigest() != found["sha256"] or set(found) != {"sha256", "steps"}:
            raise ValueError("another hash or other fields")
        if not isinstance(found["steps"], int) or found["steps"] != 7:
            raise ValueError("other steps")
        return {"steps": found["steps"], "bytes": len(content)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerificationError(f"broken: {type(error).__name__}") from None


def refusing(read: Callable[[], object]) -> Callable[[], object]:
    def call() -> object:
        try:
            print(read())
        except VerificationError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        return 0

    return call


def unseeing() -> object:
    """Believes the payload without looking at it: a flipped bit passes."""
    Path(SPECIMEN, "facts.json").read_bytes()
    return "ok"


def raising() -> object:
    return json.loads(Path(SPECIMEN, "facts.json").read_bytes())["steps"] + 1


def believing() -> object:
    return Path(SPECIMEN, "payload").read_bytes()


def sick(disease: Callable[[], object]) -> Callable[[], object]:
    """Sound on the specimen, ill on every mutant."""

    def read() -> object:
        try:
            return checked()
        except VerificationError:
            return disease()

    return read


def terminal() -> object:
    print("\x1b[2J")
    raise VerificationError("broken")


DEFECTS: dict[str, tuple[Callable[[], object], bool]] = {
    "unseen": (unseeing, True),
    "traceback": (raising, False),
    "silent": (believing, False),
    "hang": (sick(lambda: time.sleep(60)), False),
    "memory": (sick(lambda: len(b"x" * (5 << 28))), False),
    "crash": (sick(lambda: os.kill(os.getpid(), signal.SIGSEGV)), False),
    "control": (sick(terminal), False),
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "thing").mkdir(parents=True)
    content = bytes(range(256)) * 4
    (folder / "thing" / "payload").write_bytes(content)
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "steps": 7}
    (folder / "thing" / "facts.json").write_text(json.dumps(facts))
    (folder / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    return folder


def attacked(corpus: Path, read: Callable[[], object], *, verifies: bool, seconds: float = 120.0) -> Campaign:
    draws = {"*.json": one_of({tree("json"): 3, raw: 1}), "*": raw}
    reader = Reader("read", refusing(read), verifies=verifies)
    return Campaign(corpus, [Format("thing", "thing", draws, [reader], 1.0)], seconds=seconds)


def outcomes(campaign: Campaign, count: int) -> Iterator[str]:
    with campaign:
        for found in campaign.attack(range(count), seed=1):
            yield found.verdict.kind
            if not found.verdict.allowed:
                return


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_planted_defect_is_found(kind: str, corpus: Path) -> None:
    read, verifies = DEFECTS[kind]
    assert kind in set(
        outcomes(attacked(corpus, read, verifies=verifies, seconds=2.0 if kind == "hang" else 120.0), 120)
    )


def test_a_sound_reader_passes(corpus: Path) -> None:
    found = list(outcomes(attacked(corpus, checked, verifies=False), 120))
    assert len(found) == 120 and set(found) <= {"equal", "refused"}


def test_a_mutant_follows_from_its_number(corpus: Path) -> None:
    campaign = attacked(corpus, checked, verifies=True)
    first = [campaign.draw(number, seed=3) for number in range(50)]
    assert first == [campaign.draw(number, seed=3) for number in range(50)]
    assert first != [campaign.draw(number, seed=4) for number in range(50)]
    assert len({json.dumps(case.edits) for case in first}) > 25


def test_a_failure_is_kept_and_fails_again(corpus: Path, tmp_path: Path) -> None:
    with attacked(corpus, believing, verifies=False) as campaign:
        found = next(each for each in campaign.attack(range(100), seed=1) if not each.verdict.allowed)
        path = keep(found, tmp_path / "cases")
        assert keep(found, tmp_path / "cases") == path
        case = read_case(path)
        assert case == found.case
        assert campaign.judge(case)[0].kind == found.verdict.kind
        assert campaign.judge(Case("thing", "read", []))[0].kind == "equal"


FILE = {"file": "f.json"}
TREE = {**FILE, "as": "json"}
EDITS = {
    "set": ({"do": "set", **TREE, "path": ["b", 1], "raw": "1e400"}, b'{"a": 1, "b": [2, 1e400]}'),
    "delete": ({"do": "delete", **TREE, "path": ["a"]}, b'{"b": [2, 3]}'),
    "rename": ({"do": "rename", **TREE, "path": ["a"], "to": "c"}, b'{"b": [2, 3], "c": 1}'),
    "double": ({"do": "double", **TREE, "path": ["a"], "raw": "5"}, b'{"a": 1, "a": 5, "b": [2, 3]}'),
    "scale": ({"do": "scale", **TREE, "path": ["a"], "by": 10, "plus": 1}, b'{"a": 11, "b": [2, 3]}'),
    "nest": (
        {"do": "set", **TREE, "path": ["b"], "raw": {"open": "[", "close": "]", "times": 3}},
        b'{"a": 1, "b": [[[]]]}',
    ),
    "flip": ({"do": "flip", **FILE, "at": 1, "bit": 1}, b'{ a": 1, "b": [2, 3]}'),
    "truncate": ({"do": "truncate", **FILE, "at": 5}, b'{"a":'),
    "splice": ({"do": "splice", **FILE, "at": 6, "delete": 1, "hex": "3939"}, b'{"a": 99, "b": [2, 3]}'),
    "copy": ({"do": "copy", **FILE, "at": 0, "from": 1, "length": 2}, b'"a": 1, "b": [2, 3]}'),
    "one that does not fit": ({"do": "delete", **TREE, "path": ["z"]}, b'{"a": 1, "b": [2, 3]}'),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_edits_do_what_they_say(name: str, tmp_path: Path) -> None:
    edit, expected = EDITS[name]
    (tmp_path / "f.json").write_text('{"a": 1, "b": [2, 3]}')
    apply(tmp_path, [edit])
    got = (tmp_path / "f.json").read_bytes()
    assert got == expected if name not in ("flip", "copy") else got != b'{"a": 1, "b": [2, 3]}'


def test_tables_are_edited_inside_gzip_too(tmp_path: Path) -> None:
    import gzip
    import random

    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    apply(tmp_path, [{"do": "cell", "file": "t.csv.gz", "row": 1, "column": 1, "raw": "x"}])
    assert gzip.decompress((tmp_path / "t.csv.gz").read_bytes()) == b"a,b\n1,x\n"
    apply(tmp_path, [{"do": "inflate", "file": "t.csv.gz", "text": "0", "times": 3}])
    packed = (tmp_path / "t.csv.gz").read_bytes()
    assert len(gzip.decompress(packed)) == 3 << 20 and len(packed) < 10_000
    assert all(cells(random.Random(n), tmp_path, "t.csv.gz") for n in range(50))
