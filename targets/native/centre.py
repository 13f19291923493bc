"""The window's mean goes round rounded weights, not through them.

    f(x) = f(x - m) + m g        m the mean of each variate's window,  g = f(1) - f(0)

This is exact for a map that is affine in each variate's window (what a DLinear folds into), and for one that
adds to it what no shift of the window changes (quantiles at distances in units of its spread).  Rounding the
weights of ``f`` to int8 changes the sums of its rows by some percent, and with them every forecast by that
share of the window's level: 0.88 to 1.14 of it for sums that were one.  After the change of form only the
deviations ``x - m`` meet rounded weights, and the level meets ``g``, kept in float32.  Other nonlinear
students stay as they are: those that normalise by the instance take the mean out themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.func import functional_call

from .static import export_static

PRODUCTS = ("aten.matmul", "aten.mm", "aten.bmm", "aten.linear", "aten.addmm", "aten.baddbmm")
"""Operators whose constant operand is rounded."""
VIEWS = ("aten.view", "aten.reshape", "aten.unsqueeze", "aten.squeeze", "aten.transpose", "aten.permute")

EXACT = 1e-9
"""Relative error within which the equations above hold in float64, or they do not hold."""


class Centred(nn.Module):
    """``past [B, D, L] -> f(past - m) + m g [B, D, H]`` with ``g [D, H]``."""

    gain: Tensor

    def __init__(self, program: nn.Module, gain: Tensor) -> None:
        super().__init__()
        self.program = program
        self.register_buffer("gain", gain)

    def forward(self, past: Tensor) -> Tensor:
        mean = past.mean(dim=-1, keepdim=True)
        forecast: Tensor = self.program(past - mean) + mean * self.gain
        return forecast


def centre(exported: ExportedProgram, shape: tuple[int, int, int]) -> ExportedProgram:
    """The program with the mean taken out first where that changes nothing; else the program itself."""
    gain = gain_of(exported, shape)
    return exported if gain is None else export_static(Centred(exported.module(), gain.float()), shape)


def gain_of(exported: ExportedProgram, shape: tuple[int, int, int]) -> Tensor | None:
    """``g [D, H]`` of a program at input ``shape [B, D, L]``, in float64.

    None where the program neither is an affine map of each variate's window nor multiplies the window as it
    is, or where the equation does not hold.
    """
    module = exported.module()
    weights = {name: each.double() for name, each in module.state_dict().items() if each.is_floating_point()}

    def program(past: Tensor) -> Tensor:
        forecast: Tensor = functional_call(module, weights, (past,))
        return forecast

    generator = torch.Generator().manual_seed(0)
    past = torch.randn(shape, generator=generator, dtype=torch.float64).cumsum(-1) + 3.0
    with torch.no_grad():
        try:
            start, at_one, at, at_twice = (program(each) for each in (0 * past, 0 * past + 1, past, 2 * past))
            gain: Tensor = (at_one - start)[0]
            mean = past.mean(dim=-1, keepdim=True)
            through_mean = program(past - mean) + mean * gain
        except RuntimeError:  # it holds numbers of a fixed type: not one of the folded maps
            return None
    scale = EXACT * (past.abs().max() + at.abs().max())
    same = (through_mean - at).abs().max() <= scale
    affine = (at_twice - 2 * at + start).abs().max() <= scale
    return gain if bool(same and (affine or multiplies_window(exported))) else None


def multiplies_window(exported: ExportedProgram) -> bool:
    """Whether a product takes the window itself, level and all."""
    (name,) = exported.graph_signature.user_inputs
    waiting = [node for node in exported.graph.nodes if node.name == name]
    while waiting:
        for user in waiting.pop().users:
            if str(user.target).startswith(PRODUCTS):
                return True
            if str(user.target).startswith(VIEWS):
                waiting.append(user)
    return False
