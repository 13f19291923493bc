"""Teacher stores: whatever was changed in one, it is refused in one line or it is what was written."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factory import make_unit

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import MissingError, TsfmcError, VerificationError
from tsfmc.compiler.base.parallel import Processes
from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.driver.recipe import make_recipe
from tsfmc.compiler.ir.teacher_store import TeacherStore
from tsfmc.compiler.learning.labelling import StoreOptions
from tsfmc.compiler.learning.teacher_store import write_store

MUTANTS = 90


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store with states."""
    folder = tmp_path_factory.mktemp("written")
    unit = make_unit(folder, rows=300)
    assert unit.teacher is not None and unit.teacher_info is not None
    return write_store(
        folder / "store",
        unit.teacher,
        unit.teacher_info,
        unit.data,
        lookback=48,
        horizon=12,
        options=StoreOptions(),
        progress=Silent(),
        processes=Processes(),
    ).folder


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Path:
    """A copy of the store."""
    return Path(shutil.copytree(written, tmp_path / "store"))


def _scaled(path: Path) -> None:
    np.save(path, np.load(path) * -3)


def _not_a_number(path: Path) -> None:
    np.save(path, np.full_like(np.load(path), np.nan))


def _one_sign(path: Path) -> None:
    array = np.load(path, mmap_mode="r+")
    array[-1, -1, -1] *= -1
    array.flush()


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


REPLACED: dict[str, Callable[[Path], None]] = {
    "times minus three": _scaled,
    "NaN": _not_a_number,
    "one sign": _one_sign,
    "truncated": lambda path: os.truncate(path, 200),
    "a folder": _a_folder,
    "absent": Path.unlink,
}


@pytest.mark.parametrize("attack", REPLACED)
@pytest.mark.parametrize("name", ["train/forecast.npy", "val/forecast.npy", "train/states.npy"])
def test_replaced_numbers_are_refused_naming_the_file(store: Path, name: str, attack: str) -> None:
    REPLACED[attack](store / name)
    with pytest.raises(VerificationError, match=str(store / name)) as caught:
        TeacherStore(store).verify()
    assert caught.value.exit_code == 5


def test_a_compile_from_a_changed_store_is_refused_and_from_the_store_is_not(
    written: Path, store: Path, tmp_path: Path
) -> None:
    def compile_from(folder: Path) -> None:
        recipe = make_recipe(
            teacher_store=str(folder),
            data=str(written.parent / "series.csv"),
            lookback=48,
            horizon=12,
            student="dlinear",
        )
        api.transform(recipe, stop_after="import")

    compile_from(store)
    _scaled(store / "train/forecast.npy")
    with pytest.raises(VerificationError, match=r"train/forecast\.npy: its numbers are not those"):
        compile_from(store)


