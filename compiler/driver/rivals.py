"""What ``bench --against`` measures against: the teacher, the plain student, or another artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...targets.artifact.device.forecaster import Forecaster
from ...targets.artifact.device.portable import PORTABLE
from ...targets.artifact.open import open_artifact
from ...targets.forms import Model, Skipped, open_onnx, prepare
from ...targets.measure.latency import Candidate
from ..base.errors import MissingError, TeacherError, UsageError
from ..students import build_student, takes
from .latency import engine_candidate, of_window, split_forms

TEACHER, PLAIN = "teacher", "plain"


@dataclass(frozen=True)
class Rivals:
    """The forms of one rival.

    Attributes:
        role: ``teacher``, ``plain``, or ``rival`` for another artifact; empty where there is none.
        forms: name -> candidate.
        skipped: name -> why it does not run here.
    """

    role: str = ""
    forms: Mapping[str, Candidate] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


def find_rivals(
    against: str | None,
    artifact: Forecaster,
    windows: np.ndarray,
    *,
    teacher: str | None,
    forms: Sequence[str],
    threads: int,
) -> Rivals:
    """The rivals of ``artifact`` and of others of its task.

    Args:
        against: ``teacher``, ``plain`` or the path of another artifact.
        teacher: where the teacher's weights are, when the manifest's name is not enough.
        forms: of the teacher and of the plain student, see ``targets/forms.py``.

    Raises:
        UsageError: another task, or no plain student.
        MissingError: neither the teacher nor its portable form is here.
    """
    if against is None:
        return Rivals()
    if against in (TEACHER, PLAIN):
        past = np.ascontiguousarray(windows[..., : artifact.lookback])  # neither has inputs
        if against == TEACHER:
            prepared = _teacher_forms(artifact, past, teacher, forms, threads)
        else:
            model = Model(_plain_student(artifact.manifest).eval(), past)
            prepared = {form: prepare(form, model, threads) for form in forms}
        running, skipped = split_forms(prepared)
        if artifact.inputs:
            running = {name: of_window(form, artifact.lookback) for name, form in running.items()}
        return Rivals(against, running, skipped)
    other = open_artifact(Path(against), threads=threads)
    refuse_other_task(against, other, artifact)
    return Rivals("rival", {artifact_name(Path(against)): engine_candidate(other.engine)})


def refuse_other_task(name: str, one: Forecaster, other: Forecaster) -> None:
    """Raises ``UsageError`` for two artifacts that do not take the same windows."""
    for field_name in ("lookback", "horizon", "variates", "inputs"):
        if one.manifest["task"].get(field_name) != other.manifest["task"].get(field_name):
            raise UsageError(
                f"{name} and {other.directory} have different tasks ({field_name})",
                hint="compare artifacts of one lookback, horizon, set of variates and inputs",
            )


def artifact_name(path: Path) -> str:
    """``out/onnx`` for a path that ends so."""
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def _teacher_forms(
    artifact: Forecaster, windows: np.ndarray, where: str | None, forms: Sequence[str], threads: int
) -> dict[str, Candidate | Skipped]:
    """The teacher by its weights; its ONNX form by the file that travels with the artifact, if one does."""
    prepared: dict[str, Candidate | Skipped] = {}
    if artifact.files.has(PORTABLE) and "onnx" in forms:
        prepared["onnx"] = open_onnx(artifact.files.read(PORTABLE), threads)
    others = [form for form in forms if form not in prepared]
    if others:
        try:
            model = Model(_teacher(artifact, where), windows)
        except (MissingError, TeacherError, UsageError) as error:
            if not prepared:
                raise
            return {**prepared, **{form: Skipped(f"no weights: {error.what}") for form in others}}
        prepared |= {form: prepare(form, model, threads) for form in others}
    return {form: prepared[form] for form in forms}


def _teacher(artifact: Forecaster, where: str | None) -> Any:
    from ..frontends import load_teacher

    task, made = artifact.manifest["task"], artifact.manifest.get("teacher") or {}
    if where is None and "name" not in made:
        raise UsageError("the artifact does not name its teacher", hint="give --teacher")
    return load_teacher(
        where or made["name"],
        lookback=task["lookback"],
        horizon=task["horizon"],
        variates=len(task["variates"]),
    )


def _plain_student(manifest: Mapping[str, Any]) -> Any:
    """The student as it was built, before anything was folded.

    Its weights are untrained: they change what it forecasts and not how long it takes.

    Raises:
        UsageError: the artifact has no student of its own.
    """
    task = manifest["task"]
    for entry in manifest.get("passes") or ():
        if entry["name"] == "build_student":
            kind, config = entry["config"]["kind"], dict(entry["config"]["config"])
            if takes(kind, "variates"):
                config.setdefault("variates", len(task["variates"]))
            return build_student(kind, lookback=task["lookback"], horizon=task["horizon"], **config)
    raise UsageError("the artifact's manifest has no pass that built a student", hint="use --against teacher")
