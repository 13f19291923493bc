"""The c target: one page from a program to C that was executed.

program --(int8: centre_windows)--> to_onnx --read_graph--> steps --emit--> tsfmc_model.c, tsfmc_model.h
  Linux:  model.so for Python, a Makefile with an example
  bare:   the example for an emulated board
-> compile, run here or emulated against the program on hard windows, count flash, memory and instructions
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.export import ExportedProgram

from ...compiler.base.errors import LoweringError, VerificationError
from ..base import Availability, Payload, Program, Rewrite, Say, Shape, Target, TargetOptions, TaskFacts
from ..native import ENGINE
from ..native.boards import Measured
from . import build
from .devices import DEVICES, Device, find_device
from .emit import HEADER, PROBES, SOURCE, Selftest, synthetic_window, write_sources
from .layouts import write_layouts
from .options import COptions
from .read_graph import Graph, read_graph

INT8_TOLERANCE = 5e-2
"""int8 weights change the function: this bounds a broken program, not the loss of accuracy."""
MOST_WEIGHTS = 4 << 20
"""Numbers: beyond, the C file has some hundred megabytes and compilers take minutes."""


class CTarget(Target):
    """Lowers to C99 source; ``devices.py`` has the devices it is compiled and run for."""

    kind = "c"
    summary = "one .c and one .h in plain C99, from microcontrollers to servers"
    Options: ClassVar[type[TargetOptions]] = COptions
    runtime_requirements = ("numpy",)
    tolerance = 1e-5

    def __init__(self, task: TaskFacts | None = None) -> None:
        self.task = task

    def for_task(self, task: TaskFacts) -> Target:
        return CTarget(task)

    def probe(self) -> Availability:
        missing = []
        for device in DEVICES.values():
            try:
                build.require_compiler(device)
            except LoweringError as error:
                missing.append(f"{error.what}: {error.hint}")
            except Exception as error:
                missing.append(str(error))
        here = [line for line in missing if line.startswith(f"device {find_device('host').name}:")]
        return Availability(not here, not here, tuple(missing))

    def rewrites(self, options: TargetOptions) -> Sequence[Rewrite]:
        from ..native.centre import centre
        from ..onnx_graph.translate import OPSET, translate

        settings = COptions.model_validate(options.model_dump())
        steps = [Rewrite("fix_batch", "batch 1", lambda program, _: program.at(1))]
        if settings.precision != "fp32":
            summary = "the window's mean goes round rounded weights, where the program is affine"
            steps.append(
                Rewrite("centre_windows", summary, lambda graph, _: centre(graph, (1, *_shape(graph)[:2])))
            )
        summary = f"ONNX opset {OPSET}, simplified and checked"
        steps.append(
            Rewrite("to_onnx", summary, lambda graph, _: translate(graph, Shape(*_shape(graph)), batch=1))
        )
        return steps

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
        settings = COptions.model_validate(options.model_dump())
        device = find_device(settings.device)
        build.require_compiler(device)
        directory = directory.resolve()  # compilers run in a folder of their own
        read = read_graph(graph, settings.precision)
        count = sum(each.values.size for each in read.weights.arrays)
        if count > MOST_WEIGHTS:
            raise LoweringError(
                f"c: {count} weights, the C file takes at most {MOST_WEIGHTS}", hint="use the tvm target"
            )
        with tempfile.TemporaryDirectory(prefix="tsfmc-c-") as work:
            lowering = _Lowering(self, program, read, settings, device, directory, Path(work), progress)
            return lowering.payload(calibration)

    def engine_source(self) -> Path:
        return ENGINE

    def describe(self) -> Mapping[str, Sequence[str] | str]:
        return {
            "summary": self.summary,
            "devices": ["host", *DEVICES],
            "options": sorted(COptions.model_fields),
            "levels": ["compiled", "emulated", "executed"],
        }


class _Lowering:
    """One call of ``lower``."""

    def __init__(
        self,
        target: CTarget,
        program: Program,
        graph: Graph,
        options: COptions,
        device: Device,
        directory: Path,
        work: Path,
        progress: Say,
    ) -> None:
        self.program, self.graph, self.options, self.device = program, graph, options, device
        self.directory, self.work, self.progress = directory, work, progress
        self.tolerance = target.tolerance if options.precision == "fp32" else INT8_TOLERANCE
        variates = program.shape.variates
        self.task = target.task or TaskFacts(
            tuple(f"x{n}" for n in range(variates)), None, None, "error", (0.0,) * variates, (1.0,) * variates
        )

    def payload(self, calibration: np.ndarray) -> Payload:
        device, seconds = self.device, self.options.time_limit_s
        scratch = write_sources(
            self.graph, self.task, self.selftest(), self.options.precision, self.directory
        )
        files = [SOURCE, HEADER, *build.write_example(device, self.directory)]
        files += write_layouts(self.directory)
        self.progress(f"compiling for {device.name}")
        entry = SOURCE
        build.compile_model(device, self.directory, self.work, seconds)
        if device.board is None:
            build.link_shared(device, self.directory, self.work, seconds)
            entry = build.SHARED
            files.append(entry)
        binary = build.link_example(device, self.directory, self.work, seconds)
        sizes = build.sizes(device, self.work, binary, seconds)
        checked = self.check(binary, calibration)
        shape = self.program.shape
        details = {
            "kind": CTarget.kind,
            "entry": entry,
            "device": device.name,
            "machine": device.row.system,
            "cpu_features": list(device.row.needs),
            "flags": list(device.flags),
            "input_shape": [1, shape.variates, shape.inputs],
            "output_shape": [1, shape.variates, shape.outputs],
            "precision": self.options.precision,
            "sizes": {
                "weight_bytes": self.graph.weights.size_bytes,
                "scratch_bytes": scratch,
                **sizes,
            },
            "multiply_adds": self.graph.macs,
            "steps": len(self.graph.steps),
            "cross_check": checked,
            "tolerance": self.tolerance,
            "latency": "measured here" if device.native else "not measured here",
        }
        level = ("executed" if device.native else "emulated") if checked else "compiled"
        return Payload(tuple(sorted(files)), entry, level, device.native, details)

    def selftest(self) -> Selftest:
        """Numbers of the original program's forecast."""
        shape = self.program.shape
        past = synthetic_window(shape.variates, shape.inputs)
        forecast = self.program(past)[0].reshape(-1)
        places = sorted({int(place) for place in np.linspace(0, len(forecast) - 1, PROBES)})
        allowed = self.tolerance * float(np.abs(past).max() + np.abs(forecast).max())
        return Selftest(places, [float(forecast[place]) for place in places], allowed)

    def check(self, binary: Path, calibration: np.ndarray) -> dict[str, Any] | None:
        """Runs the example, natively or emulated, against the program on hard windows.

        Raises:
            VerificationError: it departs from the model, or cannot run.
        """
        from ..measure.parity import check_parity, hard_windows

        device = self.device
        if not build.can_run(device):
            return None
        runner = device.emulator[0] if device.emulator else "this machine"
        self.progress(f"running the example on {runner}")
        reports: list[Measured] = []

        def engine(past: np.ndarray) -> np.ndarray:
            output = (self.program.shape.variates, self.program.shape.outputs)
            forecast, report = build.run_example(device, binary, past, output, self.options.time_limit_s)
            reports.extend([report] if report else [])
            return forecast

        parity = check_parity(engine, self.program, hard_windows(calibration), self.tolerance)
        if not parity.passed:
            raise VerificationError(
                f"c: on {device.name} ({runner}) the example departs from the model: {parity.describe()}"
            )
        found: dict[str, Any] = {
            "ran_on": " ".join(device.emulator[:3]) or runner,
            "max_rel": parity.max_rel,
            "tolerance": self.tolerance,
        }
        if reports:
            # Counts hang on the window's numbers only where a forecast takes branches: the largest is stated.
            found["emulated"] = {
                name: max(asdict(report)[name] for report in reports)
                for name in ("stack_bytes", "instructions")
            }
        return found


def _shape(graph: ExportedProgram) -> tuple[int, int, int]:
    """D, L and H of a program at batch 1."""
    nodes = {node.name: node.meta.get("val") for node in graph.graph.nodes}
    past = nodes[graph.graph_signature.user_inputs[0]]
    forecast = nodes[graph.graph_signature.user_outputs[0]]
    return int(past.shape[1]), int(past.shape[2]), int(forecast.shape[2])


TARGET = CTarget()
