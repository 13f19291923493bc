"""What happens to a unit once the passes are done: exported once, then for every target

    (its rewrites)  the program in the target's own form, one named rewrite after the other
    lower           the payload, written into a temporary sibling of the artifact
    check           parity of that very payload with the model, on hard windows
    measure         accuracy of the payload on the test split, latency beside the teacher's forms in one run
    keep            errors by step and time and a few example windows beside the artifact, for ``report``
    pack            manifest, self-test vectors, device-side runner, hashes; renamed into place at the end

A stage is a step like a pass: it declares what it reads and writes, takes the unit and gives the unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ...targets.artifact.open import read_manifest
from ...targets.artifact.write import draft, finish
from ...targets.base import Rewrite
from ...targets.measure.cold_start import cold_start
from ...targets.measure.parity import check_parity, hard_windows
from ..base.errors import VerificationError
from ..ir.passes import PassContext, PassResult, Step
from ..ir.program import Shape, export_program
from ..ir.unit import CompileUnit
from .accuracy import artifact_rows
from .build import Build, Job, build_of, program_of
from .evaluation import evaluation_path, observed, save_evaluation
from .fleets import add_fleet, program_variates, program_windows
from .keeping import placed_at_the_end
from .latency import artifact_latency, rotation
from .manifest import manifest_fields, task_facts
from .quantiles import artifact_quantiles

CALIBRATION_WINDOWS = 256
SELFTEST_WINDOWS = 3


class Export(Step):
    """The one export that all targets share."""

    name = "export"
    summary = "torch.export of the student, or of the teacher where there is none, batch symbolic"
    reads = frozenset({"data", "teacher", "student", "effect", "head"})
    writes = frozenset({"program"})

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        task = unit.task
        quantiles = max(1, len(task.quantile_levels))
        beside = sum(group.width for group in unit.shipped.inputs)
        shape = Shape(len(program_variates(unit)), task.lookback, task.horizon, quantiles, beside)
        program = export_program(unit.shipped.eval(), shape, calibration(unit))
        return PassResult(unit.with_(program=program), True)


class Stage(Step):
    """A step of one target.

    Args:
        job: what the target is asked for.
    """

    reads = frozenset({"data", "program", "build"})
    writes = frozenset({"build"})
    verb: ClassVar[str]

    def __init__(self, job: Job) -> None:
        self.job = job
        self.name = f"{job.target.kind}.{self.verb}"

    def config(self) -> dict[str, Any]:
        options: dict[str, Any] = self.job.options.model_dump(mode="json")
        return options


class Rewritten(Stage):
    """One of the target's own rewrites."""

    verb = "rewrite"

    def __init__(self, job: Job, rewrite: Rewrite) -> None:
        super().__init__(job)
        self.rewrite = rewrite
        self.name, self.summary = f"{job.target.kind}.{rewrite.name}", rewrite.summary

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        graph = unit.build.graph if isinstance(unit.build, Build) else program_of(unit)
        build = Build(self.job.target.kind, self.rewrite.apply(graph, calibration(unit)))
        return PassResult(unit.with_(build=build), True)


class Lower(Stage):
    """The target writes its payload."""

    verb = "lower"
    summary = "write the payload into a temporary sibling of the artifact"

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        program = program_of(unit)
        target = self.job.target.for_task(task_facts(unit, self.job.recipe.task.missing))
        build = unit.build if isinstance(unit.build, Build) else Build(target.kind, program)
        directory = context.cleanup.enter_context(draft(self.job.final))
        payload = target.lower(
            program,
            build.graph,
            directory,
            options=self.job.options,
            calibration=calibration(unit),
            progress=lambda line: context.progress.line(f"    {line}"),
        )
        add_fleet(unit, directory, self.job.recipe)
        return PassResult(unit.with_(build=build.with_(directory=directory, payload=payload)), True)


class Check(Stage):
    """Runs the payload against the model, where it runs here.

    Raises:
        VerificationError: the payload departs from the model.
    """

    verb = "check"
    summary = "compare the payload with the model on hard windows"

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        build, target = build_of(unit), self.job.target
        directory, payload = build.lowered
        if not payload.runs_here:
            return PassResult(unit, False)
        engine = target.load(directory, payload, self.job.recipe.threads)
        tolerance = payload.details.get("tolerance", target.tolerance)
        parity = check_parity(
            engine, lambda past: forecast_of(unit, past), hard_windows(rotation(unit)), tolerance
        )
        if not parity.passed:
            raise VerificationError(
                f"target {target.kind}: the lowered program departs from the model: {parity.describe()}"
            )
        checked = build.with_(engine=engine, parity=parity.to_dict())
        return PassResult(unit.with_(build=checked), True, {"max_rel": parity.max_rel})


