"""Time and memory of statistics, selection and solve over the number of rows, without a teacher.

    python benchmarks/solve_scaling.py --threads 2

A made-up series of 8 variates lies memory-mapped on disk; every size runs in a process of its own, which
reports seconds and its peak memory.  The peak of a process that only imports is taken off beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import kept
import numpy as np

RESULTS = Path(__file__).parent / "results" / "solve_scaling.json"
ROWS = (62_500, 125_000, 250_000, 500_000, 1_000_000)
VARIATES, LOOKBACK, HORIZON = 8, 512, 96


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, help="run one size in this process")
    options = parser.parse_args()
    if options.rows is not None:
        print(json.dumps(one(options.rows, options.threads)))
        return
    found = {}
    for rows in ROWS:
        command = [sys.executable, __file__, "--rows", str(rows), "--threads", str(options.threads)]
        found[str(rows)] = json.loads(subprocess.check_output(command))
        print(rows, found[str(rows)], flush=True)
    kept.write(RESULTS, {"threads": options.threads, "variates": VARIATES, "rows": found})


def one(rows: int, threads: int) -> dict[str, Any]:
    """Seconds and peak memory of one size."""
    import torch

    from tsfmc.compiler.data import Dataset
    from tsfmc.compiler.data.splits import Splits
    from tsfmc.compiler.learning.grid import Grid
    from tsfmc.compiler.learning.rolling_origin import select
    from tsfmc.compiler.learning.statistics import WindowStatistics

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        values = make_series(Path(folder) / "values.npy", rows)
        splits = Splits(rows * 7 // 10, rows // 10, rows - rows * 7 // 10 - rows // 10)
        names = tuple(f"v{at}" for at in range(VARIATES))
        scale = np.zeros(VARIATES), np.ones(VARIATES)
        data = Dataset("made", "0" * 64, names, "h", rows, splits, *scale, values)
        before = peak_mb()
        started = time.perf_counter()
        selection = select(WindowStatistics(data, LOOKBACK, HORIZON), Grid())
        seconds = time.perf_counter() - started
    return {
        "seconds": round(seconds, 1),
        "peak_mb": round(peak_mb()),
        "peak_mb_before": round(before),
        "chosen": f"{selection.chosen.form} {selection.chosen.rank}",
    }


def make_series(path: Path, rows: int) -> np.ndarray:
    """Daily and weekly cycles with noise, written in pieces: ``[rows, 8]``, memory-mapped."""
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=(rows, VARIATES))
    rng = np.random.default_rng(0)
    for start in range(0, rows, 10_000):
        hours = np.arange(start, min(start + 10_000, rows))[:, None]
        cycle = np.sin(2 * np.pi * hours / 24 + np.arange(VARIATES))
        week = 0.5 * np.cos(2 * np.pi * hours / 168)
        values[start : start + len(hours)] = cycle + week + 0.3 * rng.standard_normal((len(hours), VARIATES))
    values.flush()
    return np.load(path, mmap_mode="r")


def peak_mb() -> float:
    """Of this process so far; pages of the mapped file that are in memory count too."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
