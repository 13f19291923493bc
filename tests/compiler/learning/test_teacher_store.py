"""The teacher store: right values, resumable, never read half-written, equal for any number of processes."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_teachers import tiny_teacher

from tsfmc.compiler.base.content import cache_root
from tsfmc.compiler.base.errors import DataError, MissingError, UsageError, VerificationError
from tsfmc.compiler.base.parallel import Processes
from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.data.splits import Splits
from tsfmc.compiler.ir.forecaster import TeacherOutputs
from tsfmc.compiler.ir.teacher_store import SHARD_WINDOWS, TeacherStore
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.labelling import StoreOptions
from tsfmc.compiler.learning.teacher_store import store_key, write_store


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


def counted(unit: CompileUnit, until: int | None = None) -> list[int]:
    """Windows of every evaluation of the teacher from now on; the one after ``until`` is a kill."""
    assert unit.teacher is not None
    seen: list[int] = []
    outputs = type(unit.teacher).outputs

    def noted(past: torch.Tensor, *, states: bool = True) -> TeacherOutputs:
        if until is not None and len(seen) == until:
            raise KeyboardInterrupt
        seen.append(len(past))
        assert unit.teacher is not None
        return outputs(unit.teacher, past, states=states)

    unit.teacher.outputs = noted  # type: ignore[method-assign]
    return seen


def test_a_resumed_run_asks_the_teacher_for_what_is_missing_alone(unit: CompileUnit, tmp_path: Path) -> None:
    """Killed in its second shard of training: the first one is never computed again."""
    whole = write(unit, tmp_path / "whole", states=())
    sizes = whole.counts
    first = SHARD_WINDOWS // 32
    counted(unit, until=first + 3)
    with pytest.raises(KeyboardInterrupt):
        write(unit, tmp_path / "killed", states=())
    marks = sorted(path.name for path in (tmp_path / "killed/shards").iterdir())
    assert marks == ["train-00000.json"]
    seen = counted(unit)
    write(unit, tmp_path / "killed", states=())
    assert sum(seen) == sum(sizes.values()) - SHARD_WINDOWS
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")
    # With every shard finished, the teacher is not run at all.
    seen = counted(unit)
    (tmp_path / "killed/store.json").unlink()
    write(unit, tmp_path / "killed", states=())
    assert seen == [] and contents(tmp_path / "whole") == contents(tmp_path / "killed")


def test_every_window_once_in_batches_and_states_only_where_kept(unit: CompileUnit, tmp_path: Path) -> None:
    seen = counted(unit)
    store = write(unit, tmp_path / "store", states=(), batch_windows=100)
    assert max(seen) == 100 and sum(seen) == sum(store.counts.values())
    assert store.counts == {part: len(unit.data.windows(part, 48, 12)) for part in ("train", "val", "test")}


def test_processes_share_the_work(unit: CompileUnit, tmp_path: Path) -> None:
    """Each takes every other shard, whichever comes first; the last to come here is the one that finishes."""
    assert unit.teacher is not None and unit.teacher_info is not None

    class Alone(Processes):
        """Does not wait for the others, so that they can come one after the other in one process."""

        def wait(self) -> None:
            pass

    def run(rank: int, world: int = 2) -> list[int]:
        seen = counted(unit)
        write_store(
            tmp_path / "store",
            unit.teacher,  # type: ignore[arg-type]
            unit.teacher_info,  # type: ignore[arg-type]
            unit.data,
            lookback=48,
            horizon=12,
            options=StoreOptions(states=()),
            progress=Silent(),
            processes=Alone(rank, world),
        )
        return seen

    with pytest.raises(VerificationError, match="no such mark of a shard"):
        run(0)  # the shards of the other are not there to be summed
    with pytest.raises(MissingError):
        run(1)  # never writes store.json
    assert run(0) == []
    whole = write(unit, tmp_path / "whole", states=())
    assert contents(whole.folder) == contents(tmp_path / "store")


def test_quantiles_are_kept_where_the_teacher_has_them(unit: CompileUnit, tmp_path: Path) -> None:
    teacher = tiny_teacher("chronos-bolt", variates=3, horizon=12)
    bolt = write_store(
        tmp_path / "store",
        teacher,
        unit.teacher_info,  # type: ignore[arg-type]
        unit.data,
        lookback=teacher.lookback,
        horizon=12,
        options=StoreOptions(states=(), train_windows=10),
        progress=Silent(),
        processes=Processes(),
    )
    assert bolt.quantile_levels == teacher.quantile_levels and len(bolt.quantile_levels) == 3
    chosen = bolt.training(unit.data.windows("train", teacher.lookback, 12)).batch([0, 9])[0]
    with torch.inference_mode():
        expected = teacher.quantiles(chosen)
    found = torch.from_numpy(bolt.array("train", "quantiles")[[0, 9]])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert bolt.array("test", "quantiles").shape == (bolt.counts["test"], 3, 12, 3)
    with pytest.raises(MissingError, match="no quantiles for train"):
        write(unit, tmp_path / "ttm", states=()).array("train", "quantiles")


def test_states_are_scaled_by_their_mean_and_deviation(unit: CompileUnit, tmp_path: Path) -> None:
    store = write(unit, tmp_path / "store", states_dtype="float32")
    raw = store.array("train", "states").astype(np.float64)
    np.testing.assert_allclose(store.record.state_mean, raw.mean(axis=(0, 1, 2)), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(store.record.state_std, raw.std(axis=(0, 1, 2)), rtol=1e-5, atol=1e-7)
    assert list(store.state_shape) == list(raw.shape[2:])


def test_a_subset_of_positions_is_seeded_and_in_order(unit: CompileUnit, tmp_path: Path) -> None:
    full = write(unit, tmp_path / "full", states_dtype="float32").array("train", "states")
    subset = write(unit, tmp_path / "subset", states_dtype="float32", state_positions=3)
    kept = subset.array("train", "states")
    places = [int(np.abs(full - kept[:, :, i : i + 1]).mean(axis=(0, 1, 3)).argmin()) for i in range(3)]
    assert places == sorted(set(places))
    np.testing.assert_allclose(full[:, :, places], kept, rtol=1e-4, atol=1e-5)
    other = write(unit, tmp_path / "other", states_dtype="float32", state_positions=3, seed=5)
    assert not np.allclose(other.array("train", "states"), kept, rtol=1e-2)
    every = write(unit, tmp_path / "every", states_dtype="float32", state_positions=999)
    assert every.state_shape == (full.shape[2], full.shape[3])


def test_the_key_is_of_everything_that_the_outputs_depend_on(unit: CompileUnit) -> None:
    assert unit.teacher is not None and unit.teacher_info is not None
    arguments = (unit.teacher, unit.teacher_info, unit.data, 48, 12, StoreOptions())
    same = store_key(*arguments)
    assert same == store_key(*arguments)
    other_data = replace(unit.data, sha256="1" * 64)
    other_split = replace(unit.data, splits=Splits(400, 100, 200))
    variants = [
        (0, copy.deepcopy(unit.teacher)),
        (1, replace(unit.teacher_info, name="another")),
        (2, other_data),
        (2, other_split),
        (3, 47),
        (4, 11),
        *((5, StoreOptions(**options)) for options in ({"states": ()}, {"batch_windows": 16}, {"seed": 1})),
        *((5, StoreOptions(**options)) for options in ({"train_windows": 5}, {"state_positions": 5})),
        (5, StoreOptions(states_dtype="float32")),
    ]
    with torch.no_grad():
        next(variants[0][1].parameters()).add_(1e-3)
    keys = {store_key(*(*arguments[:place], value, *arguments[place + 1 :])) for place, value in variants}  # type: ignore[arg-type]
    assert len(keys) == len(variants) and same not in keys


def test_forecasts_that_are_not_finite_are_refused(unit: CompileUnit, tmp_path: Path) -> None:
    assert unit.teacher is not None
    with torch.no_grad():
        next(unit.teacher.parameters()).fill_(torch.nan)
    with pytest.raises(
        VerificationError, match=r"train windows 0\.\.255: the teacher's forecast are not finite"
    ):
        write(unit, tmp_path / "store", states=())
    assert not (tmp_path / "store/store.json").exists()


def test_a_full_disk_shows_before_the_work(
    unit: CompileUnit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    needed = sum(len(unit.data.windows(part, 48, 12)) for part in ("train", "val", "test")) * 3 * 12 * 4  # type: ignore[arg-type]

    def disk(free: int) -> None:
        fields = list(real)
        fields[0], fields[1], fields[4] = 1, 1, free
        monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))

    seen = counted(unit)
    disk(needed - 1)
    with pytest.raises(DataError, match=r"the store needs 0 MB, the disk has 0 MB free.*train_windows"):
        write(unit, tmp_path / "store", states=())
    assert not seen
    disk(needed)
    assert write(unit, tmp_path / "store", states=()).key


def test_files_are_as_long_as_their_arrays(unit: CompileUnit, tmp_path: Path) -> None:
    store = write(unit, tmp_path / "store", states=())
    for part, count in store.counts.items():
        array = np.load(tmp_path / "store" / part / "forecast.npy", mmap_mode="r")
        assert array.shape == (count, 3, 12) and array.dtype == np.float32
        assert (tmp_path / "store" / part / "forecast.npy").stat().st_size == array.offset + array.nbytes


def test_an_array_that_cannot_be_reserved_is_not_left_behind(
    unit: CompileUnit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"cannot reserve forecast\.npy: No space left on device"):
        write(unit, tmp_path / "store", states=())
    assert not list((tmp_path / "store").rglob("*.npy"))


def test_latency_is_measured_at_the_end_and_kept(unit: CompileUnit, tmp_path: Path) -> None:
    assert unit.teacher is not None and unit.teacher_info is not None
    seen = counted(unit)
    measured: list[int] = []

    def latency() -> dict[str, float]:
        measured.append(len(seen))
        return {"median_us": 5.0}

    store = write_store(
        tmp_path / "store",
        unit.teacher,
        unit.teacher_info,
        unit.data,
        lookback=48,
        horizon=12,
        options=StoreOptions(states=()),
        progress=Silent(),
        processes=Processes(),
        measure_latency=latency,
    )
    assert store.latency == {"median_us": 5.0} and measured == [len(seen)]
    assert write(unit, tmp_path / "without", states=()).latency is None
    assert store.info == unit.teacher_info


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
        del record["latency"], record["seal"]
    assert records[0] == records[1]
