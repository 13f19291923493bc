"""The c target against onnxruntime: one thread, batch 1, the calls of ``run.py`` on both sides.

    python benchmarks/c_vs_onnxruntime.py [--forms shared low-rank itransformer] [--variates 1 7 21]

Both engines are the classes that artifacts carry, called from Python in turns within one process, so that a
busy machine slows both; the figure is the median of the ratios of neighbouring rounds, below one the C is
faster.  Weights and windows are random: latency does not hang on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsfmc.compiler.students import from_config
from tsfmc.targets import TARGETS
from tsfmc.targets.base import Shape
from tsfmc.targets.measure.host import host_record

LOOKBACK, HORIZON = 512, 96
ROUNDS, ROUND_SECONDS = 41, 0.01
RESULTS = Path(__file__).parent / "results" / "c_vs_onnxruntime.json"
FORMS: dict[str, dict[str, Any]] = {
    "shared": {"kind": "affine", "bias": False},
    "per-variate": {"kind": "affine_maps"},
    "low-rank": {"kind": "low_rank_map", "rank": 16},
    "itransformer": {
        "kind": "folded_itransformer",
        "width": 128,
        "layers": 1,
        "heads": 4,
        "ffn": 512,
        "normalisation": "instance",
    },
}


def engines(form: str, variates: int, folder: Path) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Both engines of one student; lowering the C has checked it against the student."""
    config = {**FORMS[form], "lookback": LOOKBACK, "horizon": HORIZON}
    if form in ("per-variate", "low-rank"):
        config["variates"] = variates
    torch.manual_seed(0)
    model = from_config(config).eval()
    for parameter in model.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.05)
    found = {}
    for kind, options in (("c", {}), ("onnx", {"batch": 1})):
        target = TARGETS[kind]
        (folder / kind).mkdir()
        payload = target.lower_model(
            model,
            Shape(variates, LOOKBACK, HORIZON),
            folder / kind,
            options=target.Options(**options),
            calibration=windows(variates),
        )
        found[kind] = target.load(folder / kind, payload, 1)
    return found


def windows(variates: int) -> np.ndarray:
    """``[16, D, L]`` random walks."""
    generator = np.random.default_rng(0)
    return (generator.normal(size=(16, variates, LOOKBACK)).cumsum(-1) / 4).astype(np.float32)


def seconds(call: Callable[[np.ndarray], np.ndarray], past: np.ndarray, count: int) -> float:
    """Mean seconds of a call."""
    start = time.perf_counter()
    for _ in range(count):
        call(past)
    return (time.perf_counter() - start) / count


def row(form: str, variates: int) -> dict[str, Any]:
    """One student on both, interleaved."""
    with tempfile.TemporaryDirectory() as folder:
        both, past = engines(form, variates, Path(folder)), windows(variates)[:1].copy()
        for call in both.values():
            seconds(call, past, 100)
        count = max(10, int(ROUND_SECONDS / seconds(both["onnx"], past, 50)))
        rounds = [
            (seconds(both["c"], past, count), seconds(both["onnx"], past, count)) for _ in range(ROUNDS)
        ]
    ratios = sorted(one / other for one, other in rounds)
    return {
        "form": form,
        "variates": variates,
        "ratio": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(ratios[ROUNDS // 4], 3), round(ratios[-ROUNDS // 4], 3)],
        "c_fastest_us": round(min(one for one, _ in rounds) * 1e6, 2),
        "onnxruntime_fastest_us": round(min(other for _, other in rounds) * 1e6, 2),
    }


def main() -> None:
    """Writes a line a student to stdout and the rows to ``--out``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--forms", nargs="+", choices=sorted(FORMS), default=list(FORMS))
    parser.add_argument("--variates", type=int, nargs="+", default=[1, 7, 21])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for form in arguments.forms:
        for variates in arguments.variates:
            rows.append(row(form, variates))
            print(" ".join(f"{name}={value}" for name, value in rows[-1].items()), flush=True)
    arguments.out.write_text(json.dumps({"host": host_record(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
