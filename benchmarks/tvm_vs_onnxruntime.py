"""The TVM target against onnxruntime on one thread: same model, one engine per process, interleaved.

    python benchmarks/tvm_vs_onnxruntime.py                  every case, about ten minutes on a quiet machine
    python benchmarks/tvm_vs_onnxruntime.py --rounds 9 --only folded-dlinear

Each engine lives in a process of its own and rotates over 64 windows, host copies included.  The two take
turns (A B B A ...); a round's ratio is the mean call of one over the mean call of the other, and a case is
the median over its rounds with a bootstrap interval.  Results go to ``results/tvm_vs_onnxruntime.json``.

Students take microseconds, and Python is a good part of them.  ``from_c_us`` is the same library as firmware
calls it, in turn with the other two: its own loop in C over the windows, entered once in 64 calls.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drawn
import numpy as np

RESULTS = Path(__file__).parent / "results" / "tvm_vs_onnxruntime.json"
WINDOWS = 64
WARM_UP_S, WARM_UP_CALLS = 0.5, 50


@dataclass(frozen=True)
class Case:
    """A model, its sizes, and the ratio that is wanted (None: reported only)."""

    name: str
    config: dict[str, Any]
    variates: int
    wanted: float | None
    lookback: int = 512
    horizon: int = 96


def encoder(width: int) -> dict[str, Any]:
    """iTransformer of one layer."""
    return {
        "kind": "itransformer",
        "width": width,
        "layers": 1,
        "heads": 8 if width > 256 else 4,
        "ffn": 4 * width,
    }


AFFINE: dict[str, Any] = {"kind": "affine", "bias": False}
PLAIN: dict[str, Any] = {"kind": "dlinear"}
CASES = (
    Case("folded-dlinear", AFFINE, 7, 0.6),
    Case("folded-dlinear", AFFINE, 21, 0.8),
    Case("dlinear", PLAIN, 7, 0.5),
    Case("dlinear", PLAIN, 21, 0.5),
    Case("itransformer-128", encoder(128), 7, 0.6),
    Case("itransformer-128", encoder(128), 21, 0.9),
    Case("itransformer-512", encoder(512), 7, 0.8),
    Case("itransformer-512", encoder(512), 21, 1.0),
    Case("itransformer-256-untuned-shape", encoder(256), 13, 1.0, lookback=336),
    Case("folded-dlinear-untuned-shape", AFFINE, 13, 0.8, lookback=336),
    Case("moirai-small", {"teacher": "moirai-small"}, 7, 1.2),
    Case("chronos-bolt-small", {"teacher": "chronos-bolt-small"}, 7, 1.2, horizon=64),
    Case("moirai-small-pruned", {"teacher": "moirai-small", "kept": 0.5}, 7, 1.2),
    Case("chronos-bolt-small-pruned", {"teacher": "chronos-bolt-small", "kept": 0.5}, 7, 1.2, horizon=64),
)


def build_model(case: Case) -> Any:
    """The student or the teacher, with random weights.

    ``kept`` is the share of heads and FFN units that a pruned teacher has, without its dead weights.
    """
    if "teacher" not in case.config:
        return drawn.student(case.config, case.lookback, case.horizon)
    teacher = drawn.teacher(case.config["teacher"], case.lookback, case.horizon, case.variates)
    if "kept" not in case.config:
        return teacher
    from prune_speed import shrink

    return shrink(teacher.without_dead_weights(), case.config["kept"], round_to=8, less=0)


def windows(case: Case) -> np.ndarray:
    """``[64, 1, D, L]`` random walks."""
    return drawn.random_walks(WINDOWS, case.variates, case.lookback)


def serve(directory: Path, kind: str) -> None:
    """The child: loads one engine, then for every line with a number of calls answers the mean seconds."""
    import gc

    calls_of = from_c if kind == "from_c" else from_python
    run = calls_of(directory, kind)
    gc.disable()
    for line in sys.stdin:
        calls = int(line)
        start = time.perf_counter_ns()
        run(calls)
        print((time.perf_counter_ns() - start) / calls / 1e9, flush=True)


def from_python(directory: Path, kind: str) -> Callable[[int], None]:
    """Calls of a target's engine, a window at a time."""
    from tsfmc.targets import TARGETS
    from tsfmc.targets.artifact.device.files import ArtifactFiles
    from tsfmc.targets.artifact.runner import engine_class

    facts = json.loads((directory / f"{kind}.json").read_text())
    past = list(np.load(directory / "windows.npy"))
    files = ArtifactFiles(directory / kind)
    engine = engine_class(TARGETS[kind].engine_source())(files, {"target": facts}, 1)
    np.save(directory / f"{kind}.npy", np.concatenate([engine(window) for window in past[:8]]))
    rotation = itertools.cycle(past)

    def run(calls: int) -> None:
        for window in itertools.islice(rotation, calls):
            engine(window)

    return run


