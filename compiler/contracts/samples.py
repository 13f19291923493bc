"""Small inputs that contracts are tried on: windows, and a unit as it enters the pipeline.

Everything is drawn from fixed seeds; nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..data import load_data
from ..ir.forecaster import Teacher, TeacherOutputs
from ..ir.provenance import TeacherInfo
from ..ir.unit import CompileUnit, Task

LOOKBACK, HORIZON, VARIATES = 48, 12, 2
PERIOD = 8


def windows(batch: int, variates: int, lookback: int) -> Tensor:
    """Cycles on a random walk, each series with a level and a scale of its own: ``[B, D, L]``."""
    generator = torch.Generator().manual_seed(batch * 1000 + variates)
    walk = torch.randn(batch, variates, lookback, generator=generator).cumsum(-1)
    cycle = torch.sin(torch.arange(lookback) * (2 * torch.pi / 24))
    scale = 0.5 + torch.rand(batch, variates, 1, generator=generator)
    return scale * (walk + 3 * cycle) + 5 * scale


def hard_windows(variates: int, lookback: int) -> Tensor:
    """A plain window, a constant one, a nearly constant one and zeros: ``[4, D, L]``."""
    plain = windows(1, variates, lookback)
    constant = torch.full_like(plain, 1.5)
    noise = 1e-4 * torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))
    return torch.cat([plain, constant, constant + noise, torch.zeros_like(plain)])


class SampleTeacher(Teacher):
    """The last cycle, mapped linearly: enough of a teacher to record outputs and states of."""

    def __init__(self, lookback: int, horizon: int, variates: int) -> None:
        super().__init__()
        self.lookback, self.horizon, self.variates = lookback, horizon, variates
        self.config = {"tsfmc": {"family": "sample", "lookback": lookback, "horizon": horizon}}
        self.head = nn.Linear(PERIOD, horizon)

    def states(self, past: Tensor) -> Tensor:
        """The cycles themselves, ``[B, D, L / 8, 8]``."""
        return past.reshape(*past.shape[:-1], -1, PERIOD)

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        level = past.mean(-1, keepdim=True)
        forecast: Tensor = self.head(past[..., -PERIOD:] - level) + level
        return forecast

    def outputs(self, past: Tensor, *, states: bool = True) -> TeacherOutputs:
        return TeacherOutputs(self(past), states=self.states(past) if states else None)


def unit(folder: Path, *, teacher: Teacher | None = None, rows: int = 400) -> CompileUnit:
    """A unit as it enters the pipeline: an hourly series of two variates and an untrained teacher.

    Args:
        folder: where the series is written.
        teacher: by default a linear one of a thousandth of the usual size.
    """
    hours = np.arange(rows)
    draw = np.random.default_rng(0)
    columns: dict[str, Any] = {"date": pd.date_range("2024-01-01", periods=rows, freq="h")}
    for index in range(VARIATES):
        cycle = (1 + index) * np.sin(2 * np.pi * hours / 24 + index)
        columns[f"v{index}"] = 10 * index + cycle + 0.3 * draw.standard_normal(rows)
    path = folder / "series.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        teacher = teacher or SampleTeacher(LOOKBACK, HORIZON, VARIATES)
    data = load_data(path, lookback=teacher.lookback, horizon=teacher.horizon)
    info = TeacherInfo("sample", "sample", 0, "0" * 64, "CC0-1.0", True, "drawn")
    task = Task(teacher.lookback, teacher.horizon, data.variates, data.frequency)
    return CompileUnit(task, data, teacher=teacher.eval(), teacher_info=info)
