"""What the command line calls, and what Python users call: the same verbs.

compile   teacher + data + recipe -> artifacts
update    artifact + new rows -> artifact
teach     teacher + data -> teacher store
bench     artifacts -> latency, against a teacher or each other
sign      artifact + private key -> a signature beside its files
verify    artifact -> whether it is whole, signed by whom, and computes what it should
inspect   artifact -> its manifest
survey    data -> what they are, what is wrong with them, what a compile would cost
standing  artifact -> whether its files are those that the manifest speaks of
compare   artifacts -> what each has over the first
report    a folder of artifacts -> a page
package   artifact -> a layout that a platform understands
load      artifact -> a forecaster with ``forecast(past)``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from .base.engines import executor_of
from .base.errors import UsageError
from .base.executors import Executor
from .base.parallel import Processes
from .base.paths import disk_errors, require_room
from .base.progress import Progress, Silent
from .driver.recipe import Recipe, make_recipe, reading_settings
from .driver.settings import OtherSettings

if TYPE_CHECKING:
    from ..targets.artifact.device.forecaster import Forecaster as ArtifactForecaster
    from ..targets.artifact.open import Standing
    from ..targets.packages.push import Pushed
    from .data.survey import Survey
    from .driver.bench import Bench
    from .driver.costs import Cost
    from .driver.update import UpdateResult
    from .ir.teacher_store import TeacherStore
    from .ir.unit import CompileUnit, PassRecord
    from .reporting.compare import Outcome

__all__ = [
    "CompileResult", "Recipe", "bench", "compare", "compile", "compile_recipe", "inspect", "load",
    "make_recipe", "package", "plan", "push", "report", "sign", "standing", "survey", "teach",
    "transform", "update", "verify",
]  # fmt: skip


@dataclass(frozen=True)
class CompileResult:
    """What a compile left behind.

    Attributes:
        artifacts: target -> artifact directory.
        recipe_lock: the resolved recipe, or None where ``stop_after`` left targets out.
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


def compile(
    teacher: str | Path | Sequence[str | Path] | None = None,
    data: str | Path | object | None = None,
    target: str | Sequence[str] | None = None,
    *,
    out: str | Path = "out",
    cache: bool = True,
    dump_after: Sequence[str] = (),
    stop_after: str | None = None,
    progress: Progress | None = None,
    engine: str | Executor = "local",
    **settings: Unpack[OtherSettings],
) -> CompileResult:
    """Compiles a teacher to artifacts ``out/<target>/``; arguments left out come from the recipe.

    Args:
        teacher: short name, hub id, local directory or teacher store; several are mixed by weights that
            rolling origins choose.
        data: known data set, ``sample``, a file (.csv, .tsv, .parquet, .xlsx), a table of pandas, Polars or
            Arrow, or ``synthetic`` for no data at all.
        target: one target or several.
        cache: look up and keep the results of long passes.
        dump_after: names of steps, or ``["all"]``: the unit is written to ``out/dump/`` after them.
        stop_after: name of the last step to run; what is not packed by then is not written.
        engine: where labels and statistics are computed: ``"local"``, ``"ray"``, or one with an address such
            as ``EXECUTORS["ray"]("auto")``; the artifact is the same.
        settings: the options of ``tsfmc compile``, see ``driver/settings.py``: ``student``, ``lookback``,
            ``horizon``, ``recipe``, ``set`` (``key.path=value`` strings) and so on.

    Raises:
        TsfmcError: see ``base/errors.py``; a missed budget is raised after the artifact is in place
            and has the ``CompileResult`` as its ``result``.
    """
    return compile_recipe(
        make_recipe(teacher=teacher, data=data, target=target, **settings),
        out=Path(out),
        cache=cache,
        dump_after=dump_after,
        stop_after=stop_after,
        progress=progress or Silent(),
        engine=engine,
    )


