"""Weights the KD term over the horizon (paper B, equation in section B.1).

    w_t = exp(tau * t/(T-1)) / mean_j exp(tau * j/(T-1))        t = 0..T-1, mean(w) = 1
    L_kd = 1/(B D T) * sum_{b,d,t} w_t (teacher_{b,t,d} - student_{b,t,d})^2

``tau = 0`` is uniform KD.  Without this pass KD stays uniform: that pipeline is the ablation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..compiler.base.errors import PassError
from ..compiler.ir.objective import Batch, LossTerm
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult
from ..compiler.ir.unit import CompileUnit


def horizon_weights(horizon: int, tau: float) -> Tensor:
    """``w [T]`` with mean 1, rising with the step for ``tau > 0``.  float64 inside, float32 out."""
    ramp = torch.linspace(0, 1, horizon, dtype=torch.float64) if horizon > 1 else torch.zeros(1).double()
    # softmax * T is the same quotient and cannot overflow.
    return (torch.softmax(tau * ramp, dim=0) * horizon).float()


class HorizonKD(LossTerm):
    """``1/(B D T) sum w_t (teacher - student)^2``."""

    name = "kd"
    target = "teacher"
    needs_teacher = True

    def __init__(self, horizon: int, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.register_buffer("weights", horizon_weights(horizon, tau), persistent=False)
        self.weights: Tensor

    def forward(self, batch: Batch) -> Tensor:
        if batch.teacher_forecast is None:
            raise ValueError("the batch has no teacher forecast")
        return (self.weights * (batch.teacher_forecast - batch.forecast).square()).mean()

    @property
    def config(self) -> Mapping[str, Any]:
        return {"horizon": len(self.weights), "tau": self.tau}

    def describe(self) -> str:
        first, last = float(self.weights[0]), float(self.weights[-1])
        return f"kd weighted over the horizon, tau={self.tau:g}, w from {first:.3f} to {last:.3f}"


class WeightHorizons(Pass):
    """Replaces uniform KD by horizon-weighted KD of the same lambda."""

    name = "weight_horizons"
    reads = frozenset({"objective"})
    writes = frozenset({"objective"})
    needs_teacher = True
    summary = "weight KD over the horizon: w_t ~ exp(tau t/(T-1)), mean 1"

    class Options(PassOptions):
        """``tau`` of the paper; its default there is 1."""

        tau: float = 1.0

    def requires(self, unit: CompileUnit) -> None:
        if not any(term.name == "kd" for _, term in unit.objective):
            raise PassError(
                "there is no kd term to weight", hint="build_student adds it when there is a teacher"
            )

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        term = HorizonKD(unit.task.horizon, self.options.tau)
        objective = unit.objective.put(unit.objective.weight("kd"), term)
        metrics = {"w_first": float(term.weights[0]), "w_last": float(term.weights[-1])}
        return PassResult(unit.with_(objective=objective), True, metrics)
