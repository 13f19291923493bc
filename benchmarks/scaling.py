"""How a compile grows: wall time and peak memory over windows and over variates, labelling apart.

    python benchmarks/scaling.py

Every row is a process of its own, ``tsfmc compile --stop-after fold_affine`` without a teacher on made series
(a day's cycle and AR(1) noise), one thread, lookback 512, horizon 96, the cache off.  ``store`` is what a
training saves by reading a teacher's forecasts instead of computing them: the same windows through the
embedded teacher and out of a memory-mapped file.  A row that is in the results is not run again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / "results" / "scaling.json"
BY_ROWS = [(rows, 7) for rows in (4_000, 16_000, 64_000, 256_000)]
BY_VARIATES = [(4_000, variates) for variates in (1, 7, 50, 200, 500)]
PIPELINE = '["build_student","gather_statistics","solve_affine","fold_affine"]'
SETTINGS = (
    f"pipeline={PIPELINE}",
    "passes.build_student.lambda_kd=0",
    'passes.solve_affine.search=["maps","ridge"]',
)


def main() -> None:
    """Runs what is missing."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for rows, variates in dict.fromkeys([*BY_ROWS, *BY_VARIATES]):
        name = f"{rows} rows, {variates} variates"
        if name not in found:
            found[name] = compiled(rows, variates)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        print(name, found[name])
    if "store" not in found:
        found["store"] = store_against_teacher()
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print("store", found["store"])


def compiled(rows: int, variates: int) -> dict[str, float]:
    """Seconds and MiB of one compile."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "series.parquet"
        series(rows, variates).to_parquet(table)
        command = [sys.executable, "-m", "tsfmc", "compile", "--data", str(table), "--no-baseline"]
        command += [part for setting in SETTINGS for part in ("--set", setting)]
        command += ["--stop-after", "fold_affine", "--no-cache", "-o", str(Path(folder) / "out")]
        began = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit((Path(folder) / "log").read_text()[-500:])
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


def series(rows: int, variates: int) -> pd.DataFrame:
    """``rows`` hours of ``variates`` series."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((rows, variates))
    for row in range(1, rows):
        noise[row] += 0.8 * noise[row - 1]
    hours = np.arange(rows)[:, None]
    values = 3 * np.sin(2 * np.pi * hours / 24 + rng.uniform(0, 6, variates)) + noise
    frame = pd.DataFrame(values, columns=[f"v{index}" for index in range(variates)])
    frame.insert(0, "date", pd.date_range("2000-01-01", periods=rows, freq="h"))
    return frame


def store_against_teacher(windows: int = 64) -> dict[str, float]:
    """Milliseconds a window of the embedded teacher, and of its forecasts out of a file."""
    import torch

    import tsfmc

    torch.set_num_threads(1)
    teacher, _ = tsfmc.load_teacher("fracast", lookback=512, horizon=96, variates=3)
    past = torch.randn(windows, 3, 512)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        forecast = torch.cat([teacher(past[at : at + 8]) for at in range(0, windows, 8)])
        online = time.perf_counter() - began
        np.save(Path(folder) / "forecast.npy", forecast.numpy())
        began = time.perf_counter()
        stored = np.load(Path(folder) / "forecast.npy", mmap_mode="r")
        total = sum(float(stored[at : at + 8].sum()) for at in range(0, windows, 8))
        read = time.perf_counter() - began
    assert np.isfinite(total)
    return {"teacher_ms": round(1e3 * online / windows, 3), "store_ms": round(1e3 * read / windows, 4)}


if __name__ == "__main__":
    main()
