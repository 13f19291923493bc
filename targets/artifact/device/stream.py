"""Stream: the last rows of one site, pushed one by one, kept over a restart, forecast at any time.

The rules are those of a table (rules 4 and 5 of the rows): times ascend by the artifact's step, a gap or an
empty cell is refused or filled by the stated policy, and pushing a table's rows gives its forecast.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ....compiler.data.filling import FILL_HINT, fill_run
from .errors import InputError
from .rows import reading_of, rows_needed
from .steps import find_step

STATE = "tsfmc stream state 1"
MAX_STATE_BYTES = 1 << 30


class Stream:
    """A window that moves.

    Args:
        task: the manifest's.
        forecast: ``[D, L] -> [D, H]`` or ``[D, H, Q]``, in the units of the data.
        missing: ``error``, ``ffill`` or ``interpolate``; None is the artifact's own policy.

    Attributes:
        last: time of the last row, None before the first and where rows have no times.
        missing: the policy.
    """

    def __init__(
        self, task: dict[str, Any], forecast: Callable[[np.ndarray], np.ndarray], missing: str | None = None
    ) -> None:
        self.missing = reading_of(task, {"missing": missing}).missing
        self.last: datetime | None = None
        self._task, self._forecast, self._step = task, forecast, find_step(task)
        self._values = np.full((len(task["variates"]), rows_needed(task, self.missing)), np.nan)
        self._count = 0  # steps that were seen, at most as many as are kept

    @property
    def ready(self) -> bool:
        """Whether there are enough rows for a forecast."""
        return bool(self._count >= self._task["lookback"])

    def push(self, row: Mapping[str, float] | Sequence[float], time: datetime | None = None) -> int:
        """Adds the next row; returns how many steps were missing before it.

        Args:
            row: a value for each variate, by name or in the task's order; NaN or None is an empty cell.
            time: when it was; needed from the second row on where the first had one.

        Raises:
            InputError: not one number a variate, an empty cell or a gap under ``error``, or a time that does
                not follow.  The window stays as it was.
        """
        values = self._checked(row)
        gap = self._steps_to(time) - 1
        kept = self._values.shape[1]
        shift = min(gap + 1, kept)
        self._values[:, : kept - shift] = self._values[:, shift:]
        self._values[:, kept - shift :] = np.nan
        self._values[:, -1] = values
        self._count = min(kept, self._count + gap + 1)
        self.last = time
        return gap

    def forecast(self) -> np.ndarray:
        """``[D, H]`` or ``[D, H, Q]`` after the last row, in the units of the data.

        Raises:
            InputError: too few rows, or a variate without a value to fill from.
        """
        lookback = self._task["lookback"]
        if not self.ready:
            raise InputError(f"the stream has {self._count} rows, expected {lookback} (the lookback)")
        axis = self._values[:, self._values.shape[1] - self._count :].copy()
        for name, run in zip(self._task["variates"], axis):
            known = np.flatnonzero(~np.isnan(run))
            if not len(known) or known[0] > len(run) - lookback:
                raise InputError(
                    f"variate {name!r} has no value in the last {len(run)} steps from which the lookback's "
                    "first could be filled"
                )
            fill_run(run[known[0] :], self.missing)
        return self._forecast(axis[:, -lookback:])

    def save(self, path: Path) -> None:
        """Writes the window, complete or not at all; ``restore`` goes on from it, bit for bit."""
        path = Path(path)
        rows = self._values[:, self._values.shape[1] - self._count :]
        state = {
            "what": STATE,
            "task": self._identity(),
            "last": None if self.last is None else self.last.isoformat(),
            "values": [[None if np.isnan(value) else value for value in run] for run in rows.tolist()],
        }
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("w", encoding="utf-8") as stream:
                json.dump(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
        finally:
            if part.exists():
                part.unlink()

    def restore(self, path: Path) -> None:
        """Takes the window that ``save`` wrote.

        Raises:
            InputError: the file is not one, or of another task; the window stays as it was.
        """
        path = Path(path)
        try:
            if path.stat().st_size > MAX_STATE_BYTES:
                raise ValueError("it is too large")
            state = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(state, dict) or state.get("what") != STATE:
                raise ValueError(f"expected {STATE!r}")
            if state["task"] != self._identity():
                raise ValueError("it belongs to another task or policy")
            last = None if state["last"] is None else datetime.fromisoformat(state["last"])
            rows = np.array(state["values"], dtype=np.float64)
            variates, kept = self._values.shape
            if rows.ndim != 2 or len(rows) != variates or rows.shape[1] > kept or np.isinf(rows).any():
                raise ValueError(f"expected {variates} lists of up to {kept} numbers")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path} is no state of this stream: {error}") from None
        self._values[:] = np.nan
        self._values[:, kept - rows.shape[1] :] = rows
        self._count, self.last = rows.shape[1], last

    def _identity(self) -> dict[str, Any]:
        names = ("lookback", "variates", "frequency", "step_seconds")
        return {"missing": self.missing, **{name: self._task.get(name) for name in names}}

    def _checked(self, row: Mapping[str, float] | Sequence[float]) -> np.ndarray:
        names = self._task["variates"]
        if isinstance(row, Mapping):
            if set(row) != set(names):
                different = ", ".join(sorted(map(repr, set(row) ^ set(names)))[:8])
                raise InputError(f"row: expected a value for each variate, too many or missing: {different}")
            row = [row[name] for name in names]
        try:
            values = np.array(row, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError("row: expected numbers") from None
        if values.shape != (len(names),) or np.isinf(values).any():
            raise InputError(f"row: expected {len(names)} finite numbers, got {str(row)[:80]}")
        if np.isnan(values).any() and self.missing == "error":
            name = names[int(np.flatnonzero(np.isnan(values))[0])]
            raise InputError(f"row: variate {name!r} is empty; {FILL_HINT}")
        return values

    def _steps_to(self, time: datetime | None) -> int:
        """Steps from the last row to the next one, 1 where none is missing."""
        if self._count == 0:
            return 1
        if time is None or self.last is None:
            if time is not self.last:
                raise InputError("row: either every row has a time or none")
            return 1
        if (time.tzinfo is None) != (self.last.tzinfo is None):
            raise InputError(f"row: times with and without a time zone are mixed: {self.last}, {time}")
        if time <= self.last:
            raise InputError(f"row: time {time} is not after the last row's, {self.last}")
        steps = 1 if self._step is None else self._step.between(self.last, time)
        if not steps:
            raise InputError(f"row: time {time} is not a whole step ({self._step}) after {self.last}")
        if steps > 1 and self.missing == "error":
            raise InputError(f"row: {steps - 1} rows are missing between {self.last} and {time}; {FILL_HINT}")
        return steps
