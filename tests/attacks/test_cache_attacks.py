"""The cache: what was changed in it is not believed; it is computed again, said in one line, and replaced."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from factory import HORIZON, LOOKBACK, write_series
from safetensors.torch import load_file, save_file

from tsfmc.compiler.base.content import cache_root
from tsfmc.compiler.base.sealed import load_tensors, publish, sealed
from tsfmc.compiler.data import load_data
from tsfmc.compiler.driver.cache import PassCache
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit, fingerprint
from tsfmc.compiler.learning.synthetic import synthetic_prior
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.distill import Distill
from tsfmc.passes.record_teacher import RecordTeacher
from tsfmc.passes.weight_horizons import WeightHorizons


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines on stderr since the last call."""

    def lines() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        caplog.clear()
        assert all("\n" not in line for line in found)
        return found

    return lines


Warned = Callable[[], list[str]]


# Labels


def _times_minus_three(folder: Path) -> None:
    array = np.load(folder / "train/forecast.npy", mmap_mode="r+")
    array *= -3
    array.flush()


def _forged_marks(folder: Path) -> None:
    """The marks of the shards say that the changed numbers are right."""
    from tsfmc.compiler.ir.teacher_store import shard_digests

    _times_minus_three(folder)
    for number, digest in enumerate(shard_digests(np.load(folder / "train/forecast.npy"))):
        path = folder / f"shards/train-{number:05d}.json"
        mark = json.loads(path.read_text())
        mark["sha256"]["forecast"] = digest
        path.write_text(json.dumps(mark))


LABELS: dict[str, Callable[[Path], None]] = {
    "times minus three": _times_minus_three,
    "times minus three, marks forged": _forged_marks,
    "truncated record": lambda folder: os.truncate(folder / "store.json", 100),
    "empty record": lambda folder: os.truncate(folder / "store.json", 0),
    "truncated numbers": lambda folder: os.truncate(folder / "val/forecast.npy", 100),
    "no numbers": lambda folder: (folder / "val/forecast.npy").unlink(),
}


@pytest.mark.parametrize("attack", LABELS)
def test_changed_labels_are_computed_again(unit: CompileUnit, warned: Warned, attack: str) -> None:
    def labels() -> torch.Tensor:
        store = RecordTeacher(states=False).run(unit, PassContext()).unit.teacher_store
        assert store is not None
        return store.forecast("train", range(store.counts["train"]))

    expected = labels()
    (folder,) = (cache_root() / "teachers").iterdir()
    LABELS[attack](folder)
    assert torch.equal(labels(), expected)
    (line,) = warned()
    assert str(folder) in line and line.endswith("; computed again")
    assert torch.equal(labels(), expected) and warned() == []


def test_an_interrupted_labelling_does_not_believe_a_changed_shard(unit: CompileUnit) -> None:
    def store() -> torch.Tensor:
        found = RecordTeacher(states=False).run(unit, PassContext()).unit.teacher_store
        assert found is not None
        return found.forecast("train", range(found.counts["train"]))

    expected = store()
    (folder,) = (cache_root() / "teachers").iterdir()
    (folder / "store.json").unlink()
    _times_minus_three(folder)
    assert torch.equal(store(), expected)


# Results of passes


def _flip_signs(folder: Path) -> None:
    path = folder / "student/student.safetensors"
    save_file({name: -tensor for name, tensor in load_file(path).items()}, path)


def _forged_list(folder: Path) -> None:
    """The record lists no file any more, with or without its seal."""
    _flip_signs(folder)
    record = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**record, "files": {}}))


def _resealed_list(folder: Path) -> None:
    _flip_signs(folder)
    record = json.loads((folder / "result.json").read_text())
    del record["seal"]
    (folder / "result.json").write_text(json.dumps(sealed({**record, "files": {}})))


RESULTS: dict[str, Callable[[Path], object]] = {
    "flipped signs": _flip_signs,
    "flipped signs, no files listed": _forged_list,
    "flipped signs, no files listed, sealed": _resealed_list,
    "truncated record": lambda folder: os.truncate(folder / "result.json", 40),
    "deep record": lambda folder: (folder / "result.json").write_text("[" * 100_000),
    "record is a list": lambda folder: (folder / "result.json").write_text("[]"),
    "metrics": lambda folder: (folder / "result.json").write_text(
        (folder / "result.json").read_text().replace('"modified": true', '"modified": false')
    ),
    "truncated weights": lambda folder: os.truncate(folder / "student/student.safetensors", 50),
    "a file more": lambda folder: (folder / "student/more").write_text("x"),
    "no record": lambda folder: (folder / "result.json").unlink(),
}


