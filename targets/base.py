"""The target protocol: probe, rewrites, lower, load, describe.

A target turns the exported program into files that a device can run.  It knows no pass, and nothing
outside ``targets/`` knows a target's name.  Heavy imports live inside methods.

    program --the target's own rewrites, one by one--> graph --lower--> payload

The driver does the rest for every target alike: ``check -> measure -> pack``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict
from torch import nn

from ..compiler.base.errors import MissingError
from ..compiler.ir.program import Program, Shape, export_program
from .artifact.device.files import ArtifactFiles
from .artifact.device.portable import PORTABLE
from .artifact.runner import engine_class

__all__ = [
    "Availability", "Emulation", "Engine", "Payload", "Program", "Rewrite", "Shape", "Target",
    "TargetOptions", "TaskFacts",
]  # fmt: skip

Engine = Callable[[np.ndarray], np.ndarray]
"""``past [B, D, L]`` float32 -> ``forecast [B, D, H]`` float32, both scaled, host memory."""
Say = Callable[[str], None]
"""Takes a line of progress."""


class TargetOptions(BaseModel):
    """Options of ``[targets.<kind>]`` in a recipe; a target subclasses it.  Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Availability:
    """Whether a target can lower here, and whether what it lowers can run here.

    ``problems`` are one line each and say what to install.
    """

    can_lower: bool
    can_run: bool
    problems: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskFacts:
    """What a device may be told of the task beside the program.

    Attributes:
        variates: names ``[D]``.
        frequency, step_seconds: of the rows; None where unknown, or no fixed time.
        missing: policy for missing values, see ``compiler/data/filling.py``.
        mean, std: of each variate ``[D]``: ``scaled = (raw - mean) / std``.
        licence: of the teacher, SPDX; None where unknown.
        quantile_levels: of the forecast, ascending; none where a step has one number.
        inputs: groups of numbers behind a variate's past, as the manifest has them.
    """

    variates: tuple[str, ...]
    frequency: str | None
    step_seconds: float | None
    missing: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str | None = None
    quantile_levels: tuple[float, ...] = ()
    inputs: tuple[Mapping[str, Any], ...] = ()

    def contract(self, shape: Shape) -> dict[str, dict[str, Any]]:
        """``task`` and ``input`` as a manifest has them, as far as they are known here."""
        return {
            "task": {
                "lookback": shape.lookback,
                "horizon": shape.horizon,
                "variates": list(self.variates),
                "frequency": self.frequency,
                "step_seconds": self.step_seconds,
                "missing": self.missing,
                **({"quantile_levels": list(self.quantile_levels)} if self.quantile_levels else {}),
                **({"inputs": [dict(group) for group in self.inputs]} if self.inputs else {}),
            },
            "input": {"mean": list(self.mean), "std": list(self.std)},
        }


@dataclass(frozen=True)
class Rewrite:
    """One named step of a target from a form of the program to the next, before ``lower`` writes it.

    Attributes:
        name: verb_object, as it stands in the list of stages.
        summary: what it does, in a line.
        apply: ``(graph, calibration [N, D, L]) -> graph``; the first one of a target is given the program,
            the others what the one before returned.
    """

    name: str
    summary: str
    apply: Callable[[Any, np.ndarray], Any]


@dataclass(frozen=True)
class Payload:
    """What ``lower`` wrote.

    Attributes:
        files: payload files relative to the artifact directory.
        entry: the file that the engine loads.
        level: the highest level really reached (``exported``, ``parsed``, ``compiled``, ``executed``, or
            a target's own ladder); ``check`` raises it to ``executed`` only after running it.
        runs_here: whether ``load`` works on this machine.
        details: target-specific facts for the manifest (``manifest["target"]``); ``precision`` among them
            says what is not fp32.
        requires: what a device must install for this payload beside the target's ``runtime_requirements``.
    """

    files: tuple[str, ...]
    entry: str
    level: str
    runs_here: bool
    details: Mapping[str, Any] = field(default_factory=dict)
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Emulation:
    """An artifact of another machine under that machine's emulator: what it computes, never how fast.

    Attributes:
        engine: as any other, slow.
        runner: the emulator's name.
        instructions: of one forecast of ``past [1, D, L]``, or None where they cannot be counted in time.
    """

    engine: Engine
    runner: str
    instructions: Callable[[np.ndarray], int | None]


