"""Runs the teacher once over every window and keeps its outputs (paper B).

    forecasts (train, val, test), quantiles where it has them, states over the lookback (train)

They lie memory-mapped in a content-addressed store, so a second compile, a killed one and every
ablation of the passes after this one find them.  Further teachers have stores of their own, of forecasts
alone; where a pass has tuned the teacher, so has the teacher as it was loaded, which is one more candidate.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..compiler.base.content import cache_root
from ..compiler.base.errors import MissingError, PassError, VerificationError
from ..compiler.base.parallel import Processes
from ..compiler.base.sealed import warn_damaged
from ..compiler.ir.companions import FIRST, Companion
from ..compiler.ir.forecaster import Teacher
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult, RecipeView
from ..compiler.ir.provenance import TeacherInfo
from ..compiler.ir.teacher_store import TeacherStore
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.labelling import StoreOptions
from ..compiler.learning.labels import teacher_stores
from ..compiler.learning.teacher_store import store_key, write_store


class RecordTeacher(Pass):
    """Adds ``teacher_store`` to the unit, and a store to each companion; what came with one keeps it."""

    name = "record_teacher"
    reads = frozenset({"data", "teacher", "teacher_store", "companions", "tuned"})
    writes = frozenset({"teacher_store", "teacher_states", "companions"})
    needs_teacher = True
    summary = "run the teacher once over every window; keep forecasts, quantiles and states memory-mapped"

    class Options(PassOptions):
        """``states = false`` keeps forecasts only: for pipelines without ``align_temporal``.

        ``state_positions`` bounds disk and training time for point-wise teachers, whose S is the lookback:
        a seeded subset of that many positions is kept, 0 keeps all.  Patch teachers have fewer.
        ``train_windows`` bounds the labelling itself: that many training windows, evenly spread, 0 for all;
        the other windows train by supervision alone.
        ``as_loaded`` also records a tuned teacher as it was loaded, where statistics are gathered of both.
        """

        states: bool = True
        states_dtype: Literal["float16", "float32"] = "float16"
        state_positions: int = Field(default=64, ge=0)
        train_windows: int = Field(default=0, ge=0)
        as_loaded: bool = False

    @classmethod
    def follow(cls, recipe: RecipeView) -> dict[str, Any]:
        return {
            "states": "teacher_states" in recipe.read_later,
            "as_loaded": "statistics" in recipe.written,
        }

    def requires(self, unit: CompileUnit) -> None:
        if unit.teacher is None and unit.teacher_store is None:
            raise PassError("there is neither a teacher nor a teacher store")

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        changes: dict[str, Any] = {}
        if unit.teacher_store is None and unit.teacher is not None and unit.teacher_info is not None:
            options = StoreOptions(
                states=("train",) if self.options.states else (),
                states_dtype=self.options.states_dtype,
                state_positions=self.options.state_positions,
                train_windows=self.options.train_windows,
            )
            changes["teacher_store"] = recorded(unit, unit.teacher, unit.teacher_info, options, context)
        companions = self._companions(unit, context)
        if companions != unit.companions:
            changes["companions"] = companions
        if not changes:
            return PassResult(unit, False, {"store": str(unit.teacher_store)})
        after = unit.with_(**changes)
        windows = sum(sum(store.counts.values()) for store in teacher_stores(after).values())
        return PassResult(after, True, {"windows": windows})

    def _companions(self, unit: CompileUnit, context: PassContext) -> tuple[Companion, ...]:
        """The further teachers with their stores."""
        options = StoreOptions(states=(), train_windows=self.options.train_windows)
        found = []
        for each in unit.companions:
            if each.store is None and each.teacher is not None:
                each = replace(each, store=recorded(unit, each.teacher, each.info, options, context))
            found.append(each)
        loaded = unit.original_teacher
        if self.options.as_loaded and unit.tuned and loaded is not None and unit.teacher_info is not None:
            store = recorded(unit, loaded, unit.teacher_info, options, context)
            found.append(Companion(FIRST, unit.teacher_info, loaded, store))
        return tuple(found)


def recorded(
    unit: CompileUnit, teacher: Teacher, info: TeacherInfo, options: StoreOptions, context: PassContext
) -> TeacherStore:
    """The store of a teacher's outputs on the unit's windows, found or written."""
    task = unit.task
    # The subset of positions has a seed of its own (0), so that students of all seeds share a store.
    key = store_key(teacher, info, unit.data, task.lookback, task.horizon, options)
    folder = cache_root() / "teachers" / key[:24]
    return _kept(folder, key) or write_store(
        folder,
        teacher,
        info,
        unit.data,
        lookback=task.lookback,
        horizon=task.horizon,
        options=options,
        progress=context.progress,
        processes=Processes.current(),
        executor=context.executor,
        replace=True,
    )


def _kept(folder: Path, key: str) -> TeacherStore | None:
    """The store that was written for this key, or None unless it is here, whole and unedited."""
    try:
        store = TeacherStore(folder).verify()
        if store.key != key:
            raise VerificationError(f"{folder}: it holds another store")
    except MissingError:
        return None
    except VerificationError as error:
        warn_damaged(error.what)
        return None
    return store
