"""One class a runtime: ``prepare`` makes its file from the model, ``load`` gives a call on one window.

Every class is what its own documentation shows for a model on one CPU thread, and imports its runtime only
inside: each runs in an environment of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from cases import Case, build, windows

Call = Callable[[np.ndarray], np.ndarray]


class Runtime:
    """A way to run a model; ``needs`` are its pip requirements, empty where tsfmc's environment has it."""

    name = ""
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """Installed packages whose shared libraries must be shipped beside the model."""

    def prepare(self, case: Case, directory: Path) -> list[str]:
        """Writes what ``load`` reads; returns the files that must be shipped."""
        return []

    def load(self, case: Case, directory: Path) -> Call:
        """A call ``past [1, D, L] -> forecast [1, D, H]``, numpy in and out."""
        raise NotImplementedError


class Eager(Runtime):
    """PyTorch as it is: ``inference_mode``."""

    name = "PyTorch eager"
    packages = ("torch",)

    def load(self, case: Case, directory: Path) -> Call:
        import torch

        torch.set_num_threads(1)
        return self._call(self._ready(build(case)))

    def _ready(self, model: Any) -> Any:
        return model

    def _call(self, model: Any) -> Call:
        import torch

        def call(past: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                forecast: np.ndarray = model(torch.from_numpy(past)).numpy()
            return forecast

        return call


class Compiled(Eager):
    """PyTorch through ``torch.compile``."""

    name = "torch.compile"

    def _ready(self, model: Any) -> Any:
        import torch

        return torch.compile(model)


class OnnxRuntime(Runtime):
    """The export that any user makes, static batch 1, on onnxruntime's CPU provider, one thread."""

    name = "onnxruntime"
    packages = ("onnxruntime",)

    def prepare(self, case: Case, directory: Path) -> list[str]:
        import torch

        example = (torch.from_numpy(windows(case)[0]),)
        program = torch.onnx.export(build(case), example, dynamo=True, verbose=False)
        program.save(directory / "model.onnx")
        return ["model.onnx"]

    def load(self, case: Case, directory: Path) -> Call:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            directory / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        return lambda past: session.run(None, {name: past})[0]


class OpenVino(Runtime):
    """The plain ONNX export on OpenVINO's CPU plugin, latency hint."""

    name = "OpenVINO"
    needs = ("openvino",)
    packages = ("openvino",)

    def prepare(self, case: Case, directory: Path) -> list[str]:
        return ["model.onnx"]

    def load(self, case: Case, directory: Path) -> Call:
        import openvino

        settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.compile_model(
            directory / "model.onnx", "CPU", {**settings, "INFERENCE_PRECISION_HINT": "f32"}
        )
        request = compiled.create_infer_request()
        return lambda past: request.infer([past])[0]


class Iree(Runtime):
    """The plain ONNX export through IREE's llvm-cpu compiler for this CPU, synchronous local device."""

    name = "IREE"
    needs = ("iree-base-compiler", "iree-base-runtime", "onnx")
    packages = ("iree.runtime", "iree._runtime_libs")

    def prepare(self, case: Case, directory: Path) -> list[str]:
        tool = [sys.executable, "-m", "iree.compiler.tools.import_onnx"]
        model = directory / "model.mlir"
        subprocess.run(
            [*tool, str(directory / "model.onnx"), "-o", str(model), "--opset-version", "18"], check=True
        )
        import iree.compiler

        iree.compiler.compile_file(
            str(model),
            input_type="onnx",
            target_backends=["llvm-cpu"],
            extra_args=["--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O3"],
            output_file=str(directory / "model.vmfb"),
        )
        return ["model.vmfb"]

    def load(self, case: Case, directory: Path) -> Call:
        import iree.runtime

        config = iree.runtime.Config("local-sync")
        module = iree.runtime.VmModule.mmap(config.vm_instance, str(directory / "model.vmfb"))
        context = iree.runtime.SystemContext(config=config)
        context.add_vm_module(module)
        name = next(name for name in module.function_names if not name.startswith("__") and "$" not in name)
        entry = context.modules[module.name][name]
        return lambda past: entry(past).to_host()


class ExecuTorch(Runtime):
    """ExecuTorch with the XNNPACK delegate, through its Python runtime."""

    name = "ExecuTorch XNNPACK"
    needs = ("executorch", "torch==2.13.0")
    packages = ("executorch",)

    def prepare(self, case: Case, directory: Path) -> list[str]:
        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(build(case), (torch.from_numpy(windows(case)[0]),))
        program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
        (directory / "model.pte").write_bytes(program.buffer)
        return ["model.pte"]

    def load(self, case: Case, directory: Path) -> Call:
        import torch
        from executorch.runtime import Runtime as Engine

        torch.set_num_threads(1)
        method = Engine.get().load_program(directory / "model.pte").load_method("forward")
        return lambda past: method.execute([torch.from_numpy(past)])[0].numpy()


class LiteRt(Runtime):
    """LiteRT: converted by litert-torch, run by its interpreter with XNNPACK, one thread."""

    name = "LiteRT"
    needs = ("litert-torch",)
    packages = ("ai_edge_litert",)

    def prepare(self, case: Case, directory: Path) -> list[str]:
        import litert_torch
        import torch

        model = litert_torch.convert(build(case), (torch.from_numpy(windows(case)[0]),))
        model.export(str(directory / "model.tflite"))
        return ["model.tflite"]

    def load(self, case: Case, directory: Path) -> Call:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(directory / "model.tflite"), num_threads=1)
        interpreter.allocate_tensors()
        taken, given = (
            interpreter.get_input_details()[0]["index"],
            interpreter.get_output_details()[0]["index"],
        )

        def call(past: np.ndarray) -> np.ndarray:
            interpreter.set_tensor(taken, past)
            interpreter.invoke()
            forecast: np.ndarray = interpreter.get_tensor(given)
            return forecast

        return call


