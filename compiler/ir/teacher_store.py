"""The teacher store, opened for reading; ``learning/teacher_store.py`` writes it and has its layout.

An array is believed for its hash: of a file, only the descriptor that was hashed is read, and what is read
has the shape and type of the record, whatever the file's own header says.  A process hashes a file once.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from ..base.errors import MissingError, UsageError, VerificationError
from ..base.reading import open_regular, validated
from ..base.sealed import mapped, read_sealed
from ..data import Dataset, SpreadWindows, Windows
from ..data.splits import PARTS, Part
from .provenance import TeacherInfo

SCHEMA = 1
SHARD_WINDOWS = 256
"""Windows that are computed, and hashed, at once."""
LONGEST_HEADER = 4096
"""Bytes before the numbers of a ``.npy`` file; numpy writes 128."""
_AGAIN = "write the store again"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredFile(_Strict):
    """Size of a file, and the sha256 over the hex sha256 of its shards."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class StoredTask(_Strict):
    """What the windows were cut from."""

    data: str
    data_sha256: str
    lookback: int = Field(ge=1)
    horizon: int = Field(ge=1)


class StoreRecord(_Strict):
    """``store.json``.

    Attributes:
        shapes: ``"train/forecast"`` -> shape and type.
        files: ``"train/forecast.npy"`` -> size and hash.
        state_mean, state_std: ``[d]`` of the states, over training; absent without states.
    """

    schema_: Literal[1] = Field(alias="schema")
    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    task: StoredTask
    counts: dict[Part, int]
    shapes: dict[str, tuple[tuple[int, ...], Literal["float16", "float32"]]]
    teacher: TeacherInfo
    quantile_levels: tuple[float, ...]
    latency: dict[str, Any] | None
    state_shape: tuple[int, int]
    state_mean: tuple[float, ...] | None = None
    state_std: tuple[float, ...] | None = None
    files: dict[str, StoredFile]

    @model_validator(mode="after")
    def _fits_together(self) -> StoreRecord:
        """Every number that sizes something else is what the others say."""
        if set(self.counts) != set(PARTS) or min(self.counts.values()) < 0:
            raise ValueError(f"counts are of {', '.join(PARTS)}")
        if not {f"{part}/forecast" for part in PARTS} <= set(self.shapes):
            raise ValueError("a part has no forecast")
        if {f"{name}.npy" for name in self.shapes} != set(self.files):
            raise ValueError("files and shapes name different arrays")
        variates = self.shapes["train/forecast"][0][1:2]
        ends = {
            "forecast": (self.task.horizon,),
            "quantiles": (self.task.horizon, len(self.quantile_levels)),
            "states": self.state_shape,
        }
        for name, (shape, _) in self.shapes.items():
            part, _, tensor = name.partition("/")
            if part not in self.counts or tensor not in ends:
                raise ValueError(f"{name} is no array of a store")
            if shape != (self.counts[part], *variates, *ends[tensor]) or min(shape[1:]) < 1:
                raise ValueError(f"{name} has shape {list(shape)}, which does not fit the task")
            if not 0 <= self.files[f"{name}.npy"].bytes - self.size(name) <= LONGEST_HEADER:
                raise ValueError(f"{name}.npy has a size that does not fit its shape")
        width = self.state_shape[1]
        if width and any(len(sums or ()) != width for sums in (self.state_mean, self.state_std)):
            raise ValueError(f"the states have {width} features, their mean or deviation has others")
        return self

    def size(self, name: str) -> int:
        """Bytes of the numbers of an array."""
        shape, dtype = self.shapes[name]
        return math.prod(shape) * np.dtype(dtype).itemsize


