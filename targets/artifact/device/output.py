"""Rows out: the forecast as CSV or JSON, stamped where time and step are known, else numbered from 1.

A variate has a column of its name, the point forecast, and where there are quantiles one a level after it,
``load-q-10`` for the level 0.1, the way forecasting libraries of data frames name them.

The time column keeps its name; Unix time stays Unix time, every other notation becomes ISO 8601.
A name that a spreadsheet would run as a formula (it begins with ``=``, ``+``, ``-``, ``@`` or a control
character) stands in the header with an apostrophe before it, and is read back without it.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ....compiler.data.filling import WARN_FILLED
from ....compiler.data.levels import MEDIAN
from .errors import InputError
from .rows import History, header_cell, open_csv
from .steps import find_step


class Forecast:
    """Future rows.

    Attributes:
        columns: names, the time's or ``step`` first, then the variates with their quantiles.
        times: ``[H]`` datetimes, or None.
        stamps: ``[H]`` the first column as text or numbers.
        values: ``[D, H]``, in the units of the data: the point forecast.
        quantiles: ``[D, H, Q]``, or None without levels.
    """

    def __init__(self, history: History, values: np.ndarray, task: dict[str, Any]) -> None:
        self.history, self.variates = history, tuple(task["variates"])
        self.levels: tuple[float, ...] = tuple(task.get("quantile_levels") or ())
        self.quantiles = values if self.levels else None
        self.values = values[..., self.levels.index(MEDIAN)] if self.levels else values
        self.times = _future(history, values.shape[1], task)
        self.stamps: list[Any] = list(range(1, values.shape[1] + 1))
        if self.times is not None and history.notation is not None:
            self.stamps = [history.notation.render(time) for time in self.times]
        name = history.time_column if self.times is not None and history.time_column else "step"
        while name in self.variates:
            name = f"{name}_"
        columns = [name]
        for variate in self.variates:
            columns += [variate, *(quantile_name(variate, level, self.variates) for level in self.levels)]
        self.columns = tuple(columns)

    def to_json(self) -> dict[str, Any]:
        """``index`` holds times or step numbers, ``forecast`` the values of each variate, ``quantiles`` the
        same of each level."""
        found: dict[str, Any] = {} if self.quantiles is None else {"quantiles": self._levels_to_json()}
        return {
            **found,
            "index_name": self.columns[0],
            "index": self.stamps,
            "forecast": {name: row.tolist() for name, row in zip(self.variates, self.values)},
            "missing": self.history.missing,
            "filled": {
                "cells": self.history.filled_cells,
                "rows": self.history.filled_rows,
                "merged": self.history.merged_rows,
            },
        }

    def write(self, stream: Any) -> None:
        """CSV; numbers to the last bit."""
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([header_cell(name) for name in self.columns])
        for stamp, values in zip(self.stamps, self.rows()):
            writer.writerow([stamp, *(repr(float(value)) for value in values)])

    def rows(self) -> np.ndarray:
        """``[H, columns - 1]``: what stands under ``columns``, the first left out."""
        if self.quantiles is None:
            return self.values.T
        together = np.concatenate([self.values[..., None], self.quantiles], axis=2)
        return together.transpose(1, 0, 2).reshape(together.shape[1], -1)

    def _levels_to_json(self) -> dict[str, dict[str, Any]]:
        assert self.quantiles is not None
        return {
            f"{level:g}": {name: row[:, q].tolist() for name, row in zip(self.variates, self.quantiles)}
            for q, level in enumerate(self.levels)
        }

    def save(self, path: Path) -> None:
        """See ``save_rows``."""
        save_rows(path, self)


def save_rows(path: Path, forecast: Any) -> None:
    """``forecast.write`` to a CSV, packed where its name ends in ``.gz``, complete or not at all.

    Raises:
        InputError: it cannot be written.
    """
    plain = path.is_file() or not path.exists()  # a pipe or a device is written to directly
    target = path.with_name(f"{os.getpid()}.part.{path.name}") if plain else path
    try:
        try:
            with open_csv(target, "w") as stream:
                forecast.write(stream)
            if plain:
                target.replace(path)
        finally:
            if plain and target.exists():
                target.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None


def quantile_name(variate: str, level: float, taken: Sequence[str]) -> str:
    """``load-q-10`` for the level 0.1 of ``load``, with a ``_`` more than any of the names ``taken``."""
    name = f"{variate}-q-{100 * level:g}"
    while name in taken:
        name = f"{name}_"
    return name


def filled_line(history: History) -> str | None:
    """What was filled into the window, in one line; None for nothing."""
    variates, lookback = history.values.shape
    merged = f"merged {history.merged_rows} rows into others of their time"
    if not history.filled_rows and not history.filled_cells:
        return merged if history.merged_rows else None
    line = (
        f"filled with --missing {history.missing}: {history.filled_cells} empty cells and "
        f"{history.filled_rows} missing rows, of {lookback} rows with {variates} cells"
    )
    if history.merged_rows:
        line = f"{line}; {merged}"
    if history.filled_share > WARN_FILLED:
        return f"warning: {line}; up to {history.filled_share:.0%} of what a variate is forecast from"
    return line


def _future(history: History, horizon: int, task: dict[str, Any]) -> list[datetime] | None:
    step, last = find_step(task), history.last
    if step is None or last is None:
        return None
    try:
        return [step.after(last, ahead) for ahead in range(1, horizon + 1)]
    except (OverflowError, ValueError):
        raise InputError(f"the forecast after {last} would run beyond the year {datetime.max.year}") from None
