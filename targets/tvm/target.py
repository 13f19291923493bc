"""The tvm target: one page from a model to an artifact.

program -> batch fixed, operators rewritten -> child process: Relax -> fuse -> schedule kernels -> LLVM object
  runtime-free: plan an arena, write C, link  .so, .a        (no TVM on the device)
  vm:           the same kernels in TVM's virtual machine
-> run the result here, or under qemu-user, against the model on hard windows
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel

from ...compiler.base.content import cache_root, content_key, file_hash
from ...compiler.base.errors import LoweringError, VerificationError
from ...compiler.base.reading import validated
from ...compiler.base.sealed import publish, read_sealed, sealed, unfinished, warn_damaged
from ...compiler.ir.program import program_key
from ..base import Availability, Emulation, Engine, Payload, Program, Rewrite, Say, Target, TargetOptions
from ..native import ENGINE
from ..native.boards import ELF, Measured, run_example
from ..native.devices import DEVICES, Device, find_device, lesser_devices
from .job import PIN, RUNTIME, Job, run_child
from .names import ARCHIVE, BINARIES, SHARED, STATIC_BINARY, VM
from .options import TvmOptions
from .toolchain import can_emulate, problems, require_compiler, run_static_binary

ANSWER = "answer.json"
FFI_SERIES = "0.1.14"
INT8_TOLERANCE = 5e-2
"""int8 weights change the function: this bounds a broken program, not the loss of accuracy."""
CHANGE_WINDOWS = 64
"""About so many real windows show how far a quantised program is from its model (``rms_change``)."""


class CachedCompile(BaseModel, extra="forbid"):
    """``answer.json`` of the cache: what the child answered, and the sha256 of every file that it left."""

    answer: dict[str, Any]
    files: dict[str, str]


class TvmTarget(Target):
    """Lowers to machine code for one CPU; see ``devices.py`` for the presets."""

    kind = "tvm"
    summary = "machine code for x86-64, ARM and RISC-V CPUs, with no runtime on the device"
    Options: ClassVar[type[TargetOptions]] = TvmOptions
    runtime_requirements = ("numpy",)
    tolerance = 1e-5

    def probe(self) -> Availability:
        facts, missing = {}, []
        for package in ("apache-tvm", "apache-tvm-ffi"):
            try:
                facts[package] = version(package)
            except PackageNotFoundError:
                missing.append(f"{package} is not installed: pip install 'tsfmc[tvm]'")
        ffi = facts.get("apache-tvm-ffi", "")
        if ffi and not ffi.startswith(FFI_SERIES + "."):
            missing.append(f"apache-tvm-ffi {ffi} crashes this TVM: install {PIN}")
        if not missing and shutil.which("gcc") is None:
            missing.append("gcc is not installed: apt-get install gcc")
        return Availability(not missing, not missing, (*missing, *problems()), facts)

    def smoke_test(self, time_limit_s: float = 60.0) -> Mapping[str, Any]:
        """Checks in a child process that the installed TVM can do what it crashes at when mispaired.

        Raises:
            LoweringError: names the signal and the versions to install.
        """
        with tempfile.TemporaryDirectory() as folder:
            return run_child(Job("smoke"), Path(folder), time_limit_s)

    def require(self, options: TargetOptions) -> None:
        require_compiler(find_device(TvmOptions.model_validate(options.model_dump()).device))

    def rewrites(self, options: TargetOptions) -> Sequence[Rewrite]:
        from ..native.centre import centre
        from .importer import rewrite_operators

        settings = TvmOptions.model_validate(options.model_dump())
        batch = settings.batch
        summary = f"batch {batch}, operators that TVM's frontends lack or read wrongly replaced"
        steps = [Rewrite("rewrite_operators", summary, lambda program, _: rewrite_operators(program, batch))]
        if settings.precision != "fp32":
            summary = "the window's mean goes round rounded weights, where the program is affine"
            steps.append(Rewrite("centre_windows", summary, lambda graph, _: centre(graph, input_of(graph))))
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
        settings = TvmOptions.model_validate(options.model_dump())
        device = find_device(settings.device)
        if settings.form != "runtime-free" and not device.has_runtime:
            raise LoweringError(
                f"tvm: device {device.name}: form {settings.form!r} needs TVM's runtime on the device, and "
                f"apache-tvm has no wheel for {device.system}",
                hint="use form = 'runtime-free'",
            )
        require_compiler(device)
        with tempfile.TemporaryDirectory(prefix="tsfmc-tvm-") as scratch:
            lowering = _Lowering(self, program, graph, settings, device, Path(scratch), calibration, progress)
            return lowering.payload(directory)

    def engine_source(self) -> Path:
        return ENGINE

    def emulation(self, directory: Path, manifest: Mapping[str, Any]) -> Emulation | None:
        from .emulate import emulate

        return emulate(directory, manifest["target"])

    def describe(self) -> Mapping[str, Sequence[str] | str]:
        return {
            "summary": self.summary,
            "devices": ["host", *DEVICES, "or a TVM target dictionary with mtriple"],
            "options": sorted(TvmOptions.model_fields),
            "levels": ["compiled", "emulated", "executed"],
        }


class _Lowering:
    """One call of ``lower``."""

    def __init__(
        self,
        target: TvmTarget,
        program: Program,
        graph: torch.export.ExportedProgram,
        options: TvmOptions,
        device: Device,
        work: Path,
        calibration: np.ndarray,
        progress: Say,
    ) -> None:
        self.target, self.program, self.graph = target, program, graph
        self.options, self.device = options, device
        self.work, self.calibration, self.progress = work, calibration, progress
        shape = self.shape = program.shape
        self.input = (options.batch, shape.variates, shape.inputs)
        self.output = (options.batch, shape.variates, shape.outputs)
        self.tolerance = target.tolerance if options.precision == "fp32" else INT8_TOLERANCE
        self.measured: list[Measured] = []

    def payload(self, directory: Path) -> Payload:
        key = self.key()
        cached = _cache_root() / key
        answer = self.find(cached) if self.options.cache else None
        if answer is not None:
            self.progress("found in the compile cache")
        else:
            answer = self.compile(key)
            if self.options.cache:
                self.keep(answer, cached)
        built = self.work / "out"
        names = sorted(each.name for each in built.iterdir() if each.name not in BINARIES)
        for name in names:
            shutil.copyfile(built / name, directory / name)
        checked = self._check(built)
        entry = next(name for name in (SHARED, VM, ARCHIVE) if name in names)
        native = self.device.native
        details = {
            "kind": self.target.kind,
            "entry": entry,
            "form": self.options.form,
            "device": self.device.name,
            "target": answer["target"],
            "machine": self.device.system,
            "cpu_features": answer["cpu_features"],
            "lesser_devices": lesser_devices(self.device),
            "batch": self.options.batch,
            "input_shape": list(self.input),
            "output_shape": list(self.output),
            "precision": self.options.precision,
            "frontend": answer["frontend"],
            "sizes": answer["sizes"],
            "tiles": answer["products"],
            "tuned": answer["tuned"],
            "packages": {name: version(name) for name in ("apache-tvm", "apache-tvm-ffi")},
            "cross_check": checked,
            "tolerance": self.tolerance,
            "latency": "measured here" if native else "not measured here",
        }
        level = ("executed" if native else "emulated") if checked else "compiled"
        return Payload(tuple(names), entry, level, native, details, RUNTIME if entry == VM else ())

    def key(self) -> str:
        """The content hash of everything that determines the result."""
        settings = self.options.model_dump(exclude={"cache", "time_limit_s"})
        about = [
            settings,
            dict(self.device.target),
            self.input,
            self.output,
            _code_hash(),
            version("apache-tvm"),
        ]
        return content_key(program_key(self.graph), about)[:32]

    def compile(self, key: str) -> dict[str, Any]:
        """Runs the child: by the torch frontend, or by ONNX where that lacks an operator."""
        reasons = []
        for frontend in ("torch", "onnx"):
            try:
                source = self.source(frontend)
                return {**self.compile_source(source, key), "frontend": frontend}
            except LoweringError as error:
                if not _is_frontend_refusal(error):
                    raise
                reasons.append(error.what)
                self.progress(error.what)
        raise LoweringError("; ".join(reasons), hint="write the operator differently, or use the onnx target")

    def source(self, frontend: str) -> Path:
        """The file that the child imports."""
        if frontend == "torch":
            path = self.work / "model.pt2"
            torch.export.save(self.graph, path)
            return path
        from ..onnx_graph.translate import serialised, translate

        path = self.work / "model.onnx"
        path.write_bytes(serialised(translate(self.graph, self.shape, batch=self.options.batch)))
        return path

    def compile_source(self, source: Path, key: str) -> dict[str, Any]:
        out = self.work / "out"
        out.mkdir(exist_ok=True)
        job = Job(
            "compile",
            source=str(source),
            shape=self.input,
            horizon=self.shape.outputs,
            device=self.options.device,
            form=self.options.form,
            precision=self.options.precision,
            out=str(out),
            work=str(self.work),
        )
        tuned: Any = None
        if self.options.tune:
            log = _cache_root() / "tuning" / f"{key}.json"
            tuned = run_child(
                Job(**{**job.__dict__, "action": "tune", "tune_log": str(log)}),
                self.work,
                self.options.time_limit_s,
                self.progress,
            )
            job = Job(**{**job.__dict__, "tiles": tuned["tiles"]})
        answer = run_child(job, self.work, self.options.time_limit_s, self.progress)
        for name in BINARIES:
            if (self.work / name).is_file():
                shutil.copy2(self.work / name, out / name)
        return {**answer, "tuned": tuned}

    def find(self, cached: Path) -> dict[str, Any] | None:
        """The answer of an earlier compile, and its files as copies of this run's own, in ``work/out``.

        None unless all is there and nothing was changed: what runs is the copy that was hashed.
        """
        if not cached.is_dir():
            return None
        out = self.work / "out"
        out.mkdir()
        try:
            what = "record of a cached compile"
            kept = read_sealed(cached / ANSWER, what=what, error=VerificationError)
            record = validated(kept, CachedCompile, what=f"{cached}: {what}", error=VerificationError)
            for name, digest in record.files.items():
                shutil.copy2(cached / Path(name).name, out)
                if file_hash(out / name) != digest:
                    raise VerificationError(f"{cached / name}: it was changed since it was written")
        except (VerificationError, OSError) as error:
            warn_damaged(error)
            shutil.rmtree(out)
            return None
        return record.answer

    def keep(self, answer: dict[str, Any], cached: Path) -> None:
        """Copies the result into the cache, complete or not at all."""
        partial = unfinished(cached)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.work / "out", partial)
        files = {path.name: file_hash(path) for path in sorted(partial.iterdir())}
        (partial / ANSWER).write_text(json.dumps(sealed({"answer": answer, "files": files})))
        publish(partial, cached)

    def _check(self, built: Path) -> dict[str, Any] | None:
        """Runs what was built, natively or under qemu, against the program on hard windows.

        Raises:
            VerificationError: it departs from the model, or cannot run.
        """
        from ..measure.parity import check_parity, hard_windows

        device = self.device
        runner = "this machine" if device.native else (device.toolchain.emulator or ("",))[0]
        programs = self.programs(built)
        worst = 0.0
        for form, program in programs.items():
            self.progress(f"running the {form} form on {runner}")
            parity = check_parity(program, self.program, hard_windows(self.calibration), self.tolerance)
            if not parity.passed:
                raise VerificationError(
                    f"tvm: on {device.name} ({runner}) the {form} form departs from the model: "
                    f"{parity.describe()}"
                )
            worst = max(worst, parity.max_rel)
        if not programs:
            return None
        found = {"ran_on": runner, "forms": list(programs), "max_rel": worst, "tolerance": self.tolerance}
        if self.measured:
            # Counts hang on the numbers only where a kernel takes branches: the largest is stated.
            found["emulated"] = {
                name: max(getattr(each, name) for each in self.measured)
                for name in ("stack_bytes", "instructions")
            }
        if self.options.precision != "fp32":
            past = self.calibration[:: max(1, len(self.calibration) // CHANGE_WINDOWS)]
            change = next(iter(programs.values()))(past) - self.program(past)
            found["rms_change"] = float(np.sqrt(np.mean(np.square(change, dtype=np.float64))))
        return found

    def programs(self, built: Path) -> dict[str, Engine]:
        """The forms in ``built`` that can run here: the static example, natively or under the device's
        emulator, and the virtual machine, on this machine only, where its runtime is."""
        found: dict[str, Engine] = {}
        device = self.device
        binary = built / (ELF if device.board else STATIC_BINARY)
        if binary.is_file() and (device.native or can_emulate(device)):
            local = self.work / binary.name
            if not local.is_file():
                shutil.copy2(binary, local)
            local.chmod(0o755)

            def run(past: np.ndarray) -> np.ndarray:
                calls = -(-len(past) // self.options.batch)
                padding = np.repeat(past[:1], calls * self.options.batch - len(past), axis=0)
                windows = np.concatenate([past, padding]).reshape(calls, *self.input)
                return self.run(local, windows).reshape(-1, *self.output[1:])[: len(past)]

            found["runtime-free"] = run
        if (built / VM).is_file() and device.native:
            facts = {"input_shape": list(self.input), "output_shape": list(self.output)}
            payload = Payload((VM,), VM, "compiled", True, facts, RUNTIME)
            found["vm"] = self.target.load(built, payload, threads=1)
        return found

    def run(self, binary: Path, windows: np.ndarray) -> np.ndarray:
        """Forecasts ``[N, B, D, H]`` of ``windows [N, B, D, L]`` by the static example."""
        seconds = self.options.time_limit_s
        if self.device.board is None:
            return run_static_binary(self.device, binary, windows, self.output, seconds)
        forecast, measured = run_example(self.device, binary, windows, self.output, seconds)
        self.measured.append(measured)
        return forecast


def input_of(graph: torch.export.ExportedProgram) -> tuple[int, int, int]:
    """The input's shape ``[B, D, L]``."""
    (name,) = graph.graph_signature.user_inputs
    node = next(node for node in graph.graph.nodes if node.name == name)
    batch, variates, lookback = node.meta["val"].shape
    return int(batch), int(variates), int(lookback)


def _is_frontend_refusal(error: LoweringError) -> bool:
    return "frontend does not take" in error.what or "no schedule for" in error.what


def _cache_root() -> Path:
    return cache_root() / "tvm"


def _code_hash() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    shared = folder.parent / "native"
    files = [*folder.glob("*.py"), *(folder / "templates").iterdir(), *(shared / "board").iterdir()]
    for path in sorted([*files, shared / "boards.py"]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


TARGET = TvmTarget()
