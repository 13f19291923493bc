"""Loads a TensorRT plan and runs it; needs the standard library, TensorRT and the NVIDIA driver.

``Engine`` (for numpy arrays) is what the artifact's ``run.py`` uses; ``Plan`` (for bytes) is what
``check_engine.py`` uses, so that a check needs no other package on the device.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

LIBRARIES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
PLAN, SPEC = "model.engine", "engine.json"


class DeviceError(ImportError):
    """Something is missing on this device, or the plan was built for another one."""


def load_tensorrt(names: tuple[str, ...] = LIBRARIES) -> tuple[Any, str]:
    """The first TensorRT that is installed, and its name: ``tensorrt`` or ``tensorrt_rtx``."""
    failures = []
    for name in names:
        try:
            if name == "tensorrt_rtx_bindings":
                importlib.import_module("tensorrt_rtx_libs")  # puts the shared libraries on the loader's path
            return importlib.import_module(name), "tensorrt" if name == "tensorrt" else "tensorrt_rtx"
        except ImportError as error:
            failures.append(f"{name}: {error}")
    raise DeviceError(
        "no TensorRT is installed (" + "; ".join(failures) + "); it is part of JetPack, on other machines"
        " `pip install tensorrt`, or `pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings`"
    )


class Cuda:
    """The few driver calls that running a plan needs, on device 0."""

    def __init__(self) -> None:
        name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
        try:
            self._lib = ctypes.CDLL(name)
        except OSError as error:
            raise DeviceError(f"no NVIDIA driver: {error}; run this on the device") from None
        context = ctypes.c_void_p()
        self._device = ctypes.c_int()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(self._device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._lib, name)(*arguments)
        if code != 0:
            raise DeviceError(f"the NVIDIA driver refused {name}: CUDA error {code}")

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(number), self._device)
        return value.value

    def describe(self) -> dict[str, Any]:
        """Name, compute capability (``SM87``) and CUDA version of the driver."""
        name, version = ctypes.create_string_buffer(256), ctypes.c_int()
        self._call("cuDeviceGetName", name, ctypes.c_int(256), self._device)
        self._call("cuDriverGetVersion", ctypes.byref(version))
        capability = f"SM{self._attribute(75)}{self._attribute(76)}"
        driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return {"name": name.value.decode(), "compute_capability": capability, "driver_cuda": driver}

    def stream(self) -> ctypes.c_void_p:
        """A new stream."""
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(0))
        return stream

    def device_buffer(self, size: int) -> ctypes.c_void_p:
        """``size`` bytes on the device."""
        pointer = ctypes.c_void_p()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer

    def host_buffer(self, size: int) -> ctypes.c_void_p:
        """``size`` bytes of page-locked host memory."""
        pointer = ctypes.c_void_p()
        self._call("cuMemHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), ctypes.c_uint(0))
        return pointer

    def free(self, device: ctypes.c_void_p, host: ctypes.c_void_p) -> None:
        """Gives both kinds of buffer back."""
        self._call("cuMemFree_v2", device)
        self._call("cuMemFreeHost", host)

    def upload(self, device: ctypes.c_void_p, host: ctypes.c_void_p, size: int, stream: Any) -> None:
        """Queues a copy from host to device."""
        self._call("cuMemcpyHtoDAsync_v2", device, host, ctypes.c_size_t(size), stream)

    def download(self, host: ctypes.c_void_p, device: ctypes.c_void_p, size: int, stream: Any) -> None:
        """Queues a copy from device to host."""
        self._call("cuMemcpyDtoHAsync_v2", host, device, ctypes.c_size_t(size), stream)

    def wait(self, stream: Any) -> None:
        """Waits until the stream is empty."""
        self._call("cuStreamSynchronize", stream)

    def begin_capture(self, stream: Any) -> None:
        """Records what is queued from now on instead of running it."""
        self._call("cuStreamBeginCapture_v2", stream, ctypes.c_int(1))

    def end_capture(self, stream: Any) -> ctypes.c_void_p:
        """What was recorded, as an executable graph."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", stream, ctypes.byref(graph))
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        self._call("cuGraphDestroy", graph)
        return executable

    def launch(self, graph: ctypes.c_void_p, stream: Any) -> None:
        """Queues a recorded graph."""
        self._call("cuGraphLaunch", graph, stream)


