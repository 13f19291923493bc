"""Compile the embedded teacher on a small part of the embedded series, and forecast with the artifact.

    python docs/examples/quickstart.py [FOLDER]

It takes seconds: one variate and a few hundred rows are enough to show every step. The figures that it
prints are those of a toy.
"""

import sys
import tempfile
from pathlib import Path

import tsfmc
from tsfmc.compiler.data import load_data

LOOKBACK, HORIZON = 96, 24


def main(folder: Path) -> None:
    """Compiles, reads the manifest, opens the artifact and forecasts."""
    task = {"lookback": LOOKBACK, "horizon": HORIZON, "split": "240,100,100"}
    variate = load_data("sample", **task).variates[0]

    # 1. A teacher, data and a target in; an artifact out.
    result = tsfmc.compile(
        teacher="fracast",
        data="sample",
        target="onnx",
        variates=variate,
        out=folder,
        set=["measure.duration_s=0.2", "measure.teacher_forms=['eager']", "passes.add_prior.windows=128"],
        **task,
    )

    # 2. What each pass did, and what the artifact is worth, stands in its manifest.
    manifest = result.manifests["onnx"]
    print("passes:", " -> ".join(entry["name"] for entry in manifest["passes"]))
    for name, row in manifest["accuracy"]["test"].items():
        print(f"test MSE {row['mse']:.4f}  {name}")
    for scenario, record in manifest["latency"]["scenarios"].items():
        print(f"speed-up over the teacher, {scenario}: {record['speedup']:.0f}x")

    # 3. The artifact takes raw units and gives raw units; opening it checks every hash.
    forecaster = tsfmc.load(result.artifacts["onnx"])
    past = forecaster.example_windows(1)[0]  # [D, L]
    forecast = forecaster.forecast(past)  # [D, H]
    print(f"forecast of {variate}: {forecast[0, :3].round(2).tolist()} ...")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
