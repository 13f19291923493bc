"""The TensorRT target: export, precision in the graph, vectors, and the ladder of what was shown.

    exported        onnx.checker, and parity of that very file on onnxruntime
    parsed          NVIDIA's ONNX parser takes it
    compiled_proxy  TensorRT-RTX compiled it for named compute capabilities; not executed
    device_built    TensorRT built an engine for the GPU of this machine
    executed        that engine agreed with the vectors on that GPU

Below ``executed`` there is no latency and no speed-up, only what was shown and by what.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from copy import copy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template
from typing import Any, ClassVar

import numpy as np
import torch

from ...compiler.base.errors import LoweringError, MissingError, RecipeError, VerificationError
from ..base import Availability, Payload, Program, Rewrite, Say, Shape, Target, TargetOptions, TaskFacts
from .child import MEMORY_BYTES, RTX_MODULE, ChildResult, run_script
from .device.trt_engine import Cuda, DeviceError
from .device.trt_engine import Engine as DeviceEngine
from .options import LADDER, BatchProfile, Level, TrtOptions
from .presets import PRESETS
from .vectors import (
    DEVICE_TOLERANCE,
    FILE_TOLERANCE,
    engine_spec,
    errors,
    open_session,
    plan_vectors,
    write_expected,
    write_pool,
)

DEVICE = Path(__file__).resolve().parent / "device"
SCRIPTS = ("trt_engine.py", "build_engine.py", "check_engine.py")
ONNX, PROGRAM, PLAN, SPEC = "model.onnx", "model.pt2", "model.engine", "engine.json"
MADE_ON_DEVICE = DeviceEngine.device_files
Report = dict[str, dict[str, Any]]
"""Level -> what was shown."""

INSTALL_RTX = 'install "tsfmc[trt-check]"'
NO_GPU = "run build_engine.py and check_engine.py on the device"


class TensorRT(Target):
    """Lowers to ONNX with its precision in the graph, and to the scripts that build the engine."""

    kind: ClassVar[str] = "trt"
    summary: ClassVar[str] = "NVIDIA devices: TensorRT engine built on the device, compile check here"
    Options: ClassVar[type[TargetOptions]] = TrtOptions
    runtime_requirements: ClassVar[tuple[str, ...]] = ("numpy", "tensorrt>=10.3,<11.5")
    task: TaskFacts | None = None

    def probe(self) -> Availability:
        """The versions found, and what is missing for each level."""
        facts, problems = {}, []
        for package in ("tensorrt", "torch-tensorrt", "tensorrt-rtx-cu13-bindings"):
            try:
                facts[package] = version(package)
            except PackageNotFoundError:
                facts[package] = "not installed"
        if importlib.util.find_spec(RTX_MODULE) is None:
            problems.append(f"no TensorRT-RTX, so nothing above 'exported' can be shown here: {INSTALL_RTX}")
        gpu = _gpu()
        facts["gpu"] = f"{gpu['name']} {gpu['compute_capability']}" if gpu else "none"
        if gpu is None:
            problems.append(f"no NVIDIA GPU, so nothing is executed here: {NO_GPU}")
        can_run = gpu is not None and importlib.util.find_spec("tensorrt") is not None
        return Availability(can_lower=True, can_run=can_run, problems=tuple(problems), facts=facts)

    def for_task(self, task: TaskFacts) -> Target:
        """The same target, whose model.onnx says what it forecasts."""
        told = copy(self)
        told.task = task
        return told

    def rewrites(self, options: TargetOptions) -> Sequence[Rewrite]:
        from ..onnx_graph.precision import to_fp16
        from ..onnx_graph.quantize import quantize
        from ..onnx_graph.translate import to_onnx

        chosen = _options(options)
        precision = chosen.precision
        steps = [
            Rewrite(
                "to_onnx",
                f"ONNX, batch {chosen.fixed_batch or 'symbolic'}, simplified and checked",
                lambda program, calibration: to_onnx(program, batch=chosen.fixed_batch),
            )
        ]
        if precision == "fp16":
            steps.append(
                Rewrite("to_fp16", "an fp16 core around which what grows stays fp32", lambda g, _: to_fp16(g))
            )
        elif precision in ("int8", "fp8"):
            summary = f"{precision} in the graph around every linear layer, ranges from training windows"
            steps.append(Rewrite(f"quantize_{precision}", summary, lambda g, c: quantize(g, c, precision)))
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
        """See ``Target.lower``.

        Raises:
            LoweringError: TensorRT does not take the program; names node, operator and what to do.
            MissingError: ``require`` cannot be reached on this machine.
            VerificationError: the exported file, or an engine built here, does not agree with the program.
        """
        from ..onnx_graph.metadata import stamp, task_metadata

        options = _options(options)
        shape, task = program.shape, self.task
        metadata = task_metadata(task.contract(shape), task.licence) if task else {}
        graph = stamp(graph, metadata)
        report: Report = {"exported": self._export(program, graph, directory, options, calibration, progress)}
        missing = self._compile_check(directory, options, report, progress)
        missing = self._on_device(directory, options, report, progress) or missing
        reached = max((LADDER.index(level) for level in LADDER if level in report), default=0)
        statement = _statement(options, report, LADDER[reached], missing)
        _write_device_files(directory, shape, options, statement)
        if reached < LADDER.index(options.require):
            raise MissingError(
                f"target trt reached {LADDER[reached]!r}, {options.require!r} is required", hint=missing
            )
        files = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}
        worst = max(vector["error"] for vector in report["exported"]["parity"])
        return Payload(
            files=tuple(sorted(files - set(MADE_ON_DEVICE))),
            entry=ONNX,
            level=LADDER[reached],
            runs_here="device_built" in report,
            details={
                "metadata": metadata,
                "teacher_engine": True,
                "tolerance": worst + DEVICE_TOLERANCE[options.precision],
                "precision": options.precision,
                "preset": options.preset,
                "batch": options.batch.model_dump(),
                "ladder": report,
                "statement": statement,
                "next": missing,
            },
        )

    def engine_source(self) -> Path:
        """``device/trt_engine.py``: its ``Engine`` needs numpy, its ``Plan`` nothing but TensorRT."""
        return DEVICE / "trt_engine.py"

    def add_teacher(self, directory: Path, onnx_file: bytes, windows: np.ndarray) -> None:
        """The teacher's ONNX file and the scripts that build its engine beside the artifact's own."""
        super().add_teacher(directory, onnx_file, windows)
        write_teacher_spec(directory / "teacher", onnx_file)
        _scripts_in(directory / "teacher", ("trt_engine.py", "build_engine.py"))

    def describe(self) -> Mapping[str, Sequence[str] | str]:
        """Presets with their precisions and the TensorRT versions of their system software."""
        lines = [
            f"{name}: {preset.device} {preset.capability}; {', '.join(preset.precisions)}; "
            + ", ".join(f"{system}: TensorRT {number}" for system, number in preset.tensorrt.items())
            + f"; check: {preset.statement()}"
            for name, preset in PRESETS.items()
        ]
        return {"summary": self.summary, "devices": lines, "levels": LADDER}

    def _export(
        self,
        program: Program,
        graph: Any,
        directory: Path,
        options: TrtOptions,
        calibration: np.ndarray,
        progress: Say,
    ) -> dict[str, Any]:
        """Writes model.onnx, model.pt2, vectors and engine.json; proves the file on onnxruntime."""
        import onnx

        progress(f"writing {ONNX}, {options.precision}")
        torch.export.save(program.at(options.fixed_batch), directory / PROGRAM)
        onnx.save(graph, directory / ONNX)
        onnx.checker.check_model(str(directory / ONNX), full_check=True)
        refuse_new_operators(graph)
        digest = hashlib.sha256((directory / ONNX).read_bytes()).hexdigest()
        progress("comparing model.onnx on onnxruntime with the program")
        parity, entries = self._parity(program, directory, options, calibration)
        spec = engine_spec(program.shape, options.batch, options.precision, digest, entries)
        (directory / SPEC).write_text(json.dumps(spec, indent=2) + "\n")
        opset = next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
        return {"onnx_sha256": digest, "opset": opset, "parity": parity}

    def _parity(
        self, program: Program, directory: Path, options: TrtOptions, calibration: np.ndarray
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        run = open_session(directory / ONNX)
        pool = write_pool(directory, calibration)
        tolerance = FILE_TOLERANCE[options.precision]
        parity, entries = [], []
        for vector in plan_vectors(options.batch):
            past = vector.windows(pool)
            truth = program(past)
            got = run(past)
            worst = float(errors(past, got, truth).max())
            if not np.isfinite(worst) or (tolerance is not None and worst > tolerance):
                raise VerificationError(
                    f"model.onnx ({options.precision}) differs from the model by {worst:.3g} on vector"
                    f" {vector.name}, at most {tolerance} is allowed",
                    hint="use precision=fp32; if that fails too, the export is broken: report it",
                )
            parity.append({"vector": vector.name, "error": worst, "tolerance": tolerance})
            entries.append(write_expected(directory, vector, got))
        return parity, entries

    def _compile_check(self, directory: Path, options: TrtOptions, report: Report, progress: Say) -> str:
        """Parses and compiles in a child process; returns what the next level needs."""
        if importlib.util.find_spec(RTX_MODULE) is None:
            return INSTALL_RTX
        capabilities = options.check_capabilities()
        arguments = ["--library", RTX_MODULE]
        if capabilities:
            progress(f"compiling with TensorRT-RTX for {', '.join(capabilities)}")
            arguments += ["--compute-capability", ",".join(capabilities)]
        else:
            progress("parsing with TensorRT-RTX")
            arguments += ["--parse-only"]
        result = run_script(
            _scripts_in(directory) / "build_engine.py", arguments, options.time_limit_s, MEMORY_BYTES
        )
        parsed, built = result.record("parsed"), result.record("built")
        if parsed is not None:
            report["parsed"] = {"parser": parsed["built_with"]}
        if built is not None:
            report["compiled_proxy"] = {
                "compiler": built["built_with"],
                "compute_capabilities": built["compute_capabilities"],
                "tf32": built["tf32"],
                "plan_sha256": built["plan_sha256"],
                "plan_bytes": built["plan_bytes"],
                "seconds": built["seconds"],
                "statement": "not executed; not a Jetson engine",
            }
            (directory / PLAN).unlink()
            (directory / f"{PLAN}.json").unlink()
            return NO_GPU
        if result.code == 0 and options.chosen is not None:
            return (
                f"TensorRT-RTX does not compile {options.precision} for {options.chosen.proxy};"
                f" use {', '.join(options.chosen.proxy_precisions)}, or {NO_GPU}"
            )
        return _explain(result, "TensorRT-RTX")

    def _on_device(self, directory: Path, options: TrtOptions, report: Report, progress: Say) -> str:
        """Builds and checks the engine where this machine has a GPU; returns what is missing for more."""
        gpu = _gpu()
        if gpu is None:
            return ""
        if importlib.util.find_spec("tensorrt") is None:
            return f"{gpu['name']} is here, TensorRT is not: pip install tensorrt"
        progress(f"building the engine for {gpu['name']}")
        scripts = _scripts_in(directory)
        built = run_script(scripts / "build_engine.py", ["--library", "tensorrt"], options.time_limit_s)
        record = built.record("built")
        if record is None:
            return _explain(built, "TensorRT")
        report["parsed"] = report.get("parsed", {"parser": record["built_with"]})
        report["device_built"] = record
        checked = run_script(scripts / "check_engine.py", ["--latency"], options.time_limit_s)
        if checked.code == 5:
            raise VerificationError(
                f"the engine that TensorRT built here does not agree with the model: {checked.problem}",
                hint="use precision=fp32 or another TensorRT version",
            )
        shown = checked.record("executed")
        if shown is None:
            return _explain(checked, "TensorRT")
        report["executed"] = shown
        if options.precision == "fp32" and importlib.util.find_spec("torch_tensorrt") is not None:
            from .torch_tensorrt_build import build_with_torch_tensorrt

            report["executed"]["torch_tensorrt"] = build_with_torch_tensorrt(directory, options.batch)
        return ""


def _options(options: TargetOptions) -> TrtOptions:
    if not isinstance(options, TrtOptions):
        raise RecipeError(
            f"target trt got {type(options).__name__}, TrtOptions is expected",
            hint="pass TARGET.Options(...)",
        )
    return options


def refuse_new_operators(model: Any) -> None:
    """Refuses what TensorRT 10.3 has no importer for though the opset allows it.

    Raises:
        LoweringError: names node and operator.
    """
    for node in model.graph.node:
        if node.op_type == "GroupNormalization":
            raise LoweringError(
                f"ONNX node {node.name!r} is GroupNormalization, which TensorRT 10.3 does not take",
                hint="write it as a reshape and a LayerNormalization",
            )


def _gpu() -> dict[str, Any] | None:
    try:
        return Cuda().describe()
    except DeviceError:
        return None


def write_teacher_spec(folder: Path, onnx_file: bytes) -> None:
    """``engine.json`` of a teacher whose ``model.onnx`` is this file; it has no vectors to be checked by."""
    import onnx

    graph = onnx.load_from_string(onnx_file).graph
    (batch, variates, lookback), (_, _, horizon) = (
        [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (graph.input[0], graph.output[0])
    )
    profile = BatchProfile(min=1, opt=1, max=1 if batch else 8)
    digest = hashlib.sha256(onnx_file).hexdigest()
    spec = engine_spec(Shape(variates, lookback, horizon), profile, "fp32", digest, [])
    (folder / SPEC).write_text(json.dumps(spec, indent=2) + "\n")


def _scripts_in(directory: Path, names: Sequence[str] = SCRIPTS) -> Path:
    """Copies the device's scripts beside the model, so that the very files a user gets are run."""
    for name in names:
        shutil.copyfile(DEVICE / name, directory / name)
    return directory