@pytest.fixture
def built(taught: CompileUnit, tmp_path: Path) -> CompileUnit:
    """A unit with an untrained student."""
    steps = [BuildStudent(kind="dlinear", config={"embedding": 8}), WeightHorizons()]
    return PassManager(steps).run(taught, PassContext(workspace=tmp_path))


@pytest.mark.parametrize("attack", RESULTS)
def test_a_changed_result_is_computed_again(
    built: CompileUnit, tmp_path: Path, warned: Warned, attack: str
) -> None:
    manager = PassManager([Distill(epochs=1)], cache=PassCache(tmp_path / "cache"))
    expected = manager.run(built, PassContext())
    (folder,) = (tmp_path / "cache/passes").iterdir()
    RESULTS[attack](folder)
    again = manager.run(built, PassContext())
    assert not again.record[-1].cached and fingerprint(again.model) == fingerprint(expected.model)
    (line,) = warned()
    assert str(folder) in line and line.endswith("; computed again")
    third = manager.run(built, PassContext())
    assert third.record[-1].cached and warned() == []
    assert fingerprint(third.model) == fingerprint(expected.model)


def test_two_processes_that_publish_at_once_leave_one_whole_result(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tsfmc.compiler.base.sealed import publish, unfinished\n"
        "final = Path(sys.argv[1])\n"
        "for _ in range(60):\n"
        "    partial = unfinished(final); partial.mkdir()\n"
        "    (partial / 'a').write_text('x'); (partial / 'b').write_text('x')\n"
        "    publish(partial, final)\n"
    )
    final = tmp_path / "result"
    running = [subprocess.Popen([sys.executable, "-c", script, str(final)]) for _ in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result"]
    assert sorted(path.name for path in final.iterdir()) == ["a", "b"]


def test_a_folder_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "final").write_text("x")
    (tmp_path / "partial").mkdir()
    publish(tmp_path / "partial", tmp_path / "final")
    assert (tmp_path / "final").is_dir() and not (tmp_path / "partial").exists()


# Tables, sums of synthetic windows


@pytest.mark.parametrize("name", ["table.json", "values.npy", "timestamps.npy"])
@pytest.mark.parametrize("attack", ["truncate", "edit", "absent"])
def test_a_changed_table_is_read_again(tmp_path: Path, warned: Warned, name: str, attack: str) -> None:
    source = write_series(tmp_path / "series.csv", 300)

    def values() -> np.ndarray:
        return np.array(load_data(source, lookback=LOOKBACK, horizon=HORIZON).values)

    expected = values()
    (folder,) = (cache_root() / "data/tables").iterdir()
    path = folder / name
    if attack == "absent":
        path.unlink()
    elif attack == "truncate":
        os.truncate(path, path.stat().st_size // 2)
    else:
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content)
    np.testing.assert_array_equal(values(), expected)
    assert len(warned()) == 1
    np.testing.assert_array_equal(values(), expected)
    assert warned() == []


@pytest.mark.parametrize("attack", ["sign", "truncate", "other key"])
def test_changed_sums_of_synthetic_windows_are_computed_again(
    unit: CompileUnit, warned: Warned, attack: str
) -> None:
    assert unit.teacher is not None

    def gram() -> torch.Tensor:
        assert unit.teacher is not None
        return synthetic_prior(unit.teacher, unit.task, windows=64).gram

    expected = gram()
    (path,) = (cache_root() / "synthetic").iterdir()
    if attack == "truncate":
        os.truncate(path, 300)
    else:
        tensors, facts = load_tensors(path, what="sums", error=AssertionError)  # type: ignore[arg-type]
        if attack == "sign":
            save_file({name: -tensor for name, tensor in tensors.items()}, path)
        else:
            from tsfmc.compiler.base.sealed import save_tensors

            save_tensors(path, {**tensors, "gram": -tensors["gram"]}, {**facts, "key": "0" * 64})
    assert torch.equal(gram(), expected)
    assert len(warned()) == 1
    assert torch.equal(gram(), expected) and warned() == []
