"""record_teacher: the teacher runs once, its outputs are found again, and a store that came is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tsfmc.compiler.base.content import cache_root
from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.ir.forecaster import Teacher
from tsfmc.compiler.ir.passes import PassContext, RecipeView
from tsfmc.compiler.ir.teacher_store import TeacherStore
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.passes.record_teacher import RecordTeacher


def counted(teacher: Teacher) -> list[int]:
    """The windows of every evaluation from now on."""
    seen: list[int] = []
    outputs = teacher.outputs

    def noted(past: torch.Tensor, *, states: bool = True) -> Any:
        seen.append(len(past))
        return outputs(past, states=states)

    teacher.outputs = noted  # type: ignore[method-assign]
    return seen


def record(unit: CompileUnit, **options: Any) -> TeacherStore:
    step = RecordTeacher(**options)
    step.requires(unit)
    store = step.run(unit, PassContext()).unit.teacher_store
    assert store is not None
    return store


def test_every_window_of_every_part_once(unit: CompileUnit) -> None:
    assert unit.teacher is not None
    seen = counted(unit.teacher)
    result = RecordTeacher(states=False).run(unit, PassContext())
    store = result.unit.teacher_store
    assert store is not None and result.modified
    sizes = {part: len(unit.data.windows(part, 48, 12)) for part in ("train", "val", "test")}  # type: ignore[arg-type]
    assert store.counts == sizes and result.metrics == {"windows": sum(sizes.values())}
    assert sum(seen) == sum(sizes.values())
    for part in ("train", "val", "test"):
        past, _ = unit.data.windows(part, 48, 12).batch([0, 7])  # type: ignore[arg-type]
        with torch.inference_mode():
            torch.testing.assert_close(store.forecast(part, [0, 7]), unit.teacher(past))  # type: ignore[arg-type]


def test_a_second_compile_does_not_run_the_teacher(unit: CompileUnit) -> None:
    first = record(unit)
    assert unit.teacher is not None
    seen = counted(unit.teacher)
    assert record(unit).folder == first.folder and not seen
    assert first.folder.is_relative_to(cache_root() / "teachers")


def test_other_options_or_weights_are_another_store(unit: CompileUnit) -> None:
    stores = {
        record(unit, **options).folder
        for options in (
            {},
            {"states": False},
            {"states_dtype": "float32"},
            {"state_positions": 2},
            {"train_windows": 9},
        )
    }
    assert unit.teacher is not None
    with torch.no_grad():
        next(unit.teacher.parameters()).add_(1e-3)
    stores.add(record(unit).folder)
    assert len(stores) == 6


def test_options_reach_the_store(unit: CompileUnit) -> None:
    assert record(unit).state_shape[0] > 2
    assert record(unit, state_positions=2).state_shape[0] == 2
    assert record(unit, states=False).state_shape == (0, 0)
    assert record(unit, train_windows=9).counts["train"] == 9
    assert record(unit, states_dtype="float32").array("train", "states").dtype == "float32"
    assert record(unit).array("train", "states").dtype == "float16"


def test_defaults() -> None:
    """What a store costs in labelling and on disk when nothing is said."""
    assert RecordTeacher().config() == {
        "states": True,
        "states_dtype": "float16",
        "state_positions": 64,
        "train_windows": 0,
        "as_loaded": False,
    }


def test_what_is_kept_follows_from_who_reads_it() -> None:
    """States for whoever reads them; a tuned teacher as it was loaded where both are to be summed."""
    later: Any = frozenset({"data", "teacher_states"})
    gathered: Any = frozenset({"statistics"})
    assert RecordTeacher.follow(RecipeView({}, later)) == {"states": True, "as_loaded": False}
    assert RecordTeacher.follow(RecipeView({}, later - {"teacher_states"}, written=gathered)) == {
        "states": False,
        "as_loaded": True,
    }


def test_a_store_that_came_is_kept(unit: CompileUnit, taught: CompileUnit) -> None:
    for given in (taught, taught.with_(teacher=None)):
        RecordTeacher().requires(given)
        result = RecordTeacher().run(given, PassContext())
        assert result.unit is given and not result.modified
        assert result.metrics == {"store": str(taught.teacher_store)}


def test_neither_teacher_nor_store(unit: CompileUnit, tmp_path: Path) -> None:
    with pytest.raises(PassError, match="neither a teacher nor a teacher store"):
        RecordTeacher().requires(unit.with_(teacher=None))
