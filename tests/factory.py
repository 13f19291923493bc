"""Small real parts for tests: a series on disk, a teacher on disk, and a unit made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsfmc.compiler.data import load_data, load_panel
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


def write_panel(path: Path, items: int = 12, rows: int = 300, apart: float = 0.0) -> Path:
    """A long table of hourly items, two kinds of them that differ by ``apart``, with different starts."""
    parts = []
    for number in range(items):
        draw = np.random.default_rng([3, number])
        start = int(draw.integers(0, 10))
        hours = start + np.arange(rows)
        period = 24 if number % 2 else 24 - 12 * apart
        cycle = np.sin(2 * np.pi * (hours / period + draw.random()))
        values = 5 * number + (1 + number) * (cycle + 0.2 * draw.standard_normal(rows))
        stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, unit="h")
        parts.append(pd.DataFrame({"unique_id": f"m{number}", "ds": stamps, "y": values}))
    pd.concat(parts).to_csv(path, index=False)
    return path


def make_panel_unit(folder: Path, **options: Any) -> CompileUnit:
    """A unit of a panel as it enters the pipeline, with a teacher."""
    source = write_panel(folder / "meters.csv", **options)
    panel = load_panel(source, lookback=LOOKBACK, horizon=HORIZON, id_column="unique_id")
    teacher, info = open_teacher(
        write_teacher(folder / "teacher", 1), lookback=LOOKBACK, horizon=HORIZON, variates=1
    )
    task = Task(LOOKBACK, HORIZON, panel.variates, panel.frequency)
    return CompileUnit(task, panel, teacher=teacher, teacher_info=info)


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