@disk_errors()
def compile_recipe(
    recipe: Recipe,
    *,
    out: Path,
    cache: bool = True,
    dump_after: Sequence[str] = (),
    stop_after: str | None = None,
    progress: Progress,
    engine: str | Executor = "local",
) -> CompileResult:
    """``compile`` for a resolved recipe."""
    from .driver import pipeline
    from .driver.budgets import check_budgets
    from .driver.jobs import require_targets
    from .driver.room import require_disks

    steps = pipeline.build_steps(recipe, out=out, cache=cache)
    pipeline.check_names(steps, stop_after, dump_after)
    require_targets(recipe)
    require_disks(recipe, out, cache=cache)
    if not Processes.current().is_main:
        steps = pipeline.learning_steps(recipe, cache=cache)
    with executor_of(engine) as executor:
        unit = pipeline.run_steps(
            recipe,
            steps,
            cache=cache,
            dump=out / "dump",
            dump_after=dump_after,
            stop_after=stop_after,
            progress=progress,
            executor=executor,
        )
    artifacts = {kind: out / kind for kind in unit.artifacts}
    if len(artifacts) < len(recipe.targets):
        return CompileResult(artifacts, None, unit.artifacts, unit.record, unit.warnings)
    lock = out / "recipe.lock.toml"
    lock.write_text(recipe.to_toml())
    teacher = _keep_teacher(unit, out / "teacher")
    result = CompileResult(artifacts, lock, unit.artifacts, unit.record, unit.warnings, teacher)
    check_budgets(recipe.budget, unit.artifacts, result)
    return result


def _keep_teacher(unit: CompileUnit, folder: Path) -> Path | None:
    """Saves a teacher that passes have changed."""
    from .frontends import save_teacher

    if unit.teacher is None or unit.original_teacher is None:
        return None
    save_teacher(unit.teacher, folder)
    return folder


def transform(
    recipe: Recipe, *, stop_after: str | None = None, cache: bool = True, progress: Progress | None = None
) -> CompileUnit:
    """The unit after import and passes, without baseline and targets.

    Raises:
        TsfmcError: see ``base/errors.py``.
    """
    from .driver import pipeline

    steps = pipeline.learning_steps(recipe.model_copy(update={"baseline": False}), cache=cache)
    pipeline.check_names(steps, stop_after)
    return pipeline.run_steps(
        recipe,
        steps,
        cache=cache,
        stop_after=stop_after,
        progress=progress or Silent(),
    )