def _explain(result: ChildResult, library: str) -> str:
    """What a script that fell short is missing.

    Raises:
        LoweringError: the library refuses the model.
    """
    if result.crashed:
        return f"{library} failed on this model: {result.problem}; report it to NVIDIA"
    if result.code == 2:
        raise LoweringError(f"{library} refuses model.onnx: {result.problem}")
    return f"{library}: {result.problem}"


def _statement(options: TrtOptions, report: Report, level: Level, missing: str) -> str:
    """One or two sentences on what was shown, for the manifest and the device's README."""
    if level == "exported":
        return f"exported: model.onnx agrees with the model on onnxruntime; not compiled; {missing}."
    if level == "parsed":
        parser = report["parsed"]["parser"]
        return f"parsed: {parser} parsed model.onnx; not compiled; {missing}."
    if level == "compiled_proxy":
        check = report["compiled_proxy"]
        names = ", ".join(check["compute_capabilities"])
        chosen = f" {options.chosen.statement()}." if options.chosen is not None else ""
        compiled = f"{check['compiler']} compiled model.onnx for {names}"
        return f"compiled_proxy: {compiled}; {check['statement']}.{chosen}"
    record = report["device_built"]
    where = f"{record['built_with']} on {record['gpu']['name']}"
    if level == "device_built":
        return f"device_built: {where} built the engine; not executed."
    return f"executed: {where}, parity within tolerance on every vector."


