"""Inputs beside the window in the model: a row is a variate's lookback, then what all variates share.

    row [B, D, L + E]   ->   forecast = model(row[..., :L]) + row[..., L:] B        B [D, E, H]

The inputs are encoded as ``data/inputs.py`` has it; a device does the same before it calls the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..base.spread import spread
from ..data import Windows
from ..data.inputs import InputGroup, InputRows, input_rows
from .forecaster import Forecaster
from .products import product_of_each


class InputEffect(nn.Module):
    """What inputs add to a forecast.

    Args:
        groups: in the order of the row.
        weight: ``[D, E, H]`` in scaled units.
        ridge: that it was solved with, in windows.
    """

    def __init__(self, groups: Sequence[InputGroup], weight: Tensor, ridge: float) -> None:
        super().__init__()
        self.groups, self.ridge = tuple(groups), ridge
        self.weight = nn.Parameter(weight.float(), requires_grad=False)

    @property
    def config(self) -> dict[str, Any]:
        """For the manifest: the groups."""
        return {"groups": [asdict(group) for group in self.groups], "ridge": self.ridge}

    def forward(self, inputs: Tensor) -> Tensor:
        """``inputs [B, D, E]`` to what they add ``[B, D, H]``."""
        return product_of_each(inputs, self.weight)


class InputForecaster(Forecaster):
    """A model of the window alone, and what the inputs add: rows in, forecasts out."""

    def __init__(self, model: Forecaster, effect: InputEffect) -> None:
        super().__init__()
        self.model, self.effect = model, effect
        self.lookback, self.horizon, self.inputs = model.lookback, model.horizon, effect.groups
        self.config = {"kind": "inputs", "model": dict(model.config), **effect.config}

    def forward(self, row: Tensor) -> Tensor:
        """``row [B, D, L + E]`` to ``[B, D, H]``."""
        forecast: Tensor = self.model(row[..., : self.lookback]) + self.effect(row[..., self.lookback :])
        return forecast


class WindowRows:
    """Windows with their inputs behind the lookback."""

    def __init__(self, windows: Windows, inputs: InputRows) -> None:
        self.windows, self.inputs = windows, inputs

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """Rows ``[B, D, L + E]`` and futures ``[B, D, H]``, float32."""
        past, future = self.windows.batch(indices)
        return self.rows(indices, past), future

    def rows(self, indices: Sequence[int] | np.ndarray | Tensor, past: Tensor) -> Tensor:
        """``[B, D, L + E]`` of the pasts ``[B, D, L]`` of the windows ``indices``."""
        starts = self.windows.starts(np.asarray(indices, dtype=np.int64))
        found = torch.from_numpy(self.inputs.at(starts)).to(past.dtype)
        return torch.cat([past, found[:, None].expand(-1, past.shape[1], -1)], dim=-1)

    def spread(self, count: int) -> np.ndarray:
        """The rows of ``count`` windows spread evenly over the part: ``[count, D, L + E]``."""
        rows: np.ndarray = self.batch(spread(len(self), count))[0].numpy()
        return rows


def rows_for(model: Forecaster, windows: Windows) -> Windows | WindowRows:
    """What ``model`` reads of the windows."""
    if not model.inputs:
        return windows
    found = input_rows(windows.data, model.inputs, windows.lookback, windows.horizon)
    return WindowRows(windows, found)
