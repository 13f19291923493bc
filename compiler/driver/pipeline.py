"""The straight road: a recipe as one list of steps over one unit.

import -> passes -> train_baseline -> evaluate_references -> export
       -> for every target: its rewrites -> lower -> check -> measure -> pack
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ...passes import PASSES
from ...targets import TARGETS
from ..base.content import cache_root
from ..base.errors import unknown_name
from ..base.executors import Executor, Local
from ..base.progress import Progress
from ..ir.passes import Pass, PassContext, RecipeView, Step
from ..ir.unit import CompileUnit
from ..students import check_student, check_values
from .accuracy import EvaluateReferences
from .baseline import TrainBaseline
from .budgets import check_judgeable
from .cache import PassCache
from .costing import CostInstrument
from .fleets import JudgeHeldOut
from .importing import Import, empty_unit
from .instruments import DumpInstrument, Instrument, ReportInstrument
from .jobs import target_job
from .keeping import KeepStatistics
from .latency import TeacherForms
from .manager import PassManager
from .recipe import Recipe, check_inputs, check_quantiles, check_refit, check_teachers, pass_options
from .stages import Export, target_stages
from .timing import TargetClock


def build_steps(recipe: Recipe, *, out: Path, cache: bool = True) -> list[Step]:
    """Everything that a compile does, in order.

    Raises:
        UsageError: an unknown pass, student or target.
        RecipeError: options that a pass or a target does not have, a budget that nothing could judge.
    """
    check_judgeable(recipe)
    return [*learning_steps(recipe, cache=cache), *target_steps(recipe, out)]


def learning_steps(recipe: Recipe, *, cache: bool = True) -> list[Step]:
    """Import, passes and baseline: what every process of a run takes part in."""
    passes = build_passes(recipe)
    steps: list[Step] = [Import(recipe), *passes]
    if recipe.baseline:
        steps.append(
            TrainBaseline(passes, seed=recipe.seed, cache=find_cache(cache), check_purity=purity_is_checked())
        )
    return steps


def target_steps(recipe: Recipe, out: Path) -> list[Step]:
    """From a unit with its model to artifacts ``out/<target>/``."""
    for kind in recipe.target_options:
        TARGETS[kind]
    steps: list[Step] = [KeepStatistics(recipe, out)] if recipe.statistics else []
    steps += [JudgeHeldOut()] if recipe.task.id_column is not None else []
    steps += [EvaluateReferences(), Export()]
    teacher = TeacherForms()
    for kind in recipe.targets:
        steps += target_stages(replace(target_job(recipe, kind, out / kind), teacher=teacher))
    return steps


def build_passes(recipe: Recipe) -> list[Pass]:
    """The passes of a recipe with their options.

    Raises:
        UsageError: an unknown pass or student.
        RecipeError: options that the pass does not have.
    """
    if recipe.student.kind != "none":
        kind, config = recipe.student.kind, recipe.student.config
        check_student(kind, config)
        check_values(kind, recipe.task.lookback, recipe.task.horizon, config)
    kinds: dict[str, type[Pass]] = {name: PASSES[name] for name in recipe.pipeline}
    read_later = frozenset().union(*(kind.reads for kind in kinds.values()))
    written = frozenset().union(*(kind.writes for kind in kinds.values()))
    view = RecipeView(
        recipe.student.model_dump(),
        read_later,
        recipe.refit,
        written,
        recipe.task.quantiles,
        recipe.task.calendar,
        (*recipe.task.known, *recipe.task.past),
    )
    passes = []
    for name in recipe.pipeline:
        follow = kinds[name].follow(view)
        if follow is not None:
            passes.append(kinds[name](**pass_options(recipe, name, kinds[name].Options, follow)))
    check_refit(recipe, passes)
    check_quantiles(recipe, passes)
    check_inputs(recipe, passes)
    check_teachers(recipe, passes)
    return passes


def run_steps(
    recipe: Recipe,
    steps: Sequence[Step],
    *,
    unit: CompileUnit | None = None,
    cache: bool = True,
    dump: Path = Path("dump"),
    dump_after: Sequence[str] = (),
    stop_after: str | None = None,
    progress: Progress,
    executor: Executor | None = None,
) -> CompileUnit:
    """The unit after ``steps``; whatever was left unfinished on disk is removed, also after an error.

    Args:
        unit: where to start; by default before the import.
        dump: folder for the texts of ``dump_after``.
        dump_after, stop_after: names that ``check_names`` has seen.
        executor: where tasks run; by default here.
    """
    executor = executor or Local()
    instruments: list[Instrument] = [ReportInstrument(progress)]
    if any("teacher" in step.writes for step in steps if isinstance(step, Pass)):
        instruments.append(CostInstrument(threads=recipe.threads, progress=progress))
    if dump_after:
        instruments.append(DumpInstrument(dump, dump_after))
    manager = PassManager(
        steps,
        instruments,
        cache=find_cache(cache),
        stop_after=stop_after,
        check_purity=purity_is_checked(),
    )
    with tempfile.TemporaryDirectory(prefix="tsfmc-") as workspace, ExitStack() as cleanup:
        context = PassContext(
            recipe.seed, Path(workspace), progress, cleanup, TargetClock(recipe, executor), executor
        )
        return manager.run(unit or empty_unit(recipe), context)


def check_names(steps: Sequence[Step], stop_after: str | None = None, dump_after: Sequence[str] = ()) -> None:
    """Raises ``UsageError`` for a name that no step has."""
    names = [step.name for step in steps]
    for name in (*([stop_after] if stop_after else []), *dump_after):
        if name not in (*names, "all"):
            raise unknown_name("step of this pipeline", name, names)


def find_cache(wanted: bool) -> PassCache | None:
    """The user's cache, unless it is not wanted."""
    return PassCache(cache_root()) if wanted else None


def purity_is_checked() -> bool:
    """Whether weights are hashed before and after every step; tests ask for it."""
    return "TSFMC_CHECK_PURITY" in os.environ
