"""Rows out: the forecast as CSV or JSON, stamped where time and step are known, else numbered from 1.

The time column keeps its name; Unix time stays Unix time, every other notation becomes ISO 8601.
A name that a spreadsheet would run as a formula (it begins with ``=``, ``+``, ``-``, ``@`` or a control
character) stands in the header with an apostrophe before it, and is read back without it.
"""

from __future__ import annotations

import csv
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ....compiler.data.filling import WARN_FILLED
from .errors import InputError
from .rows import History, header_cell, open_csv
from .steps import find_step


class Forecast:
    """Future rows.

    Attributes:
        columns: names, the time's or ``step`` first, then the variates.
        times: ``[H]`` datetimes, or None.
        stamps: ``[H]`` the first column as text or numbers.
        values: ``[D, H]``, in the units of the data.
    """

    def __init__(self, history: History, values: np.ndarray, task: dict[str, Any]) -> None:
        self.history, self.values, self.variates = history, values, tuple(task["variates"])
        self.times = _future(history, values.shape[1], task)
        self.stamps: list[Any] = list(range(1, values.shape[1] + 1))
        if self.times is not None and history.notation is not None:
            self.stamps = [history.notation.render(time) for time in self.times]
        name = history.time_column if self.times is not None and history.time_column else "step"
        while name in self.variates:
            name = f"{name}_"
        self.columns = (name, *self.variates)

    def to_json(self) -> dict[str, Any]:
        """``index`` holds times or step numbers, ``forecast`` the values of each variate."""
        return {
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
        for stamp, values in zip(self.stamps, self.values.T):
            writer.writerow([stamp, *(repr(float(value)) for value in values)])

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
