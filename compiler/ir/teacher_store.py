"""The teacher store, opened for reading; ``learning/teacher_store.py`` writes it and has its layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.errors import MissingError, UsageError, VerificationError
from ..data import Dataset, SpreadWindows, Windows
from ..data.splits import Part
from .provenance import TeacherInfo

SCHEMA = 1


class TeacherStore:
    """A finished store, opened for reading.

    Raises:
        MissingError: the folder holds no finished store.
        VerificationError: a file is missing or has another size than recorded.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "store.json").is_file():
            raise MissingError(
                f"{folder}: not a finished teacher store (store.json is missing)",
                hint="run the same tsfmc teach again; it goes on where it stopped",
            )
        self.folder = folder
        self.record: dict[str, Any] = json.loads((folder / "store.json").read_text())
        if self.record.get("schema") != SCHEMA:
            raise VerificationError(
                f"{folder}/store.json: schema {self.record.get('schema')}, expected {SCHEMA}",
                hint="write the store again with this version",
            )
        for name, facts in self.record["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != facts["bytes"]:
                raise VerificationError(
                    f"{path}: missing or not {facts['bytes']} bytes", hint="write the store again"
                )

    def __str__(self) -> str:
        return f"store {self.record['key'][:16]}"

    @property
    def key(self) -> str:
        """Content key of the plan."""
        return str(self.record["key"])

    @property
    def counts(self) -> dict[str, int]:
        """Windows per part."""
        return dict(self.record["counts"])

    def training(self, windows: Windows) -> SpreadWindows:
        """Those of the training ``windows`` that the store has, in its order."""
        return SpreadWindows(windows, self.counts["train"])

    @property
    def info(self) -> TeacherInfo:
        """Provenance of the teacher."""
        return TeacherInfo(**self.record["teacher"])

    @property
    def latency(self) -> Mapping[str, Any] | None:
        """The teacher's latency record, measured where the store was written."""
        latency: Mapping[str, Any] | None = self.record.get("latency")
        return latency

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """Levels of the stored quantiles, empty without them."""
        return tuple(self.record["quantile_levels"])

    @property
    def state_shape(self) -> tuple[int, int]:
        """Stored positions S and width d of the states, (0, 0) when there are none."""
        positions, width = self.record["state_shape"]
        return int(positions), int(width)

    def require(self, data: Dataset, lookback: int, horizon: int) -> None:
        """Checks that the store was written for these windows.

        Raises:
            UsageError: naming what differs.
        """
        asked = {"data": str(data), "data_sha256": data.sha256, "lookback": lookback, "horizon": horizon}
        for name, value in asked.items():
            stored = self.record["task"][name]
            if stored != value:
                raise UsageError(
                    f"{self.folder}: the teacher store has {name} {stored}, this compile has {value}",
                    hint="compile with the store's data, split, lookback and horizon, or write another store",
                )

    def array(self, part: Part, tensor: str) -> np.ndarray:
        """A memory-mapped array of the store, e.g. ``array("train", "forecast")``."""
        path = self.folder / part / f"{tensor}.npy"
        if not path.is_file():
            raise MissingError(f"{path}: this store has no {tensor} for {part}")
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array

    def forecast(self, part: Part, indices: Sequence[int]) -> Tensor:
        """Teacher forecasts ``[B, D, H]`` of some windows."""
        return torch.from_numpy(np.ascontiguousarray(self._open(part, "forecast")[np.asarray(indices)]))

    def states(self, part: Part, indices: Sequence[int]) -> Tensor:
        """States ``[B, D, S, d]`` of some windows, each feature at mean 0 and deviation 1 over training."""
        raw = np.ascontiguousarray(self._open(part, "states")[np.asarray(indices)]).astype(np.float32)
        mean, deviation = self._state_scale
        return (torch.from_numpy(raw) - mean) / deviation

    def _open(self, part: Part, tensor: str) -> np.ndarray:
        name = f"{part}/{tensor}"
        if name not in self._open_arrays:
            self._open_arrays[name] = self.array(part, tensor)
        return self._open_arrays[name]

    @cached_property
    def _open_arrays(self) -> dict[str, np.ndarray]:
        return {}

    @cached_property
    def _state_scale(self) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.record["state_mean"], dtype=torch.float32)
        deviation = torch.tensor(self.record["state_std"], dtype=torch.float32)
        # A feature that never moves carries nothing; dividing by its rounding noise would.
        return mean, torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
