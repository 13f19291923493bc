"""``bench``: artifacts and what they are measured against, all in one interleaved run.

What cannot run on this machine is checked for correctness under its emulator, where there is one, and its
instructions are counted; it is never timed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...targets import TARGETS
from ...targets.artifact.archive import opened
from ...targets.artifact.open import Forecaster, compiler_errors, open_artifact, read_manifest
from ...targets.base import Emulation
from ...targets.measure.host import host_record
from ...targets.measure.latency import SCENARIOS, Candidate, LatencyReport, measure_each
from ..base.errors import MissingError, UsageError, VerificationError
from ..base.progress import Progress
from .latency import WINDOWS, engine_candidate
from .rivals import Rivals, artifact_name, find_rivals, refuse_other_task

BOTH = "both"
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class BenchRequest:
    """What is asked for.

    Attributes:
        against: ``teacher`` (the one in the manifest, or ``teacher``), ``plain``, the path of another
            artifact, or None.
        scenario: one of ``SCENARIOS`` or ``both``.
        forms: of the teacher or the plain student, see ``targets/forms.py``.
        data: where the windows come from; by default the first artifact's self-test windows, shifted in time.
        teacher: where the teacher's weights are, when the manifest's name is not enough.
        duration_s: seconds of measuring, all candidates and both scenarios together.
    """

    against: str | None = None
    scenario: str = BOTH
    forms: tuple[str, ...] = ("eager", "onnx")
    data: str | None = None
    teacher: str | None = None
    threads: int = 1
    duration_s: float = 10.0

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Those that are measured."""
        return SCENARIOS if self.scenario == BOTH else (self.scenario,)


@dataclass(frozen=True)
class Bench:
    """What came out: an entry for each artifact.

    An entry has ``name``, ``target``, ``level`` and ``against``; further ``scenarios`` (see
    ``LatencyReport.record``) and ``host``, or where it cannot run here ``not_measured`` (why) and perhaps
    ``emulated``.
    """

    entries: tuple[Entry, ...]

    @property
    def measured(self) -> tuple[Entry, ...]:
        """Those with times."""
        return tuple(entry for entry in self.entries if "scenarios" in entry)

    def to_dict(self) -> list[dict[str, Any]]:
        """For ``--format json``, and as a baseline for a later run."""
        return [dict(entry) for entry in self.entries]


def run(artifacts: Sequence[Path], request: BenchRequest, progress: Progress) -> Bench:
    """Measures what can run here in one run, and checks the rest.

    Raises:
        UsageError: artifacts that do not take the same windows, or one given twice.
        MissingError: none of them can run or be emulated here.
        VerificationError: an artifact is broken, or computes something else under its emulator.
    """
    names = _names(artifacts)
    here: dict[str, Forecaster] = {}
    elsewhere: dict[str, dict[str, Any]] = {}
    for name, path in names.items():
        try:
            here[name] = open_artifact(path, threads=request.threads)
        except MissingError as error:
            if not path.exists():
                raise
            elsewhere[name] = _check_elsewhere(path, error, progress)
    if not here and not any("emulated" in entry for entry in elsewhere.values()):
        raise MissingError(next(iter(elsewhere.values()))["not_measured"], hint="measure it on its device")
    measured = _measure(here, request, progress) if here else {}
    return Bench(tuple({"name": name, **(measured.get(name) or elsewhere[name])} for name in names))


def _names(artifacts: Sequence[Path]) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for path in artifacts:
        if path.resolve() in [other.resolve() for other in names.values()]:
            raise UsageError(f"{path} is given twice", hint="an artifact is measured once in a run")
        names[artifact_name(path) if artifact_name(path) not in names else str(path)] = path
    return names


def _measure(
    here: Mapping[str, Forecaster], request: BenchRequest, progress: Progress
) -> dict[str, dict[str, Any]]:
    first = next(iter(here.values()))
    for name, other in here.items():
        refuse_other_task(name, other, first)
    windows = _windows(first, request.data)
    if request.against is not None:
        progress.line(f"preparing {request.against}")
    rivals = find_rivals(
        request.against,
        first,
        windows,
        teacher=request.teacher,
        forms=request.forms,
        threads=request.threads,
    )
    for name, reason in rivals.skipped.items():
        progress.line(f"{rivals.role} {name} does not run here: {reason}")
    candidates: dict[str, Candidate] = {name: engine_candidate(each.engine) for name, each in here.items()}
    clash = sorted(set(candidates) & set(rivals.forms))
    if clash:
        raise UsageError(f"{clash[0]} is measured against itself", hint="give another artifact to --against")
    candidates |= rivals.forms
    progress.line(f"measuring {', '.join(candidates)}: {', '.join(request.scenarios)}")
    reports = measure_each(
        candidates,
        windows,
        threads=request.threads,
        scenarios=request.scenarios,
        duration_s=request.duration_s,
        notes=() if request.data else ("windows rolled from those of the self-test",),
    )
    host = host_record()
    return {name: _entry(each, name, reports, rivals, request, host) for name, each in here.items()}


def _entry(
    artifact: Forecaster,
    name: str,
    reports: Mapping[str, LatencyReport],
    rivals: Rivals,
    request: BenchRequest,
    host: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        **_facts(artifact.manifest),
        "against": request.against,
        "scenarios": {
            scenario: report.record(name, list(rivals.forms), rivals.skipped, rivals.role or "teacher")
            for scenario, report in reports.items()
        },
        "host": dict(host),
    }


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {"target": manifest["target"]["kind"], "level": manifest["level"]}


def _check_elsewhere(path: Path, error: MissingError, progress: Progress) -> dict[str, Any]:
    """An artifact that does not run here: self-test and instructions under an emulator, if one is there."""
    manifest = read_manifest(path)
    entry = {**_facts(manifest), "against": None, "not_measured": error.what}
    target = TARGETS[manifest["target"]["kind"]]
    with opened(path) as directory:
        emulation: Emulation | None = target.emulation(directory, manifest)
        if emulation is None:
            progress.line(f"{path}: not measured, {error.what}")
            return entry
        progress.line(f"{path}: checking under {emulation.runner}")
        with compiler_errors():
            forecaster = Forecaster(directory, 1, lambda *_: emulation.engine)
            selftest = forecaster.selftest()
            if not selftest["passed"]:
                raise VerificationError(
                    f"{path}: under {emulation.runner} the self-test differs by {selftest['max_rel']:.3g} of "
                    f"the window's scale, expected at most {selftest['tolerance']:.3g}"
                )
            instructions = emulation.instructions(forecaster.example_windows(1))
    emulated = {"runner": emulation.runner, "selftest": selftest, "instructions": instructions}
    return {**entry, "emulated": emulated}


def _windows(artifact: Forecaster, data: str | None) -> np.ndarray:
    """64 windows ``[64, D, L]``, scaled: spread over a data set, or those that the artifact carries."""
    if data is None:
        return artifact.example_windows(WINDOWS)
    from ..data.as_compiled import load_as_compiled

    task = artifact.manifest["task"]
    series = load_as_compiled(data, task, lookback=task["lookback"], horizon=task["horizon"])
    return series.windows("test", task["lookback"], task["horizon"]).spread(WINDOWS)