class Folder:
    """Files by name, for scripts that run beside them; ``run.py`` brings files that were hashed instead."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.directory / name).is_file()

    def read(self, name: str) -> bytes:
        """The content of one file."""
        return (self.directory / name).read_bytes()


class Plan:
    """A plan among ``files``, ready to run; refuses one that was built for another device or model.

    ``any_device`` leaves it to TensorRT whether a plan for another GPU runs here.
    """

    def __init__(self, files: Any, any_device: bool = False) -> None:
        self.spec = json.loads(files.read(SPEC))
        if not (files.has(PLAN) and files.has(f"{PLAN}.json")):
            where = files.directory
            raise DeviceError(f"{PLAN} is not built yet; run `python3 build_engine.py` in {where}")
        self.record = json.loads(files.read(f"{PLAN}.json"))
        wanted = self.record["built_with"].split()[0]
        self.trt, library = load_tensorrt(tuple(sorted(LIBRARIES, key=lambda name: wanted not in name)))
        self.refuse_other("TensorRT", f"{library} {self.trt.__version__}", self.record["built_with"])
        self.refuse_other("model.onnx", self.spec["onnx_sha256"], self.record["onnx_sha256"])
        content = files.read(PLAN)
        self.refuse_other(PLAN, hashlib.sha256(content).hexdigest(), self.record["plan_sha256"])
        self.cuda = Cuda()
        self.gpu = self.cuda.describe()
        if not any_device:
            self.refuse_other_gpu(library)
        self._logger = self.trt.Logger(self.trt.Logger.ERROR)
        self._runtime = self.trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise DeviceError(f"TensorRT could not load {PLAN}; see its message above and build it again")
        self._engine = engine
        self._context = engine.create_execution_context()
        self._stream = self.cuda.stream()
        self._batch = 0
        self._buffers: tuple[tuple[ctypes.c_void_p, ctypes.c_void_p, int], ...] = ()

    @staticmethod
    def refuse_other(what: str, here: str, built: str) -> None:
        """Raises when the plan belongs to something else."""
        if here != built:
            raise DeviceError(
                f"the plan was built for {what} {built}, here is {here}; run `python3 build_engine.py` again"
            )

    def refuse_other_gpu(self, library: str) -> None:
        """Raises when the plan is for another GPU; TensorRT-RTX builds for several, TensorRT for one."""
        capabilities = self.record["compute_capabilities"]
        if library == "tensorrt":
            self.refuse_other("GPU", self.gpu["name"], self.record["gpu"]["name"])
        elif self.gpu["compute_capability"] not in capabilities:
            self.refuse_other("GPU", self.gpu["compute_capability"], ", ".join(capabilities))

    def prepare(self, batch: int) -> None:
        """Buffers and shapes for ``batch`` windows."""
        if batch == self._batch:
            return
        entry = self.spec["input"]
        if not self._context.set_input_shape(entry["name"], (batch, *entry["shape"])):
            raise DeviceError(f"batch {batch} is outside the plan's profile {self.spec['batch']}")
        for device, host, _ in self._buffers:
            self.cuda.free(device, host)
        buffers = []
        for side in ("input", "output"):
            name, shape = self.spec[side]["name"], self.spec[side]["shape"]
            size = 4 * batch * shape[0] * shape[1]
            buffers.append((self.cuda.device_buffer(size), self.cuda.host_buffer(size), size))
            self._context.set_tensor_address(name, buffers[-1][0].value)
        self._buffers, self._batch = tuple(buffers), batch

    def enqueue(self) -> None:
        """Queues copy in, run, copy out."""
        (device_in, host_in, size_in), (device_out, host_out, size_out) = self._buffers
        self.cuda.upload(device_in, host_in, size_in, self._stream)
        if not self._context.execute_async_v3(self._stream.value):
            raise DeviceError("TensorRT could not run the plan; see its message above")
        self.cuda.download(host_out, device_out, size_out, self._stream)

    def put(self, past: bytes) -> None:
        """Writes float32 windows ``[B, D, L]`` into the input buffer."""
        _, host, size = self._buffers[0]
        if len(past) != size:
            raise DeviceError(f"the input has {len(past)} bytes, {size} are expected for batch {self._batch}")
        ctypes.memmove(host, past, size)

    def get(self) -> bytes:
        """Reads float32 forecasts ``[B, D, H]`` from the output buffer."""
        _, host, size = self._buffers[1]
        return ctypes.string_at(host, size)

    def run(self, past: bytes, batch: int) -> bytes:
        """Forecasts of ``batch`` windows."""
        self.prepare(batch)
        self.put(past)
        self.enqueue()
        self.cuda.wait(self._stream)
        return self.get()

    def graph(self, batch: int) -> Any:
        """A call that replays copy in, run, copy out for ``batch`` windows as one CUDA graph."""
        self.prepare(batch)
        self.enqueue()  # the first run may compile and allocate, which cannot be recorded
        self.cuda.wait(self._stream)
        self.cuda.begin_capture(self._stream)
        self.enqueue()
        graph = self.cuda.end_capture(self._stream)

        def replay() -> None:
            self.cuda.launch(graph, self._stream)
            self.cuda.wait(self._stream)

        return replay


class Engine:
    """``past [B, D, L]`` float32 -> ``forecast [B, D, H]`` float32, in slices of the plan's largest batch."""

    device_files = (
        *(PLAN, f"{PLAN}.json", "model.trtexec.engine"),
        *(f"teacher/{PLAN}", f"teacher/{PLAN}.json"),
    )
    """An engine belongs to one device: it is made beside the payload and never travels with it."""
    waits = True  # the GPU works, this processor waits

    def __init__(self, files: Any, manifest: dict[str, Any], threads: int) -> None:
        self._refuse_other_shapes(json.loads(files.read(SPEC)), manifest)
        self._plan = Plan(files)
        self._batch = self._plan.spec["batch"]

    @staticmethod
    def _refuse_other_shapes(spec: dict[str, Any], manifest: dict[str, Any]) -> None:
        """Buffers are as large as ``engine.json`` says: as the manifest must say, too, which has caps."""
        batch, task = manifest["target"]["batch"], manifest.get("task")
        if spec["batch"] != batch or not 1 <= batch["min"] <= batch["max"]:
            raise ValueError(f"{SPEC} has the batches {spec['batch']}, the manifest {batch}")
        if task is None:
            return
        variates, quantiles = len(task["variates"]), len(task.get("quantile_levels") or [0.5])
        beside = sum(group["width"] for group in task.get("inputs") or [])
        expected = [[variates, task["lookback"] + beside], [variates, task["horizon"] * quantiles]]
        shapes = [spec[side]["shape"] for side in ("input", "output")]
        if shapes != expected:
            raise ValueError(f"{SPEC} has the shapes {shapes}, the task's are {expected}")

    def __call__(self, past: Any) -> Any:
        import numpy as np

        past = np.ascontiguousarray(past, np.float32)
        smallest, largest = self._batch["min"], self._batch["max"]
        out = np.empty((len(past), *self._plan.spec["output"]["shape"]), np.float32)
        for start in range(0, len(past), largest):
            part = past[start : start + largest]
            missing = max(0, smallest - len(part))
            padded = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            flat = np.frombuffer(self._plan.run(padded.tobytes(), len(padded)), np.float32)
            out[start : start + len(part)] = flat.reshape(len(padded), *out.shape[1:])[: len(part)]
        return out
