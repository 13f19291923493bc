"""Inputs beside the window in the model: a row is a variate's lookback, then what all variates share.

    row [B, D, L + E]   ->   forecast = model(row[..., :L]) + row[..., L:] B        B [D, E, H]

The inputs are encoded as ``data/inputs.py`` has it; a device does the same before it calls the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ..data.inputs import InputGroup
from .forecaster import Forecaster


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
    def width(self) -> int:
        """E."""
        return int(self.weight.shape[1])

    @property
    def config(self) -> dict[str, Any]:
        """For the manifest: the groups."""
        return {"groups": [asdict(group) for group in self.groups], "ridge": self.ridge}

    def forward(self, inputs: Tensor) -> Tensor:
        """``inputs [B, D, E]`` to what they add ``[B, D, H]``."""
        if torch.compiler.is_exporting():
            return (inputs.unsqueeze(2) @ self.weight).squeeze(2)
        return (inputs.transpose(0, 1) @ self.weight).transpose(0, 1)


class InputForecaster(Forecaster):
    """A model of the window alone, and what the inputs add: rows in, forecasts out."""

    def __init__(self, model: Forecaster, effect: InputEffect) -> None:
        super().__init__()
        self.model, self.effect = model, effect
        self.lookback, self.horizon = model.lookback, model.horizon
        self.config = {"kind": "inputs", "model": dict(model.config), **effect.config}

    def forward(self, row: Tensor) -> Tensor:
        """``row [B, D, L + E]`` to ``[B, D, H]``."""
        forecast: Tensor = self.model(row[..., : self.lookback]) + self.effect(row[..., self.lookback :])
        return forecast
