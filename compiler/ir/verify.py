"""Well-formedness of a unit, and the proof obligations that passes declare."""

from __future__ import annotations

import torch
from torch import nn

from ..base.errors import VerificationError
from ..base.spread import spread
from .unit import CompileUnit, PartName

FUNCTION_TOLERANCE = 1e-5
VERIFIED: frozenset[PartName] = frozenset({"task", "data", "teacher", "student", "objective"})
"""The parts that ``verify_unit`` looks at."""


def verify_unit(unit: CompileUnit) -> None:
    """Checks what every unit must satisfy, whatever passes ran.

    Raises:
        VerificationError: naming the part that is broken.
    """
    task = unit.task
    if tuple(unit.data.variates) != tuple(task.variates):
        raise VerificationError(f"the task has variates {task.variates}, the data {unit.data.variates}")
    for role, module in (("teacher", unit.teacher), ("student", unit.student)):
        if module is None:
            continue
        if module.lookback != task.lookback or module.horizon != task.horizon:
            raise VerificationError(
                f"the {role} maps {module.lookback} to {module.horizon} steps, "
                f"the task {task.lookback} to {task.horizon}"
            )
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise VerificationError(f"the {role}'s tensor {name} is not finite")
    names = [term.name for _, term in unit.objective]
    if len(set(names)) != len(names):
        raise VerificationError(f"the objective has two terms of one name: {names}")


def probe_windows(unit: CompileUnit, count: int = 8) -> torch.Tensor:
    """Real training windows, a constant one and a nearly constant one: ``[count + 2, D, L]``."""
    windows = unit.data.windows("train", unit.task.lookback, unit.task.horizon)
    past, _ = windows.batch(spread(len(windows), min(count, len(windows))))
    constant = torch.full_like(past[:1], 1.5)
    noise = torch.randn(past[:1].shape, generator=torch.Generator().manual_seed(0)) * 1e-4
    return torch.cat([past, constant, constant + noise])


@torch.inference_mode()
def function_change(before: nn.Module, after: nn.Module, past: torch.Tensor) -> float:
    """Largest ``|after - before|`` relative to the largest ``|before|`` of the same window."""
    reference, forecast = before(past), after(past)
    scale = reference.abs().amax(dim=(1, 2)).clamp_min(1e-12)
    return float(((forecast - reference).abs().amax(dim=(1, 2)) / scale).max())


def verify_function(before: CompileUnit, after: CompileUnit, name: str) -> float:
    """The largest relative change of the model's forecast on probe windows.

    Raises:
        VerificationError: a pass that declares ``preserves_function`` changed it by more than 1e-5.
    """
    change = function_change(before.model, after.model, probe_windows(before))
    if not change <= FUNCTION_TOLERANCE:
        raise VerificationError(
            f"{name} declares that it preserves the function, but forecasts moved by {change:.2e} relative",
            hint=f"expected at most {FUNCTION_TOLERANCE:.0e}",
        )
    return change
