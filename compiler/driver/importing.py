"""The first step: data and teacher, or the teacher's store, enter the unit."""

from __future__ import annotations

from pathlib import Path

from ..base.errors import LicenceError, UsageError
from ..base.progress import Progress
from ..data import SYNTHETIC, Dataset, load_data, synthetic_data
from ..frontends import open_teacher, revision_notes
from ..ir.forecaster import Teacher
from ..ir.passes import PassContext, PassResult, Step
from ..ir.provenance import TeacherInfo
from ..ir.teacher_store import TeacherStore
from ..ir.unit import CompileUnit, Task
from .recipe import Recipe


class Import(Step):
    """Loads the data and the teacher, or opens its store, and applies the licence policy."""

    name = "import"
    summary = "load the data and the teacher, or its store"
    writes = frozenset({"task", "data", "teacher", "teacher_store", "teacher_states"})

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        data = self._data(context.progress)
        teacher, info, store = self._teacher(data)
        moving = () if teacher is None else revision_notes(info)  # a store does not move
        warnings = (*check_licence(self.recipe, info), *moving, *data.notes)
        for warning in warnings:
            context.progress.line(f"warning: {warning}")
        task = Task(unit.task.lookback, unit.task.horizon, data.variates, data.frequency)
        imported = unit.with_(
            task=task, data=data, teacher=teacher, teacher_info=info, teacher_store=store, warnings=warnings
        )
        return PassResult(imported, True)

    def _data(self, progress: Progress) -> Dataset:
        task = self.recipe.task
        if self.recipe.data == SYNTHETIC:
            names = ("value",) if task.variates == "all" else task.variates.split(",")
            return synthetic_data(
                task.step,
                lookback=task.lookback,
                horizon=task.horizon,
                variates=[name.strip() for name in names],
            )
        if task.step is not None:
            raise UsageError(
                f"--step {task.step} with --data {self.recipe.data}", hint="a file says its own step"
            )
        return load_data(
            self.recipe.data,
            lookback=task.lookback,
            horizon=task.horizon,
            variates=task.variates,
            split=task.split,
            missing=task.missing,
            progress=progress,
        )

    def _teacher(self, data: Dataset) -> tuple[Teacher | None, TeacherInfo, TeacherStore | None]:
        recipe = self.recipe
        lookback, horizon = recipe.task.lookback, recipe.task.horizon
        if recipe.teacher_store is not None:
            store = TeacherStore(Path(recipe.teacher_store)).verify()
            store.require(data, lookback, horizon)
            return None, store.info, store
        teacher, info = open_teacher(
            recipe.teacher,
            lookback=lookback,
            horizon=horizon,
            variates=len(data.variates),
            **recipe.teacher_options,
        )
        return teacher, info, None


def empty_unit(recipe: Recipe) -> CompileUnit:
    """The unit before anything is loaded."""
    return CompileUnit(Task(recipe.task.lookback, recipe.task.horizon, ()))


def check_licence(recipe: Recipe, info: TeacherInfo) -> tuple[str, ...]:
    """A warning for weights that may not be used commercially.

    Raises:
        LicenceError: the recipe's policy is ``commercial``.
    """
    if info.commercial:
        return ()
    what = f"the weights of {info.name} are under {info.licence}, which is not known to allow commercial use"
    if recipe.licence_policy == "commercial":
        raise LicenceError(what, hint="choose another teacher, or --licence-policy warn")
    return (f"{what}; what is distilled from them may fall under it",)