def _write_device_files(directory: Path, shape: Shape, options: TrtOptions, statement: str) -> None:
    """README.md and the trtexec script, filled in."""
    _scripts_in(directory)
    batch, sizes = options.batch, f"{shape.variates}x{shape.inputs}"
    profile = " ".join(
        f"--{key}Shapes=past:{value}x{sizes}"
        for key, value in batch.model_dump().items()
        if not batch.is_static
    )
    preset = ""
    if options.chosen is not None:
        systems = ", ".join(f"{system} has {number}" for system, number in options.chosen.tensorrt.items())
        preset = f"\nMade for {options.chosen.device}: {systems}.\n"
    values = {
        "SHAPES": profile,
        "VARIATES": shape.variates,
        "LOOKBACK": shape.inputs,
        "HORIZON": shape.outputs,
        "PRECISION": options.precision,
        "BATCH": str(batch.max) if batch.is_static else f"{batch.min} to {batch.max}, tuned for {batch.opt}",
        "PRESET": preset,
        "STATEMENT": statement,
    }
    for name in ("README.md", "build_with_trtexec.sh"):
        text = _At((DEVICE / name).read_text()).substitute(values)
        (directory / name).write_text(text)
    (directory / "build_with_trtexec.sh").chmod(0o755)


class _At(Template):
    """``@NAME@``, because ``$`` belongs to the shell."""

    pattern = r"@(?P<braced>[A-Z]+)@|(?P<escaped>(?!))|(?P<named>(?!))|(?P<invalid>(?!))"  # type: ignore[assignment]
