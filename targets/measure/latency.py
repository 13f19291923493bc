"""The latency rule: one way to measure, for every target.

All candidates are measured in the same run, in alternating rounds, on the same rotating real windows, with
the same number of threads, the garbage collector off, wall and processor time both.  The two scenarios and
what a ratio's interval covers are said where a device has them too: ``artifact/device/rounds.py`` and
``artifact/device/timings.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.base.errors import UsageError
from ..artifact.device.rounds import INTERVAL, SCENARIOS, STREAM, Candidate
from ..artifact.device.scenarios import LatencyReport, measure_scenarios
from ..artifact.device.timings import Ratio, Row

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "INTERVAL", "SCENARIOS", "STREAM", "Call", "Candidate", "LatencyReport", "Ratio", "Row", "measure",
    "measure_each", "torch_candidate",
]  # fmt: skip

MIN_WINDOWS = 64
Call = Callable[[np.ndarray], Any]


def measure(
    candidates: Mapping[str, Call | Candidate],
    windows: np.ndarray,
    *,
    scenario: str = STREAM,
    forms: Mapping[str, str] | None = None,
    **options: Any,
) -> LatencyReport:
    """Measures all candidates in one scenario; see ``measure_each``.

    Args:
        forms: name -> the form a candidate runs in, for those given as mere calls.
    """
    given = {
        name: each if isinstance(each, Candidate) else Candidate(each, (forms or {}).get(name))
        for name, each in candidates.items()
    }
    return measure_each(given, windows, scenarios=(scenario,), **options)[scenario]


def measure_each(
    candidates: Mapping[str, Candidate], windows: np.ndarray, *, threads: int = 1, **options: Any
) -> dict[str, LatencyReport]:
    """Measures all candidates in one run: every scenario with the same candidates on the same windows.

    Args:
        candidates: name -> candidate, on the processor of this machine.
        windows: at least 64 real windows ``[N, D, L]``.
        threads: what the candidates were opened with; torch is pinned to it during the run.
        options: of ``measure_scenarios``: ``scenarios``, ``duration_s``, ``min_queries``, ``warmup_calls``,
            ``warmup_s``, ``evict_mib``, ``precision``, ``notes``.

    Raises:
        UsageError: fewer than 64 windows, or windows of zeros, whose speed says nothing.
    """
    if windows.ndim != 3 or len(windows) < MIN_WINDOWS:
        raise UsageError(
            f"latency needs at least {MIN_WINDOWS} windows [N, D, L], got shape {list(windows.shape)}",
            hint="take more windows of the data",
        )
    if not windows.any():
        raise UsageError("latency is measured on real windows, got only zeros")
    with _pinned(threads):
        return measure_scenarios(candidates, windows, threads=threads, **options)


def torch_candidate(model: nn.Module, *, compiled: bool = False) -> Call:
    """A PyTorch model as a call: ``inference_mode``, numpy in and out, optionally ``torch.compile``.

    The model is expected in eval mode, fp32, on the CPU.
    """
    import torch

    forward = torch.compile(model) if compiled else model

    def call(past: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            forecast: np.ndarray = forward(torch.from_numpy(past)).numpy()
        return forecast

    return call


@contextmanager
def _pinned(threads: int) -> Iterator[None]:
    """torch on ``threads`` threads inside, as before outside; nothing where torch was never imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
