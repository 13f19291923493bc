"""The first step: data and teachers, or the stores of their outputs, enter the unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..base.errors import LicenceError, TsfmcError, UsageError
from ..base.progress import Progress
from ..data import SYNTHETIC, Dataset, load_data, load_panel, synthetic_data
from ..frontends import Licence, open_teacher, published_licence, revision_notes
from ..ir.companions import FIRST, TUNED, Companion, companion_names
from ..ir.forecaster import Teacher
from ..ir.passes import PassContext, PassResult, Step
from ..ir.provenance import TeacherInfo
from ..ir.teacher_store import TeacherStore
from ..ir.unit import CompileUnit, Task
from .recipe import Recipe, split_names

RESERVED = (FIRST, TUNED, "truth", "states")
"""Targets of statistics that are no further teacher."""
ANOTHER_TEACHER = "choose another teacher, or --licence-policy warn"


@dataclass(frozen=True)
class Opened:
    """A teacher as a recipe names it: the module, or the store of its outputs."""

    named: str
    info: TeacherInfo
    teacher: Teacher | None
    store: TeacherStore | None
    options: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        """What two teachers that forecast alike have in common."""
        return self.info.family, self.info.sha256, self.options


class Import(Step):
    """Loads the data and the teachers, or opens their stores, and applies the licence policy to each."""

    name = "import"
    summary = "load the data and the teachers, or their stores"
    writes = frozenset({"task", "data", "teacher", "teacher_store", "teacher_states", "companions"})

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        licences = licences_before_download(self.recipe)
        data = load_recipe_data(self.recipe, context.progress)
        teachers = [self._open(name, data, licences.get(name)) for name in teacher_names(self.recipe)]
        refuse_equal(teachers)
        first, *others = teachers
        notes: list[str] = []
        for opened in teachers:
            notes += check_licence(self.recipe, opened.info)
            notes += () if opened.teacher is None else revision_notes(opened.info)  # a store does not move
        warnings = (*notes, *data.notes)
        for sentence in data.filled.sentences():
            context.progress.line(sentence)
        for warning in warnings:
            context.progress.line(f"warning: {warning}")
        names = companion_names([opened.info for opened in others], RESERVED)
        imported = unit.with_(
            task=replace(unit.task, variates=data.variates, frequency=data.frequency),
            data=data,
            teacher=first.teacher,
            teacher_info=first.info,
            teacher_store=first.store,
            companions=tuple(
                Companion(name, opened.info, opened.teacher, opened.store)
                for name, opened in zip(names, others, strict=True)
            ),
            warnings=warnings,
        )
        return PassResult(imported, True)

    def _open(self, name: str, data: Dataset, licence: Licence | None) -> Opened:
        try:
            opened = self._opened(name, data)
        except TsfmcError as error:
            if len(self.recipe.teacher) > 1 and name not in error.what:
                error.what = f"teacher {name}: {error.what}"
                error.args = (error.what,)
            raise
        if licence is None:
            return opened
        info = replace(opened.info, licence=licence.name, commercial=licence.commercial)
        return replace(opened, info=info)

    def _opened(self, name: str, data: Dataset) -> Opened:
        lookback, horizon = self.recipe.task.lookback, self.recipe.task.horizon
        if name == self.recipe.teacher_store or is_store(name):
            store = TeacherStore(Path(name)).verify()
            store.require(data, lookback, horizon)
            return Opened(name, store.info, None, store)
        options = self.recipe.options_of(name)
        teacher, info = open_teacher(
            name, lookback=lookback, horizon=horizon, variates=len(data.variates), **options
        )
        return Opened(name, info, teacher, None, str(sorted(options.items())) if options else "")


def teacher_names(recipe: Recipe) -> tuple[str, ...]:
    """What to open for a recipe: its teachers, or the store that stands for the one it names."""
    return recipe.teacher if recipe.teacher_store is None else (recipe.teacher_store,)


def is_store(name: str) -> bool:
    """Whether a teacher is named by the folder of its stored outputs."""
    return any((Path(name) / file).is_file() for file in ("store.json", "plan.json"))


def refuse_equal(teachers: Sequence[Opened]) -> None:
    """Raises ``UsageError`` for a teacher that is there twice: mixed with itself it is what it was."""
    seen: dict[tuple[str, str, str], str] = {}
    for opened in teachers:
        if opened.identity in seen:
            raise UsageError(
                f"teachers {seen[opened.identity]} and {opened.named} have the same weights "
                f"(sha256 {opened.info.sha256[:16]})",
                hint="name each teacher once",
            )
        seen[opened.identity] = opened.named


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
            value_columns=split_names(task.value_columns or ""),
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
        duplicates=task.duplicates,
        sort=task.sort,
        zone=task.zone,
        csv=recipe.data_format.dialect,
        max_filled=task.max_filled,
        known=task.known,
        past=task.past,
        progress=progress,
    )


def empty_unit(recipe: Recipe) -> CompileUnit:
    """The unit before anything is loaded."""
    task = recipe.task
    return CompileUnit(Task(task.lookback, task.horizon, (), quantile_levels=task.quantiles))


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


def licences_before_download(recipe: Recipe) -> dict[str, Licence]:
    """Applies the policy ``commercial`` before anything is downloaded, where a card knows the licence.

    Returns:
        By teacher what the card on the hub says of a checkpoint that tsfmc has no card for; nothing where
        the checkpoint itself says it, or nobody asked.

    Raises:
        LicenceError: a licence is not known to allow commercial use.
    """
    if recipe.licence_policy != "commercial" or recipe.teacher_store is not None:
        return {}
    found: dict[str, Licence] = {}
    for name in recipe.teacher:
        known = published_licence(name)
        if known is None:
            continue
        if not known.commercial:
            raise LicenceError(_not_commercial(name, known.name), hint=ANOTHER_TEACHER)
        if known.from_hub:
            found[name] = known
    return found


def _not_commercial(teacher: str, licence: str) -> str:
    return f"the weights of {teacher} are under {licence}, which is not known to allow commercial use"