class TeacherStore:
    """A finished store, opened for reading.

    Raises:
        MissingError: the folder holds no finished store.
        VerificationError: the record is damaged, or a file is missing or has another size than recorded.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "store.json"
        if not path.is_file():
            raise MissingError(
                f"{folder}: not a finished teacher store (store.json is missing)",
                hint="run the same tsfmc teach again; it goes on where it stopped",
            )
        self.folder = folder
        what = "record of the teacher store"
        record = read_sealed(path, what=what, error=VerificationError, hint=_AGAIN, unsealed=True)
        if record.get("schema") != SCHEMA:
            raise VerificationError(
                f"{path}: schema {record.get('schema')!r}, expected {SCHEMA}",
                hint="write the store again with this version",
            )
        self.record = validated(
            record, StoreRecord, what=f"{path}: {what}", error=VerificationError, hint=_AGAIN
        )
        for name, facts in self.record.files.items():
            file = folder / name
            if not file.is_file() or file.stat().st_size != facts.bytes:
                raise VerificationError(f"{file}: missing or not {facts.bytes} bytes", hint=_AGAIN)

    def __str__(self) -> str:
        return f"store {self.key[:16]}"

    def verify(self) -> TeacherStore:
        """This store, once every array in it was found to be what was written.

        Raises:
            VerificationError: naming the file that is not.
        """
        for name in self.record.shapes:
            part, _, tensor = name.partition("/")
            self.array(part, tensor)  # type: ignore[arg-type]
        return self

    @property
    def key(self) -> str:
        """Content key of the plan."""
        return self.record.key

    @property
    def counts(self) -> dict[str, int]:
        """Windows per part."""
        return {str(part): count for part, count in self.record.counts.items()}

    def training(self, windows: Windows) -> SpreadWindows:
        """Those of the training ``windows`` that the store has, in its order."""
        return SpreadWindows(windows, self.counts["train"])

    @property
    def info(self) -> TeacherInfo:
        """Provenance of the teacher."""
        return self.record.teacher

    @property
    def latency(self) -> Mapping[str, Any] | None:
        """The teacher's latency record, measured where the store was written."""
        return self.record.latency

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """Levels of the stored quantiles, empty without them."""
        return self.record.quantile_levels

    @property
    def state_shape(self) -> tuple[int, int]:
        """Stored positions S and width d of the states, (0, 0) when there are none."""
        return self.record.state_shape

    def require(self, data: Dataset, lookback: int, horizon: int) -> None:
        """Checks that the store was written for these windows.

        Raises:
            UsageError: naming what differs.
        """
        asked = {"data": str(data), "data_sha256": data.sha256, "lookback": lookback, "horizon": horizon}
        for name, value in asked.items():
            stored = getattr(self.record.task, name)
            if stored != value:
                raise UsageError(
                    f"{self.folder}: the teacher store has {name} {stored}, this compile has {value}",
                    hint="compile with the store's data, split, lookback and horizon, or write another store",
                )

    def array(self, part: Part, tensor: str) -> np.ndarray:
        """A memory-mapped array of the store, e.g. ``array("train", "forecast")``, hashed once a process.

        Raises:
            MissingError: the store has no such array.
            VerificationError: the file is not what was written.
        """
        name = f"{part}/{tensor}"
        path = self.folder / f"{name}.npy"
        if name not in self.record.shapes:
            raise MissingError(f"{path}: this store has no {tensor} for {part}")
        if name not in self._open_arrays:
            self._open_arrays[name] = self._believed(path, name)
        return self._open_arrays[name]

    def _believed(self, path: Path, name: str) -> np.ndarray:
        shape, dtype = self.record.shapes[name]
        expected = self.record.files[f"{name}.npy"]
        try:
            with open_regular(path) as file:
                status = os.fstat(file.fileno())
                if status.st_size != expected.bytes:
                    raise VerificationError(f"{path}: missing or not {expected.bytes} bytes", hint=_AGAIN)
                array = mapped(file, shape, dtype, expected.bytes)
        except OSError as error:
            raise VerificationError(f"{path}: cannot be read: {error.strerror}", hint=_AGAIN) from None
        seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, shape, dtype, expected)
        if seen not in _BELIEVED:
            found = digest_of(shard_digests(array))
            if found != expected.sha256:
                raise VerificationError(
                    f"{path}: its numbers are not those that were written (sha256 {found[:16]}, store.json "
                    f"has {expected.sha256[:16]})",
                    hint=_AGAIN,
                )
            if not all(np.isfinite(shard).all() for shard in _shards(array)):
                raise VerificationError(f"{path}: it holds numbers that are not finite", hint=_AGAIN)
            _BELIEVED.add(seen)
        return array

    def forecast(self, part: Part, indices: Sequence[int]) -> Tensor:
        """Teacher forecasts ``[B, D, H]`` of some windows."""
        return torch.from_numpy(np.ascontiguousarray(self.array(part, "forecast")[np.asarray(indices)]))

    def states(self, part: Part, indices: Sequence[int]) -> Tensor:
        """States ``[B, D, S, d]`` of some windows, each feature at mean 0 and deviation 1 over training."""
        raw = np.ascontiguousarray(self.array(part, "states")[np.asarray(indices)]).astype(np.float32)
        mean, deviation = self._state_scale
        return (torch.from_numpy(raw) - mean) / deviation

    @cached_property
    def _open_arrays(self) -> dict[str, np.ndarray]:
        return {}

    @cached_property
    def _state_scale(self) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.record.state_mean, dtype=torch.float32)
        deviation = torch.tensor(self.record.state_std, dtype=torch.float32)
        # A feature that never moves carries nothing; dividing by its rounding noise would.
        return mean, torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))


_BELIEVED: set[tuple[Any, ...]] = set()
"""Files that this process has hashed: device, inode, times, and what they were found to be."""


def shard_digests(array: np.ndarray) -> list[str]:
    """Hex sha256 of every ``SHARD_WINDOWS`` windows of an array ``[N, ...]``."""
    return [hashlib.sha256(np.ascontiguousarray(shard).data).hexdigest() for shard in _shards(array)]


def _shards(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[start : start + SHARD_WINDOWS] for start in range(0, len(array), SHARD_WINDOWS))


def digest_of(shards: Sequence[str]) -> str:
    """Hash of an array from those of its shards, which several processes may have computed."""
    return hashlib.sha256("".join(shards).encode()).hexdigest()