def from_c(directory: Path, kind: str) -> Callable[[int], None]:
    """Calls of the runtime-free library by its own loop."""
    facts = json.loads((directory / "tvm.json").read_text())
    library = ctypes.CDLL(str(directory / "tvm" / "model.so"))
    past = np.load(directory / "windows.npy")
    forecast = np.empty((WINDOWS, *facts["output_shape"][1:]), np.float32)
    # ``data_as`` keeps its array alive; a bare address would not.
    source, target = (array.ctypes.data_as(ctypes.c_void_p) for array in (past, forecast))

    def run(calls: int) -> None:
        for start in range(0, calls, WINDOWS):
            if library.tsfmc_predict_batch(source, target, min(WINDOWS, calls - start)) != 0:
                raise RuntimeError("a kernel failed")

    run(WINDOWS)
    np.save(directory / f"{kind}.npy", forecast[:8])
    return run


class Server:
    """One engine in its own process."""

    def __init__(self, directory: Path, kind: str) -> None:
        command = [sys.executable, __file__, "--serve", str(directory), kind]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, calls: int) -> float:
        """Mean seconds of ``calls`` calls."""
        assert self.process.stdin and self.process.stdout
        print(calls, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=30)


def lower(case: Case, directory: Path, device: str, tune: bool) -> dict[str, Any]:
    """Lowers a case for both targets; returns the sizes of the TVM artifact."""
    from tsfmc.targets import TARGETS
    from tsfmc.targets.base import Shape

    model, shape = build_model(case), Shape(case.variates, case.lookback, case.horizon)
    past = windows(case)
    np.save(directory / "windows.npy", past)
    sizes: dict[str, Any] = {}
    for kind, options in (("tvm", {"device": device, "form": "both", "tune": tune}), ("onnx", {"batch": 1})):
        target = TARGETS[kind]
        (directory / kind).mkdir()
        payload = target.lower_model(
            model, shape, directory / kind, options=target.Options(**options), calibration=past[:, 0]
        )
        (directory / f"{kind}.json").write_text(json.dumps({**payload.details, "entry": payload.entry}))
        if kind == "tvm":
            sizes = {**payload.details["sizes"], "tuned": payload.details["tuned"]}
        else:
            sizes["onnx_bytes"] = (directory / kind / payload.entry).stat().st_size
    return sizes


