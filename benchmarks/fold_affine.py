"""Folding against the plain export of the same student, on onnxruntime, one thread, in one run.

    python benchmarks/fold_affine.py

Latency does not depend on the values of the weights, so the students are untrained (random, not zero).
Method as printed: single stream, interleaved, median of the ratio with a bootstrap interval.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from tsfmc.compiler.students import build_student
from tsfmc.passes.fold_affine import fold_dlinear, fold_itransformer
from tsfmc.targets import TARGETS
from tsfmc.targets.base import Shape
from tsfmc.targets.measure.host import host_record
from tsfmc.targets.measure.latency import measure

RESULTS = Path(__file__).parent / "results" / "fold_affine.json"
LOOKBACK, HORIZON = 512, 96
CASES = {
    "dlinear": ("dlinear", {"normalisation": "none"}, fold_dlinear),
    "dlinear, instance normalisation": ("dlinear", {}, fold_dlinear),
    "dlinear, instance normalisation, embedding 256": ("dlinear", {"embedding": 256}, fold_dlinear),
    "itransformer d=512": ("itransformer", {}, fold_itransformer),
}


def main() -> None:
    torch.manual_seed(0)
    target, found = TARGETS["onnx"], {}
    for name, (kind, options, fold) in CASES.items():
        for variates in (1, 7, 21):
            student = build_student(kind, lookback=LOOKBACK, horizon=HORIZON, **options).eval()
            for parameter in student.parameters():
                torch.nn.init.normal_(parameter, std=0.02)
            windows = np.random.default_rng(0).standard_normal((64, variates, LOOKBACK)).astype(np.float32)
            with tempfile.TemporaryDirectory() as folder:
                engines = {}
                for form, model in (("artifact", fold(student)), ("teacher", student)):
                    place = Path(folder) / form
                    place.mkdir()
                    shape = Shape(variates, LOOKBACK, HORIZON)
                    payload = target.lower_model(
                        model.eval(), shape, place, options=target.Options(), calibration=windows
                    )
                    engines[form] = target.load(place, payload, 1)
                report = measure(engines, windows, threads=1).to_manifest()
            found[f"{name}, D={variates}"] = report
            low, high = report["speedup_interval"]
            print(f"{name}, D={variates}: {report['speedup']:.2f}x [{low:.2f}, {high:.2f}]")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"host": host_record(), "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
