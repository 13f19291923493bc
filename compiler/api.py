"""What the command line calls, and what Python users call: the same verbs.

compile   teacher + data + recipe -> artifacts
teach     teacher + data -> teacher store
bench     artifacts -> latency, against a teacher or each other
load      artifact -> a forecaster with ``forecast(past)``
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base.content import cache_root
from .base.errors import LicenceError, UsageError, unknown_name
from .base.parallel import Processes
from .base.progress import Progress, Silent
from .driver.budgets import check_budgets
from .driver.cache import PassCache
from .driver.costing import CostInstrument
from .driver.instruments import DumpInstrument, Instrument, ReportInstrument
from .driver.manager import PassManager
from .driver.recipe import Recipe, check_refit, resolve
from .ir.passes import Pass, PassContext, RecipeView
from .ir.unit import CompileUnit, PassRecord, Task

if TYPE_CHECKING:
    from ..targets.artifact.device.forecaster import Forecaster as ArtifactForecaster
    from .driver.bench import Report
    from .ir.provenance import TeacherInfo
    from .ir.teacher_store import TeacherStore


@dataclass(frozen=True)
class Source:
    """What enters a compile: the data, the teacher or its stored outputs, and the task they share."""

    unit: CompileUnit
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CompileResult:
    """What a compile left behind.

    Attributes:
        artifacts: target -> artifact directory.
        recipe_lock: the resolved recipe, or None after ``stop_after``.
        manifests: target -> its manifest.
        records: what each pass did.
        warnings: one line each, such as a non-commercial licence.
        teacher: checkpoint of the teacher where passes have changed it (pruned, fine-tuned), else None.
    """

    artifacts: Mapping[str, Path]
    recipe_lock: Path | None
    manifests: Mapping[str, Mapping[str, Any]]
    records: tuple[PassRecord, ...]
    warnings: tuple[str, ...] = field(default_factory=tuple)
    teacher: Path | None = None


def make_recipe(*, recipe: Path | str | None = None, set: Iterable[str] = (), **named: Any) -> Recipe:
    """The resolved recipe of a call; ``named`` are dotted paths with ``__`` for the dot, None left out."""
    paths = {name.replace("__", "."): value for name, value in named.items()}
    return resolve(file=Path(recipe) if recipe else None, named=paths, settings=set)


def compile(
    teacher: str | Path | None = None,
    data: str | Path | None = None,
    target: str | Sequence[str] | None = None,
    *,
    out: str | Path = "out",
    student: str | None = None,
    lookback: int | None = None,
    horizon: int | None = None,
    variates: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    baseline: bool | None = None,
    refit: str | None = None,
    teacher_store: str | Path | None = None,
    licence_policy: str | None = None,
    recipe: str | Path | None = None,
    set: Iterable[str] = (),
    cache: bool = True,
    dump_after: Sequence[str] = (),
    stop_after: str | None = None,
    progress: Progress | None = None,
) -> CompileResult:
    """Compiles a teacher to artifacts ``out/<target>/``; arguments left out come from the recipe.

    Args:
        teacher: short name, hub id or local directory.
        data: known data set, ``sample``, or a CSV or Parquet file.
        target: one target or several.
        refit: ``train+val`` or ``all``: what is shipped is solved again on rows up to there.
        set: ``key.path=value`` strings that override the recipe.
        cache: look up and keep the results of long passes.
        dump_after: names of passes, or ``["all"]``: the unit is written to ``out/dump/`` after them.
        stop_after: name of the last pass to run; no artifact is written.

    Raises:
        TsfmcError: see ``errors.py``; a missed budget is raised after the artifact is in place.
    """
    resolved = make_recipe(
        recipe=recipe,
        set=set,
        teacher=None if teacher is None else str(teacher),
        data=None if data is None else str(data),
        targets=[target] if isinstance(target, str) else target,
        task__lookback=lookback,
        task__horizon=horizon,
        task__variates=variates,
        task__split=split,
        student__kind=student,
        seed=seed,
        threads=threads,
        baseline=baseline,
        refit=refit,
        teacher_store=None if teacher_store is None else str(teacher_store),
        licence_policy=licence_policy,
    )
    return compile_recipe(
        resolved,
        out=Path(out),
        cache=cache,
        dump_after=dump_after,
        stop_after=stop_after,
        progress=progress or Silent(),
    )


def compile_recipe(
    recipe: Recipe,
    *,
    out: Path,
    cache: bool = True,
    dump_after: Sequence[str] = (),
    stop_after: str | None = None,
    progress: Progress,
) -> CompileResult:
    """``compile`` for a resolved recipe."""
    from .driver import backend
    from .frontends import save_teacher

    passes = build_pipeline(recipe)
    _check_names(stop_after, dump_after, passes)
    targets = backend.prepare_targets(recipe)
    source = open_source(recipe, progress)
    for warning in source.warnings:
        progress.line(f"warning: {warning}")
    unit = run_passes(
        recipe,
        source,
        passes,
        out=out,
        cache=cache,
        dump_after=dump_after,
        stop_after=stop_after,
        progress=progress,
    )
    if stop_after is not None:
        return CompileResult({}, None, {}, unit.record, source.warnings)
    supervised = train_baseline(recipe, source, cache=cache, progress=progress) if recipe.baseline else None
    if not Processes.current().is_main:
        return CompileResult({}, None, {}, unit.record, source.warnings)
    manifests = backend.emit(recipe, unit, supervised, targets, out=out, progress=progress)
    lock = out / "recipe.lock.toml"
    lock.write_text(recipe.to_toml())
    checkpoint = None
    if unit.teacher is not None and unit.original_teacher is not None:
        checkpoint = out / "teacher"
        save_teacher(unit.teacher, checkpoint)
    check_budgets(recipe.budget, manifests)
    artifacts = {kind: out / kind for kind in manifests}
    return CompileResult(artifacts, lock, manifests, unit.record, source.warnings, checkpoint)


def build_pipeline(recipe: Recipe) -> list[Pass]:
    """The passes of a recipe with their options.

    Raises:
        UsageError: an unknown pass.
        RecipeError: options that the pass does not have.
    """
    from ..passes import PASSES
    from .driver.recipe import pass_options
    from .students import check_student

    if recipe.student.kind != "none":
        check_student(recipe.student.kind, recipe.student.config)
    kinds: dict[str, type[Pass]] = {name: PASSES[name] for name in recipe.pipeline}
    read_later = frozenset().union(*(kind.reads for kind in kinds.values()))
    view = RecipeView(recipe.student.model_dump(), read_later, recipe.refit)
    passes = []
    for name in recipe.pipeline:
        follow = kinds[name].follow(view)
        if follow is not None:
            passes.append(kinds[name](**pass_options(recipe, name, kinds[name].Options, follow)))
    check_refit(recipe, passes)
    return passes


def open_source(recipe: Recipe, progress: Progress) -> Source:
    """Loads the data and the teacher, or its store, and applies the licence policy."""
    from .data import load_data
    from .frontends import open_teacher, revision_notes
    from .ir.teacher_store import TeacherStore

    task = recipe.task
    data = load_data(
        recipe.data,
        lookback=task.lookback,
        horizon=task.horizon,
        variates=task.variates,
        split=task.split,
        missing=task.missing,
        progress=progress,
    )
    if recipe.teacher_store is not None:
        store = TeacherStore(Path(recipe.teacher_store))
        store.require(data, task.lookback, task.horizon)
        teacher, info = None, store.info
    else:
        store = None
        teacher, info = open_teacher(
            recipe.teacher,
            lookback=task.lookback,
            horizon=task.horizon,
            variates=len(data.variates),
            **recipe.teacher_options,
        )
    moving = () if teacher is None else revision_notes(info)  # a store does not move
    warnings = (*check_licence(recipe, info), *moving, *data.notes)
    unit = CompileUnit(
        task=Task(task.lookback, task.horizon, data.variates, data.frequency),
        data=data,
        teacher=teacher,
        teacher_info=info,
        teacher_store=store,
    )
    return Source(unit, warnings)


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


def run_passes(
    recipe: Recipe,
    source: Source,
    passes: Sequence[Pass],
    *,
    out: Path,
    cache: bool,
    dump_after: Sequence[str] = (),
    stop_after: str | None = None,
    progress: Progress,
) -> CompileUnit:
    """The unit after the pipeline."""
    instruments: list[Instrument] = [ReportInstrument(progress)]
    if any("teacher" in step.writes for step in passes):
        instruments.append(CostInstrument(threads=recipe.threads, progress=progress))
    if dump_after:
        instruments.append(DumpInstrument(out / "dump", dump_after))
    with tempfile.TemporaryDirectory(prefix="tsfmc-") as workspace:
        manager = PassManager(
            passes,
            instruments,
            cache=PassCache(cache_root()) if cache else None,
            stop_after=stop_after,
            check_purity="TSFMC_CHECK_PURITY" in os.environ,
        )
        return manager.run(source.unit, PassContext(recipe.seed, Path(workspace), progress))


def train_baseline(recipe: Recipe, source: Source, *, cache: bool, progress: Progress) -> CompileUnit:
    """The pipeline without the passes that need a teacher: the row that a gain is measured against."""
    # A row is judged and never shipped, so nothing is solved again for it.
    passes = [
        step for step in build_pipeline(recipe) if not step.needs_teacher and "judged" not in step.writes
    ]
    unit = source.unit.with_(teacher=None, teacher_store=None)
    progress.line("supervised baseline: the same pipeline without the teacher")
    return run_passes(recipe, Source(unit), passes, out=Path(), cache=cache, progress=progress)


def _check_names(stop_after: str | None, dump_after: Sequence[str], passes: Sequence[Pass]) -> None:
    names = [step.name for step in passes]
    for wanted in (*([stop_after] if stop_after else []), *(name for name in dump_after if name != "all")):
        if wanted not in names:
            raise unknown_name("pass of this pipeline", wanted, names)


def on_device(recipe: Recipe, device: str) -> Recipe:
    """The recipe with ``device`` for every target that has devices.

    Raises:
        UsageError: none of the recipe's targets has.
    """
    from ..targets import TARGETS

    options = {kind: dict(given) for kind, given in recipe.target_options.items()}
    kinds = [kind for kind in recipe.targets if "device" in TARGETS[kind].Options.model_fields]
    if not kinds:
        raise UsageError(
            f"--device {device}: target {', '.join(recipe.targets)} has no devices", hint="see tsfmc targets"
        )
    for kind in kinds:
        options.setdefault(kind, {})["device"] = device
    return recipe.model_copy(update={"target_options": options})


def plan(recipe: Recipe) -> dict[str, Any]:
    """What a compile would do, without loading anything: ``--dry-run``."""
    from ..targets import TARGETS

    for kind in recipe.targets:
        TARGETS[kind]
    passes = build_pipeline(recipe)
    return {
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "pipeline": [
            {"name": step.name, "summary": step.summary, "options": step.config()} for step in passes
        ],
        "stages": [f"{kind}: lower, check, measure, pack" for kind in recipe.targets],
    }


def load(path: str | Path, threads: int = 1) -> ArtifactForecaster:
    """Opens an artifact directory or a ``.tsfmc`` file; ``.forecast(past)`` takes and gives raw units.

    Raises:
        VerificationError: naming the file that is broken, truncated or edited.
        MissingError: the target's runtime is not installed.
    """
    from ..targets.artifact.open import open_artifact

    return open_artifact(Path(path), threads=threads)


def teach(
    recipe: Recipe,
    folder: Path,
    *,
    states: bool = True,
    states_dtype: str = "float16",
    state_positions: int = 0,
    train_windows: int = 0,
    progress: Progress | None = None,
) -> TeacherStore:
    """Writes a teacher store for the recipe's teacher, data and task, with the teacher's latency record.

    Raises:
        TsfmcError: see ``teacher_store.write_store``.
    """
    from .driver import backend
    from .learning.teacher_store import StoreOptions, write_store

    progress = progress or Silent()
    source = open_source(recipe, progress)
    for warning in source.warnings:
        progress.line(f"warning: {warning}")
    unit, processes = source.unit, Processes.current()
    if unit.teacher is None or unit.teacher_info is None:
        raise UsageError("a teacher store is written from a teacher", hint="give --teacher")
    options = StoreOptions(
        states=("train",) if states else (),
        states_dtype=states_dtype,  # type: ignore[arg-type]
        state_positions=state_positions,
        train_windows=train_windows,
    )
    return write_store(
        folder,
        unit.teacher,
        unit.teacher_info,
        unit.data,
        lookback=unit.task.lookback,
        horizon=unit.task.horizon,
        options=options,
        progress=progress,
        processes=processes,
        measure_latency=lambda: backend.teacher_latency(recipe, unit),
    )


def bench(
    artifact: str | Path,
    *,
    against: str | None = None,
    teacher: str | None = None,
    data: str | None = None,
    threads: int = 1,
    duration_s: float = 5.0,
    progress: Progress | None = None,
) -> Report:
    """Measures an artifact by the one latency rule; see ``bench.run``."""
    from .driver.bench import run

    return run(
        Path(artifact),
        against=against,
        teacher=teacher,
        data=data,
        threads=threads,
        duration_s=duration_s,
        progress=progress or Silent(),
    )