def interval(ratios: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    return float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


def compare(case: Case, rounds: int, round_s: float, device: str, tune: bool) -> dict[str, Any]:
    """One row of the table."""
    kinds = ["tvm", "onnx"] if "teacher" in case.config else ["tvm", "onnx", "from_c"]
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        sizes = lower(case, directory, device, tune)
        servers = {kind: Server(directory, kind) for kind in kinds}
        calls = {}
        for kind, server in servers.items():
            each = server.seconds(WARM_UP_CALLS)
            server.seconds(max(1, int(WARM_UP_S / each)))
            calls[kind] = max(5, int(round_s / server.seconds(20)))
        times: dict[str, list[float]] = {kind: [] for kind in servers}
        for number in range(rounds):
            for kind in kinds if number % 2 == 0 else kinds[::-1]:
                times[kind].append(servers[kind].seconds(calls[kind]))
        for server in servers.values():
            server.close()
        forecasts = {kind: np.load(directory / f"{kind}.npy") for kind in kinds}
    theirs = forecasts.pop("onnx")
    furthest = max(np.abs(ours - theirs).max() for ours in forecasts.values())
    difference = float(furthest / (1 + np.abs(theirs).max()))
    microseconds = {kind: round(statistics.median(times[kind]) * 1e6, 2) for kind in kinds}
    ratios = [one / other for one, other in zip(times["tvm"], times["onnx"], strict=True)]
    low, high = interval(ratios)
    spread = {kind: statistics.median(abs(t - statistics.median(v)) for t in v) for kind, v in times.items()}
    noisy = any(spread[kind] > 0.05 * statistics.median(times[kind]) for kind in times)
    ratio = statistics.median(ratios)
    return {
        "case": case.name,
        "variates": case.variates,
        "lookback": case.lookback,
        "horizon": case.horizon,
        "ratio": round(ratio, 3),
        "interval": [round(low, 3), round(high, 3)],
        "wanted": case.wanted,
        "met": None if case.wanted is None else ratio <= case.wanted,
        "tvm_us": microseconds["tvm"],
        "from_c_us": microseconds.get("from_c"),
        "onnxruntime_us": microseconds["onnx"],
        "calls": {kind: rounds * count for kind, count in calls.items()},
        "noisy": noisy,
        "difference": difference,
        "sizes": sizes,
    }


def library_bytes() -> dict[str, int]:
    """What the other forms need beside their artifact: runtime libraries as installed here."""
    import onnxruntime
    import tvm
    import tvm_ffi

    def shared(module: Any, pattern: str) -> int:
        root = Path(module.__file__).parent
        return sum(path.stat().st_size for path in root.rglob(pattern) if not path.is_symlink())

    return {
        "tvm_runtime": shared(tvm, "libtvm_runtime.so"),
        "tvm_ffi": shared(tvm_ffi, "libtvm_ffi.so"),
        "onnxruntime": shared(onnxruntime, "*.so*"),
    }


def main() -> None:
    """Runs the cases and writes the table."""
    from tsfmc.targets.measure.host import host_record
    from tsfmc.targets.native.devices import find_device

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", nargs=2, metavar=("DIRECTORY", "KIND"), help=argparse.SUPPRESS)
    parser.add_argument("--only", help="cases whose name starts with this")
    parser.add_argument("--device", default="host", help="host, x86-64-v3, ...: must run here")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--round-ms", type=float, default=40.0, help="time of each engine per round")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.serve:
        serve(Path(given.serve[0]), given.serve[1])
        return
    rows = []
    for case in CASES:
        if given.only and not case.name.startswith(given.only):
            continue
        row = compare(case, given.rounds, given.round_ms / 1e3, given.device, given.tune)
        rows.append(row)
        print(
            f"{row['case']:32s} D={row['variates']:<3d} ratio {row['ratio']:.3f} {row['interval']} "
            f"wanted {row['wanted']}  tvm {row['tvm_us']} us  from C {row['from_c_us']} us  "
            f"onnxruntime {row['onnxruntime_us']} us"
            f"{'  noisy' if row['noisy'] else ''}",
            flush=True,
        )
    method = (
        f"single-stream, batch 1, fp32, 1 thread each, one engine per process, interleaved, warm-up "
        f"{WARM_UP_CALLS} calls and {WARM_UP_S} s, {given.rounds} rounds of {given.round_ms:.0f} ms each, "
        f"{WINDOWS} windows, host copies in, onnxruntime on the exported and simplified graph with batch 1, "
        f"ratio = median over rounds, interval = 95 % bootstrap, from_c_us = the same library's loop in C"
    )
    device = find_device(given.device)
    record = {
        "method": method,
        "host": host_record(),
        "device": {"name": device.name, "target": dict(device.target), "tuned": given.tune},
        "library_bytes": library_bytes(),
        "rows": rows,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