def plan(
    recipe: Recipe,
    *,
    dump_after: Sequence[str] = (),
    stop_after: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What a compile would do, and what its data are: ``--dry-run``.

    The data are read and checked, a published data set that is not here is not fetched; no teacher is loaded.

    Raises:
        TsfmcError: whatever a compile would refuse about options, licence or data.
    """
    from .driver import pipeline
    from .driver.looking import data_facts

    steps = pipeline.build_steps(recipe, out=Path("out"))
    pipeline.check_names(steps, stop_after, dump_after)
    return {
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "steps": [{"name": step.name, "summary": step.summary, "options": step.config()} for step in steps],
        "data": data_facts(recipe, progress or Silent()),
    }


def survey(
    data: str | Path | object,
    *,
    teacher: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Unpack[OtherSettings],
) -> tuple[Survey, list[Cost]]:
    """What a data set is, what is wrong with it and how to read it, and what a compile of it would cost.

    Args:
        data: as ``compile`` takes it.
        teacher: whose labels the cost is to hold; none without one.
        settings: those of ``compile``: how to read it, and of which compile the cost is asked for.

    Raises:
        TsfmcError: settings that are not understood, or no such data.
    """
    from .data.survey import survey as look
    from .driver.costs import estimate, total

    recipe = make_recipe(data=data, teacher=teacher, **settings)
    found = look(recipe.data, progress=progress, **reading_settings(recipe))
    costs = estimate(found, recipe, label=teacher is not None)
    return found, [*costs, total(costs)] if costs else []


def load(path: str | Path, threads: int = 1, *, trust: str | Path | None = None) -> ArtifactForecaster:
    """Opens an artifact directory or a ``.tsfmc`` file; ``.forecast(past)`` takes and gives raw units.

    Args:
        trust: a public key (PEM); what its owner has not signed is refused before anything of it is loaded.

    Raises:
        VerificationError: naming the file that is broken, truncated or edited, or what is wrong with the
            signature.
        MissingError: the target's runtime is not installed.
    """
    from ..targets.artifact.open import open_artifact

    return open_artifact(Path(path), threads=threads, trust=_path(trust))


def sign(path: str | Path, key: str | Path, *, password: str | None = None) -> str:
    """Signs an artifact with a private key (PEM); returns the fingerprint of the public one.

    Raises:
        VerificationError: the artifact is not intact.
        UsageError: the key cannot be used, or the signature cannot be written.
        MissingError: there is no such artifact, or the package ``cryptography`` is not installed.
    """
    from ..targets.artifact.sign import sign_artifact

    return sign_artifact(Path(path), Path(key), password)


def verify(
    path: str | Path, threads: int = 1, *, trust: str | Path | None = None, execute: bool = True
) -> list[str]:
    """Checks every file, every hash, the signature and the self-test; what was checked, a line each.

    Args:
        trust: a public key (PEM) whose owner must have signed the artifact.
        execute: whether to run the self-test, which loads the program in the artifact.

    Raises:
        VerificationError: names every file that is wrong, what is wrong with the signature, or by how much
            the self-test differs.
        MissingError: the target's runtime is not installed.
    """
    from ..targets.artifact.open import verify_artifact

    return verify_artifact(Path(path), threads, trust=_path(trust), execute=execute)


def inspect(path: str | Path) -> dict[str, Any]:
    """The manifest of an artifact, its fields checked; whether the files are those it speaks of, ``standing``
    says.

    Raises:
        VerificationError: names the field that is wrong.
        MissingError: there is no such path.
    """
    from ..targets.artifact.open import read_manifest

    return read_manifest(Path(path))


def standing(path: str | Path, *, trust: str | Path | None = None) -> Standing:
    """How far an artifact can be believed: its files against their hashes, the signature against a key.

    Executes nothing of the artifact.

    Raises:
        VerificationError: the files are intact, and not signed by the owner of ``trust``.
        MissingError: there is no such path.
    """
    from ..targets.artifact.open import check_artifact

    return check_artifact(Path(path), _path(trust))


@disk_errors()
def report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Writes one HTML file about every artifact in ``folder``; by default ``folder/report.html``.

    Raises:
        MissingError: there is no artifact, or the extra ``report`` is not installed.
        VerificationError: a manifest, or what was kept of an evaluation, is broken.
    """
    from .reporting.page import write_report

    where = Path(folder)
    beside = where.parent if where.is_file() or (where / "manifest.json").is_file() else where
    return write_report(where, Path(out) if out is not None else beside / "report.html")


def compare(
    artifacts: Sequence[str | Path],
    *,
    data: str | None = None,
    latency: bool = True,
    scenario: str = "stream",
    threads: int = 1,
    duration_s: float = 5.0,
    progress: Progress | None = None,
) -> Outcome:
    """Compares artifacts, each with the first; ``Outcome.check`` raises on a regression.

    See ``reporting/compare.py`` for what is compared and for the rule.

    Raises:
        UsageError: an unknown scenario, fewer than two artifacts, or different tasks.
    """
    from .reporting.compare import run

    return run(
        [Path(path) for path in artifacts],
        data=data,
        latency=latency,
        scenario=scenario,
        threads=threads,
        duration_s=duration_s,
        progress=progress or Silent(),
    )


@disk_errors()
def package(
    artifact: str | Path,
    *,
    layout: str = "tsfmc",
    out: str | Path | None = None,
    name: str = "forecaster",
    runtime: str | Path | None = None,
    id: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Checks an artifact and writes it in a platform's layout, see ``targets/packages``.

    Args:
        runtime: for ``web``: the npm package onnxruntime-web, unpacked; None asks npm for it.
        id: an item of a fleet, whose own artifact is cut out and written.

    Raises:
        VerificationError: the artifact is not intact.
        UsageError: an unknown layout, one that does not take this target or option, ``out`` exists, or there
            is no such item.
        MissingError: no runtime is given, and npm does not deliver it.
    """
    from ..targets.packages import LAYOUTS
    from ..targets.packages.layout import write_package
    from .driver.evaluation import kept_residuals

    made_by = LAYOUTS[layout]
    interval = kept_residuals(Path(artifact)) if "interval" in made_by.options else None
    chosen = made_by.made(runtime=_path(runtime), interval=interval)
    path = Path(out or name + chosen.suffix)
    if id is None:
        return write_package(Path(artifact), chosen, path, name)
    from .driver.cutting import cut_out

    with cut_out(Path(artifact), id, progress or Silent()) as own:
        return write_package(own, chosen, path, name)


def push(
    artifact: str | Path,
    repo: str,
    *,
    endpoint: str | None = None,
    private: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Checks an artifact and uploads it with its model card to the Hugging Face hub.

    See ``targets/packages/push``.

    Raises:
        VerificationError: the artifact is not intact, or its self-test fails.
        LicenceError: the teacher's licence is not known to allow sharing, and ``private`` is not asked for.
        UsageError: ``repo`` is no name, or the hub refuses it.
        MissingError: no such artifact, no login, or no connection.
    """
    from ..targets.packages.push import push_artifact

    return push_artifact(Path(artifact), repo, endpoint=endpoint, private=private, dry_run=dry_run)


@disk_errors()
def update(
    artifact: str | Path,
    data: str | Path | object,
    out: str | Path = "out",
    *,
    missing: str | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    **reading: Any,
) -> UpdateResult:
    """Adds new rows to the statistics beside an artifact and solves its student again, in seconds.

    Neither the teacher nor the old data are needed.  The rows must follow the last ones that the statistics
    have, one step later.  The new artifact and its statistics are written to ``out``.

    Args:
        data: a file, or a table of pandas, Polars or Arrow.
        missing: the policy for empty cells and missing rows; None is that of the compile.
        rename: name of a column in ``data`` -> its variate.
        reading: ``duplicates``, ``sort``, ``zone`` and ``csv``, see ``load_data``; absent is as compiled.

    Raises:
        MissingError: the compile left no statistics.
        UsageError: statistics of another task; rows that were seen before, or after a gap.
        VerificationError: statistics of another artifact, or a broken file.
    """
    from .data.objects import as_file
    from .driver.update import update as run

    return run(
        Path(artifact),
        Path(as_file(data)),
        Path(out),
        asked={"missing": missing, **reading},
        rename=rename or {},
        progress=progress or Silent(),
    )


@disk_errors()
def teach(
    recipe: Recipe,
    folder: Path,
    *,
    states: bool = True,
    states_dtype: str = "float16",
    state_positions: int = 0,
    train_windows: int = 0,
    progress: Progress | None = None,
    engine: str | Executor = "local",
) -> TeacherStore:
    """Writes a teacher store for the recipe's teacher, data and task, with the teacher's latency record.

    Args:
        engine: where the labels are computed, as for ``compile``.

    Raises:
        TsfmcError: see ``teacher_store.write_store``.
    """
    from .driver import pipeline
    from .driver.latency import teacher_latency
    from .driver.room import require_cache
    from .learning.labelling import StoreOptions
    from .learning.teacher_store import write_store

    if len(recipe.teacher) > 1:
        raise UsageError(
            f"a store holds the outputs of one teacher, and there are {len(recipe.teacher)}",
            hint="write a store for each, and give all of them to one compile",
        )
    progress = progress or Silent()
    require_room(folder, 0, "the store's folder", "choose another one with --out")
    require_cache()
    with executor_of(engine) as executor:
        steps = pipeline.learning_steps(recipe)
        unit = pipeline.run_steps(recipe, steps, stop_after=steps[0].name, progress=progress)
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
            processes=Processes.current(),
            executor=executor,
            measure_latency=lambda: teacher_latency(recipe, unit),
        )


def bench(
    *artifacts: str | Path,
    against: str | None = None,
    scenario: str = "both",
    forms: Sequence[str] = ("eager", "onnx"),
    teacher: str | None = None,
    data: str | None = None,
    threads: int = 1,
    duration_s: float = 10.0,
    progress: Progress | None = None,
) -> Bench:
    """Measures artifacts by the one latency rule, all in one run; see ``bench.BenchRequest``.

    Raises:
        TsfmcError: see ``bench.run``.
    """
    from ..targets.forms import FORMS
    from ..targets.measure.latency import SCENARIOS
    from .base.errors import unknown_name
    from .driver.bench import BOTH, BenchRequest, run

    for form in forms:
        if form not in FORMS:
            raise unknown_name("form", form, FORMS)
    if scenario not in (*SCENARIOS, BOTH):
        raise unknown_name("scenario", scenario, (*SCENARIOS, BOTH))
    request = BenchRequest(against, scenario, tuple(forms), data, teacher, threads, duration_s)
    return run([Path(path) for path in artifacts], request, progress or Silent())


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
