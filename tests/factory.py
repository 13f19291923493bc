"""Small real parts for tests: a series on disk, a teacher on disk, and a unit made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsfmc.compiler.data import load_data
from tsfmc.compiler.frontends import build_teacher, open_teacher, save_teacher
from tsfmc.compiler.ir.unit import CompileUnit, Task

LOOKBACK, HORIZON = 48, 12

TINY_TTM: dict[str, Any] = {
    "model_type": "tinytimemixer",
    "architectures": ["TinyTimeMixerForPrediction"],
    "context_length": LOOKBACK,
    "prediction_length": HORIZON,
    "patch_length": 8,
    "patch_stride": 8,
    "d_model": 24,
    "num_layers": 2,
    "adaptive_patching_levels": 2,
    "expansion_factor": 2,
    "decoder_d_model": 12,
    "decoder_num_layers": 1,
    "scaling": "std",
    "loss": "mse",
}


def write_series(path: Path, rows: int = 700, variates: int = 3) -> Path:
    """A CSV of daily cycles, trends and noise, hourly."""
    generator = np.random.default_rng(0)
    hours = np.arange(rows)
    columns: dict[str, Any] = {"date": pd.date_range("2024-01-01", periods=rows, freq="h")}
    for index in range(variates):
        cycle = (1 + index) * np.sin(2 * np.pi * hours / 24 + index)
        columns[f"v{index}"] = 10 * index + cycle + 0.002 * hours + 0.3 * generator.standard_normal(rows)
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def write_teacher(directory: Path, variates: int = 3) -> Path:
    """A TTM checkpoint with random weights in the upstream format."""
    torch.manual_seed(1)
    teacher = build_teacher(TINY_TTM, lookback=LOOKBACK, horizon=HORIZON, variates=variates)
    save_teacher(teacher, directory)
    return directory


def make_unit(folder: Path, rows: int = 700) -> CompileUnit:
    """A unit as it enters the pipeline."""
    data = load_data(write_series(folder / "series.csv", rows), lookback=LOOKBACK, horizon=HORIZON)
    teacher, info = open_teacher(
        write_teacher(folder / "teacher"), lookback=LOOKBACK, horizon=HORIZON, variates=len(data.variates)
    )
    return CompileUnit(
        Task(LOOKBACK, HORIZON, data.variates, data.frequency), data, teacher=teacher, teacher_info=info
    )
