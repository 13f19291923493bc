"""What an NVIDIA GPU shows: exported students and teachers on CUDA, and whether TensorRT-RTX takes the GPU.

    python benchmarks/trt_gpu.py --out benchmarks/results/trt_gpu.json [--payload DIR] [--site DIR]

1. Each model is exported (``torch.export``), run on CUDA and compared with itself on the CPU.
2. Latency of every student against every teacher on the same GPU, interleaved, host copies in: eager,
   ``torch.compile``, and one CUDA graph (copy in, run, copy out).  A teacher is quoted in its fastest form.
3. ``--payload``, the folder that the target ``trt`` wrote: its own build_engine.py and check_engine.py, in
   child processes, with TensorRT and with TensorRT-RTX (``--site``: a folder with its wheels unpacked).

Latency does not depend on the values of the weights, so models are random unless the data decide the work.
Needs torch with CUDA and pandas; nothing of TensorRT for 1 and 2.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tsfmc.compiler.data import load_data
from tsfmc.compiler.frontends import build_teacher, find_card
from tsfmc.compiler.students import build_student, from_config
from tsfmc.targets.artifact.device.forecaster import window_scale
from tsfmc.targets.measure.host import host_record
from tsfmc.targets.measure.latency import Call, Candidate, measure

LOOKBACK, HORIZON = 512, 96
SIZES = {"lookback": LOOKBACK, "horizon": HORIZON}
PARITY_WINDOWS = 8
TEACHERS = ("ttm-r2-512-96", "chronos-bolt-small", "moirai-1.1-small", "time-moe-50m")


def students() -> dict[str, nn.Module]:
    """The students at the sizes of paper B, and what a DLinear folds into."""
    return {
        "dlinear": build_student("dlinear", **SIZES),
        "affine": from_config({"kind": "affine", "bias": False, **SIZES}),
        "itransformer": build_student("itransformer", **SIZES),
    }


def teacher(name: str, variates: int) -> nn.Module:
    """A teacher of the published architecture."""
    card = find_card(name)
    if card.config is None:
        raise SystemExit(f"{name} has no published configuration here; choose another teacher")
    return build_teacher(dict(card.config), variates=variates, **SIZES)


def random_weights(model: nn.Module) -> nn.Module:
    """Small random numbers wherever a constructor left zeros."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return model.eval()