class Measure(Stage):
    """Accuracy of the payload, and its latency where it runs here."""

    verb = "measure"
    summary = "test accuracy of the payload, latency beside the teacher's forms in one run"
    reads = frozenset({"data", "teacher", "student", "effect", "head", "judged", "build"})

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        build = build_of(unit)
        rows = artifact_rows(unit, build.engine, build.precision, context.progress)
        latency = None
        if build.engine is not None:
            job = self.job
            context.executor.rest()  # workers beside what is timed would be in its way
            latency = artifact_latency(job.recipe, unit, build.engine, build.precision, job.teacher)
        quantiles = artifact_quantiles(unit, build.engine, build.precision, context.progress)
        measured = build.with_(accuracy=rows, quantiles=quantiles, latency=latency)
        return PassResult(unit.with_(build=measured), True)


class Keep(Stage):
    """What ``report`` shows of the evaluation, which needs neither the data nor the teacher afterwards."""

    verb = "keep"
    summary = "leave errors and a few example windows beside the artifact, for report"
    reads = frozenset(
        {
            "data",
            "teacher",
            "teacher_store",
            "student",
            "effect",
            "head",
            "judged",
            "supervised",
            "accuracy",
            "build",
        }
    )
    writes = frozenset({"facts"})

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        path = evaluation_path(self.job.final)
        facts = {name: value for name, value in unit.facts.items() if name != "evaluation"}
        evaluation = observed(unit, build_of(unit).accuracy)
        if evaluation is None:
            path.unlink(missing_ok=True)
        else:
            waits = placed_at_the_end(path, lambda coming: save_evaluation(evaluation, coming))
            named = context.cleanup.enter_context(waits)
            facts["evaluation"] = {**named, "contents": evaluation.contents}
        return PassResult(unit.with_(facts=facts), True)


class Pack(Stage):
    """Completes the artifact and puts it in place; its cold start is measured once it is complete."""

    verb = "pack"
    summary = "manifest, self-test, runner and hashes; renamed into place"
    reads = frozenset(
        {"data", "teacher", "student", "effect", "head", "accuracy", "quantile_accuracy", "facts", "build"}
    )
    writes = frozenset({"build", "artifacts"})

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        build, target = build_of(unit), self.job.target
        directory, _ = build.lowered
        if self.job.recipe.with_teacher:
            windows = rotation(unit)
            target.add_teacher(directory, self.job.teacher.onnx_file(unit, windows), windows)
        manifest = finish(
            directory,
            self.job.final,
            manifest_fields(unit, build, self.job),
            engine_source=target.engine_source(),
            selftest=selftest_vectors(unit),
            tolerance=target.tolerance,
            measure_sealed=self._cold_start,
        )
        artifacts = {**unit.artifacts, target.kind: manifest}
        return PassResult(unit.with_(build=None, artifacts=artifacts), True)

    def _cold_start(self, directory: Path) -> dict[str, Any]:
        """Load time, first call and memory in a fresh process, where the program runs here."""
        if read_manifest(directory)["level"] != "executed":
            return {}
        return {"cold_start": cold_start(directory, self.job.recipe.threads)}


def target_stages(job: Job) -> Sequence[Stage]:
    """All stages of one target, in order."""
    rewrites = [Rewritten(job, rewrite) for rewrite in job.target.rewrites(job.options)]
    return [*rewrites, Lower(job), Check(job), Measure(job), Keep(job), Pack(job)]


def calibration(unit: CompileUnit) -> np.ndarray:
    """Training rows for tracing and quantisation: ``[256, D, L + E]``, evenly spread."""
    return program_windows(unit, "train", CALIBRATION_WINDOWS)


def selftest_vectors(unit: CompileUnit) -> tuple[np.ndarray, np.ndarray]:
    """Vectors in raw units, from the model itself: past ``[3, D, L]``, forecast ``[3, D, H Q]``; inputs stand
    behind the past as they are."""
    rows = rotation(unit)
    rows = rows[:: max(1, len(rows) // SELFTEST_WINDOWS)][:SELFTEST_WINDOWS]
    scaling, lookback = unit.data.scaling, unit.task.lookback
    past = np.concatenate([scaling.unscale(rows[..., :lookback]), rows[..., lookback:]], axis=-1)
    return past, scaling.unscale(forecast_of(unit, rows))


def forecast_of(unit: CompileUnit, past: np.ndarray) -> np.ndarray:
    """The model's forecast ``[B, D, H Q]`` of ``past [B, D, L]``."""
    with torch.inference_mode():
        forecast: np.ndarray = unit.shipped(torch.from_numpy(past)).flatten(2).numpy()
    return forecast
