"""From a compiled unit to artifacts on disk, for every target alike: lower, check, measure, pack.

lower     the target writes its payload
check     parity of that very payload with the model, on hard windows
measure   accuracy of the payload on the test split, latency against the teacher in the same run
pack      manifest, self-test vectors, device-side runner, hashes; renamed into place at the end
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from ...targets import TARGETS
from ...targets.artifact.open import read_manifest
from ...targets.artifact.write import write_artifact
from ...targets.base import Engine, Payload, Shape, Target, TargetOptions
from ...targets.measure.host import host_record
from ...targets.measure.latency import cold_start, measure, torch_candidate
from ...targets.measure.parity import check_parity, hard_windows
from ..base.errors import MissingError, RecipeError, UsageError, VerificationError
from ..base.progress import Progress
from ..data.timeline import step_seconds
from ..ir.forecaster import nonzero_count, parameter_count
from ..ir.unit import CompileUnit
from ..learning.evaluate import Accuracy, Predict, evaluate, model_predictor, naive_scale, seasonal_naive
from .recipe import Recipe
from .verdict import accuracy_part

CALIBRATION_WINDOWS = 256
LATENCY_WINDOWS = 64
TEACHER_FORM = "fp32, PyTorch eager, inference_mode, forecast only"


@dataclass(frozen=True)
class Prepared:
    """A target that can lower here, with its options."""

    target: Target
    options: TargetOptions


def prepare_targets(recipe: Recipe) -> list[Prepared]:
    """Checks every target before anything long starts.

    Raises:
        UsageError: an unknown target, or options that it does not have.
        MissingError: a target that cannot lower on this machine.
    """
    for kind in recipe.target_options:
        TARGETS[kind]
    prepared = []
    for kind in recipe.targets:
        target: Target = TARGETS[kind]
        try:
            options = target.Options(**recipe.target_options.get(kind, {}))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(("target_options", kind, *(str(part) for part in first["loc"])))
            raise RecipeError(f"{field}: got {first['input']!r}: {first['msg'].lower()}") from None
        here = target.probe()
        if not here.can_lower:
            raise MissingError(
                f"target {kind} cannot lower here: {here.problems[0]}", hint="see tsfmc doctor"
            )
        prepared.append(Prepared(target, options))
    return prepared


def emit(
    recipe: Recipe,
    unit: CompileUnit,
    supervised: CompileUnit | None,
    targets: Sequence[Prepared],
    *,
    out: Path,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Writes ``out/<kind>/`` for every target and returns the manifests."""
    common = _Common(recipe, unit, supervised, progress)
    return {prepared.target.kind: common.emit(prepared, out / prepared.target.kind) for prepared in targets}


