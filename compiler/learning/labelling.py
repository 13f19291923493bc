"""What a teacher says about one shard of windows: the task that a teacher store is made of.

A shard is always computed in the same batches, so whoever computes it gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..base.errors import EngineError, VerificationError
from ..data import Dataset, SpreadWindows
from ..data.splits import Part
from ..ir.effects import plugin_code
from ..ir.forecaster import Teacher
from ..ir.teacher_store import SHARD_WINDOWS


@dataclass(frozen=True)
class StoreOptions:
    """What is kept.

    Attributes:
        states: which parts keep states: FTA needs them for training only.
        train_windows: label that many training windows, evenly spread; 0 for all.  For teachers that take
            seconds a window, whose neighbours differ by one step.
        states_dtype: half precision halves the disk; a teacher whose states overflow it is refused.
        state_positions: keep a seeded subset of this many positions of S, or 0 for all.
        batch_windows: windows per evaluation; the shard size is a multiple of it.
        seed: for the subset.
    """

    states: tuple[Part, ...] = ("train",)
    train_windows: int = 0
    states_dtype: Literal["float16", "float32"] = "float16"
    state_positions: int = 0
    batch_windows: int = 32
    seed: int = 0


def labelled_windows(
    data: Dataset, part: Part, lookback: int, horizon: int, options: StoreOptions
) -> SpreadWindows:
    """The windows of a part that are labelled."""
    return SpreadWindows(
        data.windows(part, lookback, horizon), options.train_windows if part == "train" else 0
    )


@dataclass(frozen=True)
class Labelled:
    """A shard of ``n`` windows.

    Attributes:
        blocks: ``forecast`` ``[n, D, H]``, where there are any ``quantiles`` ``[n, D, H, Q]`` and
            ``states`` ``[n, D, S, d]``.
        state_sums: ``[2, d]`` sums of the states and of their squares, where there are any.
    """

    blocks: Mapping[str, np.ndarray]
    state_sums: list[list[float]] | None


@dataclass(frozen=True)
class Labelling:
    """``labelling((part, start))``: the shard whose first window is ``start``.

    Attributes:
        positions: of the states that are kept, ``[S]``; None for all.
        code: of the plugin that the teacher comes from; empty for this package's own.
    """

    teacher: Teacher
    data: Dataset
    lookback: int
    horizon: int
    options: StoreOptions
    positions: Tensor | None
    code: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", plugin_code(type(self.teacher)))

    def __getstate__(self) -> dict[str, Any]:
        """For another machine: the rows instead of where their file is mapped; windows need no timestamps."""
        data = replace(self.data, values=np.asarray(self.data.values), timestamps=None)
        return {**self.__dict__, "data": data}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if plugin_code(type(self.teacher)) != self.code:
            kind = type(self.teacher)
            raise EngineError(
                f"this node has other code of {kind.__module__}, which has the teacher {kind.__name__}",
                hint="install the same on every node and on this machine",
            )

    @torch.inference_mode()
    def __call__(self, shard: tuple[Part, int]) -> Labelled:
        """The teacher's outputs, a batch at a time.

        Raises:
            VerificationError: one of them is not finite, or overflows ``states_dtype``.
        """
        part, start = shard
        options = self.options
        windows = labelled_windows(self.data, part, self.lookback, self.horizon, options)
        stop = min(start + SHARD_WINDOWS, len(windows))
        with_states = part in options.states
        pieces: dict[str, list[np.ndarray]] = {}
        sums: Tensor | None = None
        for low in range(start, stop, options.batch_windows):
            past, _ = windows.batch(range(low, min(low + options.batch_windows, stop)))
            outputs = self.teacher.outputs(past, states=with_states)
            pieces.setdefault("forecast", []).append(outputs.forecast.float().numpy())
            if outputs.quantiles is not None:
                pieces.setdefault("quantiles", []).append(outputs.quantiles.float().numpy())
            if with_states and outputs.states is not None:
                states = outputs.states if self.positions is None else outputs.states[:, :, self.positions]
                moments = torch.stack(
                    [states.double().sum(dim=(0, 1, 2)), states.double().square().sum(dim=(0, 1, 2))]
                )
                sums = moments if sums is None else sums + moments
                with np.errstate(over="ignore"):  # an overflow is refused below, with what to do about it
                    pieces.setdefault("states", []).append(states.numpy().astype(options.states_dtype))
        blocks = {name: np.concatenate(arrays) for name, arrays in pieces.items()}
        for name, block in blocks.items():
            _require_finite(name, block, f"{part} windows {start}..{stop - 1}")
        return Labelled(blocks, None if sums is None else sums.tolist())


def _require_finite(name: str, block: np.ndarray, where: str) -> None:
    if not np.isfinite(block).all():
        raise VerificationError(
            f"{where}: the teacher's {name} are not finite in {block.dtype}",
            hint="states that overflow half precision need states_dtype=float32" if name == "states" else "",
        )
