"""The teacher store: right values, resumable, never read half-written, equal for any number of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tsfmc.compiler.base.content import cache_root
from tsfmc.compiler.base.errors import DataError, MissingError, UsageError, VerificationError
from tsfmc.compiler.base.parallel import Processes
from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.ir.teacher_store import TeacherStore
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.teacher_store import StoreOptions, write_store


def write(unit: CompileUnit, folder: Path, **options: object) -> TeacherStore:
    assert unit.teacher is not None and unit.teacher_info is not None
    return write_store(
        folder,
        unit.teacher,
        unit.teacher_info,
        unit.data,
        lookback=48,
        horizon=12,
        options=StoreOptions(**options),  # type: ignore[arg-type]
        progress=Silent(),
        processes=Processes(),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_values_are_the_teachers(unit: CompileUnit, tmp_path: Path) -> None:
    store = write(unit, tmp_path / "store", states_dtype="float32")
    chosen = [0, 5, 300, 17]
    past, _ = unit.data.windows("train", 48, 12).batch(chosen)
    assert unit.teacher is not None
    with torch.inference_mode():
        outputs = unit.teacher.outputs(past)
    torch.testing.assert_close(store.forecast("train", chosen), outputs.forecast, rtol=1e-5, atol=1e-6)
    raw = np.load(tmp_path / "store/train/states.npy")
    torch.testing.assert_close(torch.from_numpy(raw[chosen]), outputs.states, rtol=1e-4, atol=1e-5)
    every = store.states("train", range(store.counts["train"]))
    torch.testing.assert_close(every.mean(dim=(0, 1, 2)), torch.zeros(every.shape[-1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(every.std(dim=(0, 1, 2)), torch.ones(every.shape[-1]), atol=1e-2, rtol=0)


def test_a_killed_run_goes_on_and_is_never_read_before(unit: CompileUnit, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write(unit, whole)
    write(unit, killed)
    # What a kill leaves behind: some shards not marked, no store.json.
    (killed / "store.json").unlink()
    (killed / "shards/train-00001.json").unlink()
    block = np.load(killed / "train/forecast.npy", mmap_mode="r+")
    block[256:] = 0
    block.flush()
    with pytest.raises(MissingError, match=r"not a finished teacher store"):
        TeacherStore(killed)
    write(unit, killed)
    assert contents(whole) == contents(killed)


def test_a_subset_of_positions(unit: CompileUnit, tmp_path: Path) -> None:
    full = write(unit, tmp_path / "full")
    subset = write(unit, tmp_path / "subset", state_positions=3)
    assert subset.state_shape == (3, full.state_shape[1])


def test_a_subset_of_training_windows(unit: CompileUnit, tmp_path: Path) -> None:
    """Evenly spread, the same values as in the whole store, and the other parts whole."""
    whole = write(unit, tmp_path / "whole", states_dtype="float32")
    some = write(unit, tmp_path / "some", states_dtype="float32", train_windows=7)
    assert some.counts == {**whole.counts, "train": 7} and some.key != whole.key
    windows = unit.data.windows("train", 48, 12)
    chosen = some.training(windows).chosen.tolist()
    assert chosen[0] == 0 and chosen[-1] == len(windows) - 1
    torch.testing.assert_close(some.forecast("train", range(7)), whole.forecast("train", chosen))
    np.testing.assert_allclose(
        some.array("train", "states"), whole.array("train", "states")[chosen], rtol=1e-4, atol=1e-5
    )
    past, _ = some.training(windows).batch([3])
    torch.testing.assert_close(past, windows.batch([chosen[3]])[0])


def test_without_states(unit: CompileUnit, tmp_path: Path) -> None:
    store = write(unit, tmp_path / "store", states=())
    assert store.state_shape == (0, 0)
    assert not (tmp_path / "store/train/states.npy").exists()


def test_states_that_overflow_half_precision_are_refused(unit: CompileUnit, tmp_path: Path) -> None:
    assert unit.teacher is not None
    original = unit.teacher.outputs

    def loud(past: torch.Tensor, *, states: bool = True):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        outputs = original(past, states=states)
        return outputs if outputs.states is None else replace(outputs, states=outputs.states * 1e6)

    unit.teacher.outputs = loud  # type: ignore[method-assign]
    with pytest.raises(VerificationError, match=r"states are not finite in float16.*states_dtype=float32"):
        write(unit, tmp_path / "store")
    assert write(unit, tmp_path / "wide", states_dtype="float32").state_shape[0] > 0


def test_a_folder_of_something_else_is_refused(unit: CompileUnit, tmp_path: Path) -> None:
    write(unit, tmp_path / "store")
    with pytest.raises(DataError, match="another teacher, data set or task"):
        write(unit, tmp_path / "store", state_positions=2)


def test_a_truncated_file_is_named(unit: CompileUnit, tmp_path: Path) -> None:
    write(unit, tmp_path / "store")
    path = tmp_path / "store/train/forecast.npy"
    os.truncate(path, 100)
    with pytest.raises(VerificationError, match=r"train/forecast\.npy: missing or not"):
        TeacherStore(tmp_path / "store")


def test_a_full_disk_is_said_before_anything_is_computed(
    unit: CompileUnit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tiny:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Tiny)
    with pytest.raises(DataError, match=r"the store needs .* MB, the disk has 0 MB free"):
        write(unit, tmp_path / "store")


def test_a_store_of_another_task_is_refused(unit: CompileUnit, tmp_path: Path) -> None:
    store = write(unit, tmp_path / "store")
    store.require(unit.data, 48, 12)
    with pytest.raises(UsageError, match="the teacher store has horizon 12, this compile has 6"):
        store.require(unit.data, 48, 6)


def test_two_processes_give_the_same_store(unit: CompileUnit, tmp_path: Path) -> None:
    """``tsfmc teach`` on two CPU processes, against one process, file by file.

    ``accelerate launch`` starts several processes only where there are accelerators, by the launcher that is
    called here directly.
    """
    arguments = [
        "teach",
        "--teacher",
        "teacher",
        "--data",
        "series.csv",
        "--lookback",
        "48",
        "--horizon",
        "12",
    ]
    arguments += ["--set", "measure.duration_s=0.2"]
    environment = {
        **os.environ,
        "TSFMC_CACHE": str(cache_root()),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    for command, folder in (([*launch, "tsfmc"], "two"), ([sys.executable, "-m", "tsfmc"], "one")):
        done = subprocess.run(
            [*command, *arguments, "-o", folder],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.split() == [folder]
        assert ("2 processes" in done.stderr) == (folder == "two")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    # The latency record is a measurement, everything else is a computation.
    assert [name for name in one if one[name] != two[name] and name != "store.json"] == []
    records = [json.loads(found["store.json"]) for found in (one, two)]
    for record in records:
        del record["latency"]
    assert records[0] == records[1]