def test_an_array_is_checked_where_it_is_opened_and_only_once(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = TeacherStore(store)
    _one_sign(store / "train/forecast.npy")
    with pytest.raises(VerificationError, match="its numbers are not those"):
        opened.forecast("train", [0])
    TeacherStore(store).array("val", "forecast")
    monkeypatch.setattr(
        "tsfmc.compiler.ir.teacher_store.shard_digests", lambda array: pytest.fail("hashed again")
    )
    TeacherStore(store).array("val", "forecast")


def test_the_files_own_header_is_not_believed(store: Path) -> None:
    """A header that says other numbers in another order: what is read is what the record says."""
    expected = np.array(TeacherStore(store).array("train", "forecast"))
    path = store / "train/forecast.npy"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'fortran_order': False", b"'fortran_order': True ", 1))
    np.testing.assert_array_equal(TeacherStore(store).array("train", "forecast"), expected)


FIELDS: dict[str, tuple[str, Any]] = {
    "huge shape": ("shapes.train/forecast", [[10**12, 3, 12], "float32"]),
    "negative shape": ("shapes.train/forecast", [[-1, 3, 12], "float32"]),
    "objects": ("shapes.train/forecast", [[10, 3, 12], "object"]),
    "size": ("files.train/forecast.npy.bytes", -1),
    "no hash": ("files.train/forecast.npy.sha256", ""),
    "another file": ("files", {"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}),
    "counts": ("counts.train", 10**9),
    "a part less": ("counts", {"train": 1}),
    "horizon": ("task.horizon", 13),
    "key": ("key", 3),
    "teacher": ("teacher", {}),
    "levels": ("quantile_levels", "0.5"),
    "states": ("state_shape", [0, 0]),
    "mean": ("state_mean", [1.0]),
    "schema": ("schema", 10**30),
    "unknown": ("more", 1),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_changed_record_is_refused_with_and_without_its_seal(store: Path, name: str) -> None:
    where, value = FIELDS[name]
    record = json.loads((store / "store.json").read_text())
    *path, leaf = _path(where)
    table = record
    for key in path:
        table = table[key]
    table[leaf] = value
    for sealed in (True, False):
        if not sealed:
            record.pop("seal")
        (store / "store.json").write_text(json.dumps(record))
        with pytest.raises((VerificationError, MissingError)) as caught:
            TeacherStore(store).verify()
        assert str(store / "store.json") in caught.value.what and len(caught.value.what) < 600


def _path(where: str) -> list[str]:
    head, _, tail = where.partition(".")
    if head not in ("shapes", "files") or not tail:
        return where.split(".")
    name, dot, leaf = tail.rpartition(".")
    return [head, name, leaf] if dot and leaf in ("bytes", "sha256") else [head, tail]


def test_a_store_from_before_there_were_seals_is_read(store: Path) -> None:
    record = json.loads((store / "store.json").read_text())
    del record["seal"]
    (store / "store.json").write_text(json.dumps(record))
    TeacherStore(store).verify()


@pytest.mark.parametrize("seed", range(3))
def test_mutants_are_refused_in_one_line_or_equal(written: Path, tmp_path: Path, seed: int) -> None:
    """Raw edits of every file of a store: bytes flipped, cut, doubled, and values of the record changed."""
    generator = random.Random(seed)
    expected = _content(written)
    for number in range(MUTANTS // 3):
        store = tmp_path / str(number)
        shutil.copytree(written, store)
        edits = _mutate(store, generator)
        try:
            assert _content(store) == expected, edits
        except TsfmcError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, (edits, str(error))
        shutil.rmtree(store)


def _content(folder: Path) -> list[bytes]:
    """The numbers; what is said of the teacher is the record's alone, and one without a seal may differ."""
    store = TeacherStore(folder).verify()
    return [
        np.ascontiguousarray(store.array(*name.split("/"))).tobytes()  # type: ignore[arg-type]
        for name in sorted(store.record.shapes)
    ]


def _mutate(store: Path, generator: random.Random) -> str:
    files = [
        store / name for name in ("store.json", "train/forecast.npy", "test/forecast.npy", "train/states.npy")
    ]
    path = generator.choice([files[0], *files])
    if path.suffix == ".json" and generator.random() < 0.7:
        record = json.loads(path.read_text())
        record.pop("seal")
        tables = list(_tables(record))
        table = generator.choice(tables)
        key = generator.choice(list(table) if isinstance(table, dict) else list(range(len(table))))
        value = generator.choice([None, -1, 0, 10**20, "x", [], {}, True, 1.5, [[[]]], "../x"])
        table[key] = value
        path.write_text(json.dumps(record))
        return f"{path.name} {key}={value!r}"
    content = bytearray(path.read_bytes())
    place = generator.randrange(len(content))
    kind = generator.choice(["flip", "cut", "insert", "zero"])
    if kind == "flip":
        content[place] ^= 1 << generator.randrange(8)
    elif kind == "cut":
        del content[place:]
    elif kind == "insert":
        content[place:place] = generator.randbytes(8)
    else:
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    path.write_bytes(content)
    return f"{path.name} {kind} at {place}"


def _tables(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tables(inner)
