"""The program: a model as ``torch.export`` gives it, exported once for every target.

    model --export_program--> Program, batch symbolic --at(batch)--> the same with one batch size

A target takes the program, not the model: what all of them lower is one graph of ATen operators.  It is rows
in, rows out: a variate's quantile forecasts ``[H, Q]`` are one row of ``H Q`` numbers, step by step.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from ..base.errors import LoweringError

BATCH = "batch"
TRACED = 2
"""Batch of the example: 0 and 1 would be specialised to that size."""


@dataclass(frozen=True)
class Shape:
    """Static sizes of the program: D variates, L lookback, H horizon; the batch is dynamic unless fixed.

    ``quantiles`` is how many numbers a step has, 1 for a point forecast; ``beside`` how many inputs E stand
    behind the lookback.
    """

    variates: int
    lookback: int
    horizon: int
    quantiles: int = 1
    beside: int = 0

    @property
    def inputs(self) -> int:
        """Numbers of a variate's row of the input, ``L + E``."""
        return self.lookback + self.beside

    @property
    def outputs(self) -> int:
        """Numbers of a variate's row of the forecast, ``H Q``."""
        return self.horizon * self.quantiles


@dataclass(frozen=True, eq=False)
class Program:
    """``past [B, D, L] -> forecast [B, D, H Q]``, fp32, scaled; ``exported`` has a symbolic batch."""

    exported: ExportedProgram
    shape: Shape

    def __call__(self, past: np.ndarray) -> np.ndarray:
        """The forecast ``[B, D, H Q]`` of ``past [B, D, L]``: what every form of the program is held to."""
        with torch.inference_mode():
            forecast: np.ndarray = self.module(torch.from_numpy(past)).numpy()
        return forecast

    @cached_property
    def module(self) -> nn.Module:
        """The program as a module that can be called and exported again."""
        return self.exported.module()

    def at(self, batch: int | None) -> ExportedProgram:
        """The program at one batch size; with None as it is.

        Raises:
            LoweringError: torch.export does not take it at that size.
        """
        if batch is None:
            return self.exported
        example = torch.zeros(batch, self.shape.variates, self.shape.inputs)
        with _tracing():
            try:
                exported = torch.export.export(self.module, (example,))
            except Exception as error:  # as in export_program
                raise LoweringError(
                    f"the program cannot be exported at batch {batch}: {first_line(error)}"
                ) from error
        _forget_traces(exported)
        return exported

    @cached_property
    def key(self) -> str:
        """Hex sha256 of graph, weights and constants."""
        return program_key(self.exported)

    def __str__(self) -> str:
        variates, inputs, outputs = self.shape.variates, self.shape.inputs, self.shape.outputs
        return (
            f"past [{BATCH}, {variates}, {inputs}] -> forecast [{BATCH}, {variates}, {outputs}] "
            f"operators={operator_count(self.exported)} sha256={self.key[:16]}"
        )


class Rows(nn.Module):
    """A model's quantile forecasts ``[B, D, H, Q]`` as rows ``[B, D, H Q]``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        """``past [B, D, L]`` to ``[B, D, H Q]``."""
        forecast: torch.Tensor = self.model(past).flatten(2)
        return forecast


def export_program(model: nn.Module, shape: Shape, windows: np.ndarray) -> Program:
    """``torch.export`` of ``model`` with a symbolic batch.

    Args:
        model: eval mode, fp32, CPU, ``past [B, D, L] -> [B, D, H]``, or ``[B, D, H, Q]``.
        windows: real windows ``[N, D, L]`` float32; the first ones are traced.

    Raises:
        LoweringError: the model branches on data, bakes the batch size in or returns another shape.
    """
    if windows.ndim != 3 or windows.shape[1:] != (shape.variates, shape.inputs):
        raise LoweringError(
            f"calibration windows have shape {list(windows.shape)}, "
            f"expected [N, D, L] = [N, {shape.variates}, {shape.inputs}]"
        )
    name = type(model).__name__
    if shape.quantiles > 1:
        model = Rows(model).eval()
    rows = np.resize(np.arange(len(windows)), TRACED)
    example = torch.from_numpy(np.ascontiguousarray(windows[rows], dtype=np.float32))
    with _tracing():
        try:
            got = tuple(model(example).shape)
            exported = torch.export.export(model, (example,), dynamic_shapes=({0: Dim(BATCH, min=1)},))
        except Exception as error:  # torch.export has no common base class for what a model may do wrong
            raise LoweringError(
                f"{name} cannot be exported by torch.export: {first_line(error)}",
                hint="write the forward pass without branches on data and without fixed batch sizes",
            ) from error
    expected = (TRACED, shape.variates, shape.outputs)
    if got != expected:
        raise LoweringError(
            f"{name} returns shape {list(got)}, expected [B, D, H] = {list(expected)}",
            hint="a target takes a point forecast for every variate and step, or its quantiles",
        )
    _forget_traces(exported)
    return Program(exported, shape)


def _forget_traces(exported: ExportedProgram) -> None:
    """Where in the source a node was traced is dropped: a file written from a program names no build path."""
    for module in exported.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)


def program_key(exported: ExportedProgram) -> str:
    """Hex sha256 of an exported program: its code, its weights and its constants."""
    digest = hashlib.sha256(exported.graph_module.code.encode())
    for name, value in (*sorted(exported.state_dict.items()), *sorted(exported.constants.items())):
        digest.update(name.encode())
        if not isinstance(value, torch.Tensor):
            digest.update(repr(value).encode())
            continue
        digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def operator_count(exported: ExportedProgram) -> int:
    """Operators of the graph."""
    return sum(node.op == "call_function" for node in exported.graph.nodes)


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _tracing() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