class _Common:
    """What all targets of one compile share: windows, the rows of accuracy that no target changes."""

    def __init__(
        self, recipe: Recipe, unit: CompileUnit, supervised: CompileUnit | None, progress: Progress
    ) -> None:
        self.recipe, self.unit, self.progress = recipe, unit, progress
        self.model = unit.model.eval()
        # Passes may have replaced the teacher: what an artifact is compared with is the one that was loaded.
        self.original = unit.original_teacher or unit.teacher
        task = unit.task
        self.shape = Shape(len(task.variates), task.lookback, task.horizon)
        self.test = unit.data.windows("test", task.lookback, task.horizon)
        self.naive_scale = naive_scale(unit.data)
        self.calibration = self._spread("train", CALIBRATION_WINDOWS)
        self.rotation = self._spread("test", LATENCY_WINDOWS)
        self.accuracy = self._rows(supervised)

    def _spread(self, part: Any, count: int) -> np.ndarray:
        """``count`` windows spread evenly over a part (repeated where it is shorter): ``[count, D, L]``."""
        windows = self.unit.data.windows(part, self.unit.task.lookback, self.unit.task.horizon)
        past, _ = windows.batch(np.linspace(0, len(windows) - 1, count).astype(int))
        return past.numpy()

    def _rows(self, supervised: CompileUnit | None) -> dict[str, Accuracy]:
        rows = {"seasonal_naive": seasonal_naive(self.unit.data.seasonality, self.shape.horizon)}
        if supervised is not None:
            rows["supervised"] = model_predictor(supervised.judged_model)
        store = self.unit.teacher_store
        if store is not None and self.unit.original_teacher is None:
            rows["teacher"] = lambda indices, past: store.forecast("test", indices)
        elif self.original is not None:
            rows["teacher"] = model_predictor(self.original)
        return {name: self._evaluate(predict, name) for name, predict in rows.items()}

    def _evaluate(self, predict: Predict, title: str) -> Accuracy:
        return evaluate(predict, self.test, self.naive_scale, progress=self.progress, title=f"test {title}")

    def emit(self, prepared: Prepared, final: Path) -> dict[str, Any]:
        target, progress = prepared.target, self.progress

        def build(folder: Path) -> dict[str, Any]:
            progress.line(f"{target.kind}: lower")
            payload = target.lower(
                self.model,
                self.shape,
                folder,
                options=prepared.options,
                calibration=self.calibration,
                progress=lambda line: progress.line(f"    {line}"),
            )
            engine = target.load(folder, payload, self.recipe.threads) if payload.runs_here else None
            progress.line(f"{target.kind}: check")
            parity = self._check(target, payload, engine)
            progress.line(f"{target.kind}: measure")
            measured = self._measure(engine, payload.details.get("precision", "fp32"))
            progress.line(f"{target.kind}: pack")
            return self._manifest(target, payload, parity, measured)

        return write_artifact(
            final,
            build,
            engine_source=target.engine_source(),
            selftest=self._selftest(),
            tolerance=target.tolerance,
            measure_sealed=self._cold_start,
        )

    def _cold_start(self, folder: Path) -> dict[str, Any]:
        """Load time, first call and memory in a fresh process, where the program runs here."""
        if read_manifest(folder)["level"] != "executed":
            return {}
        return {"cold_start": cold_start(folder, self.recipe.threads)}

    def _check(self, target: Target, payload: Payload, engine: Engine | None) -> dict[str, Any] | None:
        if engine is None:
            return None
        tolerance = payload.details.get("tolerance", target.tolerance)
        parity = check_parity(engine, self._reference, hard_windows(self.rotation), tolerance)
        if not parity.passed:
            raise VerificationError(
                f"target {target.kind}: the lowered program departs from the model: {parity.describe()}"
            )
        return parity.to_dict()

    def _reference(self, past: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            forecast: np.ndarray = self.model(torch.from_numpy(past)).numpy()
        return forecast

    def _measure(self, engine: Engine | None, precision: str) -> dict[str, Any]:
        rows = dict(self.accuracy)
        if engine is None or precision != "fp32":
            # Not run here: the accuracy is the model's, said so, and there is no latency.  Another precision:
            # what the artifact lost is seen beside the model it was made of.
            rows["model"] = self._evaluate(model_predictor(self.unit.judged_model), "model")
        if engine is None:
            return {"accuracy": rows, "latency": None}
        if self.unit.judged is None:
            rows["student"] = self._evaluate(engine_predictor(engine), "artifact")
        elif precision == "fp32":
            # It has seen rows that judge it.  Before that it was this model; parity says no more is lost.
            rows["student"] = self._evaluate(model_predictor(self.unit.judged), "artifact before the refit")
        candidates: dict[str, Callable[[np.ndarray], Any]] = {"artifact": engine}
        if self.original is not None:
            candidates["teacher"] = torch_candidate(self.original)
        report = measure(
            candidates,
            self.rotation,
            threads=self.recipe.threads,
            duration_s=self.recipe.measure.duration_s,
            min_queries=self.recipe.measure.min_queries,
            precision=precision,
            forms={"teacher": TEACHER_FORM},
        )
        return {"accuracy": rows, "latency": report.to_manifest()}

    def _selftest(self) -> tuple[np.ndarray, np.ndarray]:
        """Vectors in raw units, from the model itself: past ``[3, D, L]``, forecast ``[3, D, H]``."""
        past = self.rotation[:: max(1, LATENCY_WINDOWS // 3)][:3]
        scaling = self.unit.data.scaling
        return scaling.unscale(past), scaling.unscale(self._reference(past))

    def _manifest(
        self,
        target: Target,
        payload: Payload,
        parity: dict[str, Any] | None,
        measured: Mapping[str, Any],
    ) -> dict[str, Any]:
        unit, task, data, info = self.unit, self.unit.task, self.unit.data, self.unit.teacher_info
        if info is None:
            raise ValueError("the unit has no provenance of its teacher")
        counts = {
            part: len(data.windows(part, task.lookback, task.horizon)) for part in ("train", "val", "test")
        }
        return {
            "target": {"kind": target.kind, "entry": payload.entry, **payload.details},
            "task": {
                "lookback": task.lookback,
                "horizon": task.horizon,
                "variates": list(task.variates),
                "frequency": task.frequency,
                "step_seconds": step_seconds(task.frequency),
                "missing": self.recipe.task.missing,
            },
            "input": {"mean": data.mean.tolist(), "std": data.std.tolist()},
            "teacher": {
                "name": info.name,
                "family": info.family,
                "parameters": info.parameters,
                "sha256": info.sha256,
                "licence": info.licence,
                "source": info.source,
                "revision": info.revision or None,
                "commit": info.commit or None,
                "pretraining_overlap": overlap_with(info, data.overlap_name),
            },
            "student": {
                "name": self.recipe.student.kind,
                "parameters": parameter_count(self.model),
                "nonzero_parameters": nonzero_count(self.model),
                "config": dict(self.model.config),
            },
            "data": {
                "name": data.name,
                "sha256": data.sha256,
                "split": str(data.splits),
                "filled": {"cells": data.filled.cells, "rows": data.filled.rows},
                "windows": counts,
            },
            "passes": [
                {
                    "name": entry.name,
                    "config": dict(entry.config),
                    "modified": entry.modified,
                    "cached": entry.cached,
                    "seconds": round(entry.seconds, 3),
                    "metrics": dict(entry.metrics),
                }
                for entry in unit.record
            ],
            "parity": parity,
            "accuracy": accuracy_part(measured["accuracy"], unit),
            "latency": measured["latency"],
            "level": "executed" if parity is not None and payload.level == "exported" else payload.level,
            "runtime_requirements": [*target.runtime_requirements, *payload.requires],
            "environment": host_record()["packages"],
            "licence": {
                "spdx": info.licence,
                "commercial": info.commercial,
                "warning": None if info.commercial else f"distilled from weights under {info.licence}",
            },
        }


def engine_predictor(engine: Engine) -> Predict:
    """Evaluates a loaded payload."""

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        return torch.from_numpy(engine(past.numpy()))

    return predict


def teacher_latency(recipe: Recipe, unit: CompileUnit) -> dict[str, Any]:
    """The teacher's own latency record, for a store that is used without the teacher."""
    windows = unit.data.windows("train", unit.task.lookback, unit.task.horizon)
    past, _ = windows.batch(np.linspace(0, len(windows) - 1, LATENCY_WINDOWS).astype(int))
    if unit.teacher is None:
        raise ValueError("the unit has no teacher")
    report = measure(
        {"teacher": torch_candidate(unit.teacher)},
        past.numpy(),
        threads=recipe.threads,
        duration_s=recipe.measure.duration_s,
        min_queries=64,
        forms={"teacher": TEACHER_FORM},
    )
    return report.to_manifest()


def overlap_with(info: Any, data: str) -> str:
    """Whether the teacher's pre-training may have seen ``data``: yes, no or unknown."""
    from ..frontends import find_card

    try:
        return str(find_card(info.name).overlap.get(data, "unknown"))
    except UsageError:
        return str(info.pretraining_overlap)