def synchronous(model: Callable[[torch.Tensor], torch.Tensor], device: str) -> Call:
    """Copy in, run, copy out."""

    def call(past: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            forecast: np.ndarray = model(torch.from_numpy(past).to(device)).cpu().numpy()
        return forecast

    return call


def cuda_graph(model: Callable[[torch.Tensor], torch.Tensor], past: np.ndarray) -> Call:
    """One graph of copy in, run and copy out, on page-locked host memory."""
    with torch.inference_mode():
        host_in = torch.from_numpy(past).clone().pin_memory()
        device_in = host_in.cuda()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                shape = model(device_in).shape
        torch.cuda.current_stream().wait_stream(stream)
        host_out = torch.empty(shape).pin_memory()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            device_in.copy_(host_in, non_blocking=True)
            host_out.copy_(model(device_in), non_blocking=True)

    def call(past: np.ndarray) -> np.ndarray:
        host_in.copy_(torch.from_numpy(past))
        graph.replay()
        torch.cuda.synchronize()
        return host_out.numpy()

    return call


def forms(
    model: nn.Module, windows: np.ndarray, device: str, compiled: bool
) -> tuple[dict[str, Call], dict[str, str]]:
    """The forms that work, and why the others do not."""
    example = torch.from_numpy(windows[:1]).to(device)
    moved = model.to(device)
    makers: dict[str, Callable[[], Call]] = {"eager": lambda: synchronous(moved, device)}

    def exported() -> nn.Module:
        with torch.no_grad():
            return torch.export.export(moved, (example,)).module()

    makers["exported"] = lambda: synchronous(exported(), device)
    if device == "cuda":
        makers["exported, CUDA graph"] = lambda: cuda_graph(exported(), windows[:1])
    if device == "cuda" and compiled:
        makers["torch.compile"] = lambda: synchronous(torch.compile(moved), device)
    works: dict[str, Call] = {}
    fails: dict[str, str] = {}
    for name, make in makers.items():
        try:
            call = make()
            call(windows[:1])
            works[name] = call
        except Exception as error:  # a form that a model cannot take is a result, recorded with its reason
            fails[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return works, fails


def parity(works: dict[str, Call], truth: np.ndarray, windows: np.ndarray) -> dict[str, float]:
    """Largest error of each form against the model on the CPU, in units of ``window_scale``."""
    scale = window_scale(windows, truth)
    found = {}
    for name, call in works.items():
        got = np.concatenate([call(windows[i : i + 1]).copy() for i in range(len(windows))])
        found[name] = float((np.abs(got - truth).max(axis=(1, 2)) / scale).max())
    return found


def examine(
    model: nn.Module, windows: np.ndarray, device: str, compiled: bool
) -> tuple[dict[str, Any], dict[str, Call]]:
    """Parity of every form of one model, and the calls to measure."""
    checked = windows[:PARITY_WINDOWS]
    with torch.inference_mode():
        truth = np.concatenate([model(torch.from_numpy(w[None])).numpy() for w in checked])
    works, fails = forms(model, windows, device, compiled)
    record = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "max_error": parity(works, truth, checked),
        "not_possible": fails,
    }
    return record, works


def latencies(
    artifact: dict[str, Call], teachers: dict[str, dict[str, Call]], windows: np.ndarray, seconds: float
) -> dict[str, Any]:
    """One student in its fastest form against all forms of each teacher."""
    result: dict[str, Any] = {}
    for name, calls in teachers.items():
        candidates = {f"student, {form}": Candidate(call, waits=True) for form, call in artifact.items()}
        candidates |= {f"teacher, {form}": Candidate(call, waits=True) for form, call in calls.items()}
        report = measure(candidates, windows, duration_s=seconds)
        best = {
            side: min(
                (row for row in report.rows if row.startswith(side)), key=lambda n: report.rows[n].median_us
            )
            for side in ("student", "teacher")
        }
        ratio = report.ratio(best["teacher"], best["student"])
        result[name] = {
            "rows": {row: value.to_dict() for row, value in report.rows.items()},
            "fastest": best,
            "speedup": {"value": ratio.value, "low": ratio.low, "high": ratio.high},
            "method": report.method,
            "noisy": report.noisy,
        }
    return result


def tensorrt(payload: Path, site: Path | None) -> list[dict[str, Any]]:
    """The device's own scripts in child processes: with each TensorRT, and for each way to name the GPU."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    results = []
    ways = [("tensorrt", [])] + [
        ("tensorrt_rtx_bindings", ["--compute-capability", name])
        for name in ("CURRENT", "SM80", "SM89", "SM120")
    ]
    for library, arguments in ways:
        for script, extra in (
            ("build_engine.py", ["--library", library, *arguments]),
            ("check_engine.py", ["--latency", "--any-device"]),
        ):
            done = subprocess.run(
                [sys.executable, "-B", str(payload / script), *extra],
                capture_output=True,
                text=True,
                env=environment if site else None,
                timeout=300,
                check=False,
            )
            lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
            results.append(
                {
                    "script": script,
                    "library": library,
                    "arguments": arguments,
                    "code": done.returncode,
                    "record": json.loads(lines[-1]) if lines else None,
                    "stderr": done.stderr.strip()[-600:],
                }
            )
            if done.returncode != 0:
                break
    return results


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="sample", help="a known name or a file")
    parser.add_argument("--teachers", default=",".join(TEACHERS))
    parser.add_argument("--seconds", type=float, default=10.0, help="for each pair of student and teacher")
    parser.add_argument("--payload", type=Path, help="folder that the target trt wrote")
    parser.add_argument("--site", type=Path, help="folder with TensorRT-RTX unpacked")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a rehearsal")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes minutes")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no NVIDIA GPU; --device cpu rehearses the script", file=sys.stderr)
        return 3
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")  # no TF32, neither for student nor teacher
    data = load_data(options.data, lookback=LOOKBACK, horizon=HORIZON)
    test = data.windows("test", LOOKBACK, HORIZON)
    windows = test.spread(64)
    record: dict[str, Any] = {"host": host_record(), "data": str(data), "precision": "fp32, no TF32"}
    record["rehearsal_on_cpu"] = options.device == "cpu"
    record["models"], calls = {}, {}
    names = [name for name in options.teachers.split(",") if name]
    for name in [*students(), *names]:
        model = students()[name] if name in students() else teacher(name, windows.shape[1])
        record["models"][name], calls[name] = examine(
            random_weights(model), windows, options.device, not options.no_compile
        )
        print(name, json.dumps(record["models"][name]), file=sys.stderr)
    record["latency"] = {}
    for name in students():
        if not calls[name]:
            continue
        against = {other: calls[other] for other in names if calls[other]}
        record["latency"][name] = latencies(calls[name], against, windows, options.seconds)
        options.out.write_text(
            json.dumps(record, indent=1) + "\n"
        )  # what is measured is kept if time runs out
    if options.payload is not None:
        record["tensorrt"] = tensorrt(options.payload.resolve(), options.site)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