class TvmDefault(Runtime):
    """TVM as its tutorials use it: ``tvm.compile`` with the default pipeline for this CPU."""

    name = "TVM default"
    packages = ("tvm", "tvm_ffi")

    def prepare(self, case: Case, directory: Path) -> list[str]:
        import torch
        import tvm
        from tvm import relax
        from tvm.relax.frontend.torch import from_exported_program

        exported = torch.export.export(build(case), (torch.from_numpy(windows(case)[0]),))
        module = relax.transform.DecomposeOpsForInference()(
            from_exported_program(exported, keep_params_as_input=False)
        )
        target = {"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()}
        tvm.compile(module, target=tvm.target.Target(target)).export_library(str(directory / "default.so"))
        return ["default.so"]

    def load(self, case: Case, directory: Path) -> Call:
        import tvm
        from tvm import relax

        machine = relax.VirtualMachine(tvm.runtime.load_module(str(directory / "default.so")), tvm.cpu())
        forecast = machine["main"]
        return lambda past: forecast(tvm.runtime.tensor(past))[0].numpy()


class Ours(Runtime):
    """A target of this compiler: the engine of the runner that the artifact carries, alone as on a device."""

    kind = ""
    options: ClassVar[dict[str, Any]] = {}

    def prepare(self, case: Case, directory: Path) -> list[str]:
        from tsfmc.targets import TARGETS
        from tsfmc.targets.artifact.runner import render_runner
        from tsfmc.targets.base import Shape

        target, past = TARGETS[self.kind], windows(case)
        place = directory / self.kind
        place.mkdir(exist_ok=True)
        shape = Shape(case.variates, past.shape[-1], 96)
        payload = target.lower_model(
            build(case), shape, place, options=target.Options(**self.options), calibration=past[:, 0]
        )
        facts = {**payload.details, "entry": payload.entry}
        (place / "facts.json").write_text(json.dumps(facts, default=list))
        (place / "run.py").write_text(render_runner(target.engine_source()))
        return [f"{self.kind}/{name}" for name in (*payload.files, "run.py")]

    def load(self, case: Case, directory: Path) -> Call:
        import importlib.util

        place = directory / self.kind
        spec = importlib.util.spec_from_file_location("run", place / "run.py")
        assert spec and spec.loader
        runner = importlib.util.module_from_spec(spec)
        sys.modules["run"] = runner  # dataclasses look their module up
        spec.loader.exec_module(runner)
        facts = json.loads((place / "facts.json").read_text())
        engine: Call = runner.Engine(runner.ArtifactFiles(place), {"target": facts}, 1)
        return engine


class OursOnnx(Ours):
    """Target ``onnx``: rewritten graph on onnxruntime."""

    name, kind, packages = "tsfmc onnx", "onnx", ("onnxruntime",)
    options: ClassVar[dict[str, Any]] = {"batch": 1}


class OursTvm(Ours):
    """Target ``tvm``: own schedules, runtime-free library."""

    name, kind = "tsfmc tvm", "tvm"


class OursC(Ours):
    """Target ``c``: C99."""

    name, kind = "tsfmc c", "c"


RUNTIMES: dict[str, Runtime] = {
    each.name: each
    for each in (
        OnnxRuntime(),
        Eager(),
        Compiled(),
        OpenVino(),
        ExecuTorch(),
        Iree(),
        LiteRt(),
        TvmDefault(),
        OursOnnx(),
        OursTvm(),
        OursC(),
    )
}