class Target:
    """A target.  One instance per kind lives in the registry."""

    kind: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type[TargetOptions]] = TargetOptions
    runtime_requirements: ClassVar[tuple[str, ...]] = ()
    """What a device must install to run the artifact, as pip requirements."""
    tolerance: ClassVar[float] = 1e-4
    """Parity: max |engine - model| <= tolerance * (max |past| + max |model|), window by window."""

    def probe(self) -> Availability:
        """What this machine has."""
        raise NotImplementedError

    def require(self, options: TargetOptions) -> None:
        """Looks, before anything long starts, for what ``lower`` will need with these options.

        Raises:
            UsageError: a device that nothing here can lower for.
            MissingError: a tool that is not installed.
        """

    def for_task(self, task: TaskFacts) -> Target:
        """The target as it lowers for a task; for those whose payload holds names, units or the step."""
        return self

    def rewrites(self, options: TargetOptions) -> Sequence[Rewrite]:
        """What the target makes of the program before it is lowered, in order."""
        return ()

    def lower(
        self,
        program: Program,
        graph: Any,
        directory: Path,
        *,
        options: TargetOptions,
        calibration: np.ndarray,
        progress: Say = lambda line: None,
    ) -> Payload:
        """Writes the payload into ``directory`` (empty, temporary).

        Args:
            program: as the unit has it: what the payload is held to.
            graph: what the last of ``rewrites`` returned, the program itself where there is none.
            calibration: real training windows ``[N, D, L]`` float32, N <= 256.

        Raises:
            LoweringError: an operator, a shape or a precision that the target cannot take.
            MissingError: a tool that is not installed.
        """
        raise NotImplementedError

    def lower_model(
        self,
        model: nn.Module,
        shape: Shape,
        directory: Path,
        *,
        options: TargetOptions,
        calibration: np.ndarray,
        progress: Say = lambda line: None,
    ) -> Payload:
        """Exports ``model``, rewrites and lowers it in one go, for those who have no unit.

        Args:
            model: in eval mode, fp32, CPU, ``past [B, D, L] -> [B, D, H]``.
        """
        program = export_program(model, shape, calibration)
        graph: Any = program
        for rewrite in self.rewrites(options):
            graph = rewrite.apply(graph, calibration)
        return self.lower(
            program, graph, directory, options=options, calibration=calibration, progress=progress
        )

    def engine_source(self) -> Path:
        """The file with ``class Engine`` that is pasted into the artifact's ``run.py``.

        It may import only the standard library, numpy and the target's runtime, and defines
        ``Engine(files, manifest: dict, threads: int)`` with ``__call__(past) -> forecast``, which takes any
        batch: an engine of a fixed batch pads and slices.  It reads the payload by ``files.read(name)``,
        which gives the bytes that were hashed, and opens nothing by its name.  Of the manifest it may rely on
        ``target.entry`` and on what ``Payload.details`` put beside it: where that has ``input_shape``,
        ``output_shape`` or ``batch``, they were compared with the task.  What a device makes beside the
        payload it names in ``Engine.device_files``: these alone may be there without a hash, and never code.
        """
        raise NotImplementedError

    def load(self, directory: Path, payload: Payload, threads: int) -> Engine:
        """The engine of a payload in ``directory``: the very class that ``run.py`` carries.

        Raises:
            MissingError: the runtime is not installed here.
        """
        manifest = {"target": {"kind": self.kind, "entry": payload.entry, **payload.details}}
        try:
            engine: Engine = engine_class(self.engine_source())(ArtifactFiles(directory), manifest, threads)
        except ImportError as error:
            needs = ", ".join((*self.runtime_requirements, *payload.requires))
            raise MissingError(
                f"target {self.kind} cannot run here: {error}", hint=f"install {needs}"
            ) from error
        return engine

    def emulation(self, directory: Path, manifest: Mapping[str, Any]) -> Emulation | None:
        """An artifact that does not run on this machine, under an emulator; None where there is none.

        Args:
            directory: the artifact, its hashes checked.
        """
        return None

    def add_teacher(self, directory: Path, onnx_file: bytes, windows: np.ndarray) -> None:
        """Puts the teacher into an artifact's ``teacher/``, in the form its devices can run it in.

        By default its ONNX file, for devices that have onnxruntime.

        Args:
            directory: the draft of the artifact, payload and all.
            windows: real windows ``[N, D, L]``, scaled.
        """
        path = directory / PORTABLE
        path.parent.mkdir()
        path.write_bytes(onnx_file)

    def describe(self) -> Mapping[str, Sequence[str] | str]:
        """Facts for ``tsfmc targets``: devices, options, levels."""
        return {"summary": self.summary}
