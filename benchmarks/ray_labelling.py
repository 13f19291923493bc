"""How much faster two Ray workers label than one process: the same store, written in interleaved rounds.

    python benchmarks/ray_labelling.py [--teacher DIR] [--data NAME] [--rounds 5] [--windows 2048]

Everything computes in one thread.  A round labels the same windows in this process and on a local cluster in
turn.  Compared is the time from the first finished shard to the last, in which two workers have a shard less
to do; the whole, with the start of the cluster and of its workers that a run pays once, is given beside it.
Without arguments: a TTM of random weights and the published size on a drawn series.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
import psutil

from tsfmc.compiler.base.engines import executor_of
from tsfmc.compiler.base.executors import Executor
from tsfmc.compiler.base.parallel import Processes
from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.base.ray_executor import Ray
from tsfmc.compiler.data import Dataset, load_data
from tsfmc.compiler.frontends import build_teacher, open_teacher, save_teacher
from tsfmc.compiler.ir.forecaster import Teacher
from tsfmc.compiler.ir.provenance import TeacherInfo
from tsfmc.compiler.learning.labelling import StoreOptions
from tsfmc.compiler.learning.teacher_store import write_store

LOOKBACK, HORIZON = 512, 96


class Stamps(Silent):
    """When each shard was finished."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.at.append(time.perf_counter())


def label(
    folder: Path,
    teacher: Teacher,
    info: TeacherInfo,
    data: Dataset,
    executor: Executor,
    windows: int,
    at_once: int,
) -> tuple[float, float, bytes]:
    """Seconds a shard once the first are there, seconds of the whole, and the bytes of the labels.

    Args:
        at_once: shards that are finished at about the time of the first one.
    """
    stamps, began = Stamps(), time.perf_counter()
    write_store(
        folder,
        teacher,
        info,
        data,
        lookback=LOOKBACK,
        horizon=HORIZON,
        options=StoreOptions(states=(), train_windows=windows),
        progress=stamps,
        processes=Processes(),
        executor=executor,
    )
    labels = b"".join((folder / part / "forecast.npy").read_bytes() for part in ("train", "val", "test"))
    return (stamps.at[-1] - stamps.at[0]) / (len(stamps.at) - at_once), stamps.at[-1] - began, labels


def drawn(folder: Path) -> Path:
    """An hourly series of seven variates."""
    rows = np.arange(9000)
    noise = np.random.default_rng(0).standard_normal((len(rows), 7))
    values = np.sin(2 * np.pi * rows / 24)[:, None] + 0.3 * noise
    table = pd.DataFrame(values, columns=[f"v{index}" for index in range(7)])
    table.insert(0, "date", pd.date_range("2024-01-01", periods=len(rows), freq="h"))
    table.to_csv(folder / "series.csv", index=False)
    return folder / "series.csv"


def random_ttm(folder: Path) -> Path:
    """A checkpoint of TTM-r2's size."""
    config = {
        "model_type": "tinytimemixer", "architectures": ["TinyTimeMixerForPrediction"],
        "context_length": LOOKBACK, "prediction_length": HORIZON, "patch_length": 64, "patch_stride": 64,
        "d_model": 192, "num_layers": 2, "adaptive_patching_levels": 3, "expansion_factor": 2,
        "decoder_d_model": 128, "decoder_num_layers": 2, "scaling": "std", "loss": "mse",
    }  # fmt: skip
    save_teacher(build_teacher(config, lookback=LOOKBACK, horizon=HORIZON, variates=7), folder / "teacher")
    return folder / "teacher"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = load_data(asked.data or drawn(folder), lookback=LOOKBACK, horizon=HORIZON)
        teacher, info = open_teacher(
            asked.teacher or random_ttm(folder),
            lookback=LOOKBACK,
            horizon=HORIZON,
            variates=len(data.variates),
        )
        ratios = []
        for number in range(asked.rounds):
            found = {}
            for kind in ("local", "ray") if number % 2 == 0 else ("ray", "local"):
                at_once = 1 if kind == "local" else asked.workers
                with executor_of("local") if kind == "local" else Ray(workers=asked.workers) as executor:
                    where = folder / f"{kind}-{number}"
                    found[kind] = label(where, teacher, info, data, executor, asked.windows, at_once)
            (local, alone, here), (there, together, labels) = found["local"], found["ray"]
            assert here == labels, "the labels differ"
            ratios.append(local / there)
            load = psutil.getloadavg()[0]
            print(
                f"round {number}: one process {local:.3f} s a shard, {asked.workers} workers {there:.3f} s, "
                f"{local / there:.2f}x; the whole {alone:.1f} s and {together:.1f} s; load {load:.1f}",
                flush=True,
            )
        print(f"median {statistics.median(ratios):.2f}x, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
