"""The first step: data and teacher, or the teacher's store, enter the unit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..base.errors import LicenceError, UsageError
from ..base.progress import Progress
from ..data import SYNTHETIC, Dataset, load_data, load_panel, synthetic_data
from ..frontends import Licence, open_teacher, published_licence, revision_notes
from ..ir.forecaster import Teacher
from ..ir.passes import PassContext, PassResult, Step
from ..ir.provenance import TeacherInfo
from ..ir.teacher_store import TeacherStore
from ..ir.unit import CompileUnit, Task
from .recipe import Recipe

ANOTHER_TEACHER = "choose another teacher, or --licence-policy warn"


class Import(Step):
    """Loads the data and the teacher, or opens its store, and applies the licence policy."""

    name = "import"
    summary = "load the data and the teacher, or its store"
    writes = frozenset({"task", "data", "teacher", "teacher_store", "teacher_states"})

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        known = licence_before_download(self.recipe)
        data = load_recipe_data(self.recipe, context.progress)
        teacher, info, store = self._teacher(data)
        if known is not None:
            info = replace(info, licence=known.name, commercial=known.commercial)
        moving = () if teacher is None else revision_notes(info)  # a store does not move
        warnings = (*check_licence(self.recipe, info), *moving, *data.notes)
        for warning in warnings:
            context.progress.line(f"warning: {warning}")
        task = Task(unit.task.lookback, unit.task.horizon, data.variates, data.frequency)
        imported = unit.with_(
            task=task, data=data, teacher=teacher, teacher_info=info, teacher_store=store, warnings=warnings
        )
        return PassResult(imported, True)

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


def load_recipe_data(recipe: Recipe, progress: Progress) -> Dataset:
    """The data that a recipe names, read and checked.

    Raises:
        TsfmcError: see ``load_data`` and ``synthetic_data``.
    """
    task = recipe.task
    if recipe.data == SYNTHETIC:
        names = ("value",) if task.variates == "all" else task.variates.split(",")
        return synthetic_data(
            task.step,
            lookback=task.lookback,
            horizon=task.horizon,
            variates=[name.strip() for name in names],
        )
    if task.step is not None:
        raise UsageError(f"--step {task.step} with --data {recipe.data}", hint="a file says its own step")
    if task.id_column is not None:
        return load_panel(
            recipe.data,
            lookback=task.lookback,
            horizon=task.horizon,
            id_column=task.id_column,
            time_column=task.time_column,
            value_columns=[name.strip() for name in (task.value_columns or "").split(",") if name.strip()],
            split=task.split,
            missing=task.missing,
            max_filled=task.max_filled,
            holdout_items=task.holdout_items,
            seed=recipe.seed,
            progress=progress,
        )
    return load_data(
        recipe.data,
        lookback=task.lookback,
        horizon=task.horizon,
        variates=task.variates,
        split=task.split,
        missing=task.missing,
        max_filled=task.max_filled,
        progress=progress,
    )


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
    what = _not_commercial(info.name, info.licence)
    if recipe.licence_policy == "commercial":
        raise LicenceError(what, hint=ANOTHER_TEACHER)
    return (f"{what}; what is distilled from them may fall under it",)


def licence_before_download(recipe: Recipe) -> Licence | None:
    """Applies the policy ``commercial`` before anything is downloaded, where a card knows the licence.

    Returns:
        What the card on the hub says of a checkpoint that tsfmc has no card for; None where the checkpoint
        itself says it, or nobody asked.

    Raises:
        LicenceError: the licence is not known to allow commercial use.
    """
    if recipe.licence_policy != "commercial" or recipe.teacher_store is not None:
        return None
    known = published_licence(recipe.teacher)
    if known is None:
        return None
    if not known.commercial:
        raise LicenceError(_not_commercial(recipe.teacher, known.name), hint=ANOTHER_TEACHER)
    return known if known.from_hub else None


def _not_commercial(teacher: str, licence: str) -> str:
    return f"the weights of {teacher} are under {licence}, which is not known to allow commercial use"
