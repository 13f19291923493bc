"""Latency of the forms a DLinear folds into: one matrix for all variates, one each, or low rank.

    python benchmarks/affine_forms.py --out benchmarks/results/affine_forms.json [--variates 1 7 21]

Every form is lowered for onnxruntime and by the tvm target, and all of them are measured in one interleaved
run on one thread.  Ratios are to the shared form on onnxruntime; below one is faster.  Latency does not
depend on the values of the weights, so the maps and the windows are random.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsfmc.compiler.ir.forecaster import Forecaster
from tsfmc.compiler.learning.cost import cost_of
from tsfmc.compiler.students import from_config
from tsfmc.targets import onnx, tvm
from tsfmc.targets.base import Shape
from tsfmc.targets.measure.host import host_record
from tsfmc.targets.measure.latency import Call, LatencyReport, measure
from tsfmc.targets.measure.parity import check_parity, hard_windows

LOOKBACK, HORIZON = 512, 96
RANKS = (7, 11, 15, 31)
BASE = "onnx shared"


def forms(variates: int) -> dict[str, Forecaster]:
    """Random maps in every folded form."""
    sizes = {"lookback": LOOKBACK, "horizon": HORIZON}
    each = {**sizes, "variates": variates}
    configs: dict[str, dict[str, Any]] = {
        "shared": {"kind": "affine", "bias": False, **sizes},
        "per-variate": {"kind": "affine_maps", **each},
    }
    configs |= {f"rank {rank}": {"kind": "low_rank_map", "rank": rank, **each} for rank in RANKS}
    models = {name: from_config(config).eval() for name, config in configs.items()}
    for model in models.values():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    return models


def candidates(models: dict[str, Forecaster], windows: np.ndarray, folder: Path) -> dict[str, Call]:
    """Every form on both targets, after a parity check with torch."""
    found: dict[str, Call] = {}
    shape = Shape(windows.shape[1], LOOKBACK, HORIZON)
    for kind, target in (("onnx", onnx.TARGET), ("tvm", tvm.TARGET)):
        for name, model in models.items():
            directory = folder / kind / name.replace(" ", "_")
            directory.mkdir(parents=True)
            payload = target.lower_model(
                model, shape, directory, options=target.Options(), calibration=windows
            )
            engine = target.load(directory, payload, threads=1)
            parity = check_parity(engine, _torch(model), hard_windows(windows[:16]), target.tolerance)
            if not parity.passed:
                raise SystemExit(f"{kind} {name}: {parity.describe()}")
            found[f"{kind} {name}"] = engine
    return found


def _torch(model: Forecaster) -> Call:
    def call(past: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            forecast: np.ndarray = model(torch.from_numpy(past)).numpy()
        return forecast

    return call


def record(models: dict[str, Forecaster], report: LatencyReport, variates: int) -> dict[str, Any]:
    """Cost and latency of every form, and its ratio to the shared one on onnxruntime."""
    costs = {name: cost_of(model, variates) for name, model in models.items()}
    rows = {}
    for name, row in report.rows.items():
        ratio = report.ratio(name, BASE)
        cost = costs[name.split(" ", 1)[1]]
        rows[name] = {
            "parameters": cost.parameters,
            "macs": cost.macs,
            "ratio": ratio.value,
            "interval": [ratio.low, ratio.high],
            "latency": row.to_dict(),
        }
    return {"forms": rows, "noisy": report.noisy, "method": report.method, "host": host_record()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--variates", type=int, nargs="+", default=[1, 7, 21])
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    results = {}
    for variates in args.variates:
        windows = np.random.default_rng(0).normal(size=(64, variates, LOOKBACK)).cumsum(-1)
        windows = (windows / 16).astype(np.float32)
        models = forms(variates)
        with tempfile.TemporaryDirectory() as folder:
            calls = candidates(models, windows, Path(folder))
            report = measure(calls, windows, threads=1, duration_s=args.seconds)
        results[f"variates {variates}"] = record(models, report, variates)
        print(f"D={variates}, ratio to {BASE}{', noisy' if report.noisy else ''}")
        for name, row in results[f"variates {variates}"]["forms"].items():
            print(f"  {name:18s} {row['latency']['median_us']:8.1f} us  {row['ratio']:5.2f}")
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
