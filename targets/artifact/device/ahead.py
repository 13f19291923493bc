"""What is known ahead: the inputs of a forecast, from the past's table and a table of the coming steps.

A past's table has the columns of an artifact's inputs beside its variates.  A table ahead has the columns
that are known over the horizon, and its last H rows are the steps to be forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .forecaster import Forecaster
from .inputs import column_names
from .rows import History
from .steps import find_step


def task_of_past(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task of reading a past: the variates, and the columns of inputs as further ones."""
    return {**task, "variates": [*task["variates"], *column_names(dict(task))]}


def task_ahead(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task of reading a table ahead: the columns known over the horizon, H rows of them."""
    known = column_names(dict(task), ("known",))
    return {**task, "lookback": task["horizon"], "rows_are": "horizon", "variates": known}


def split_inputs(
    history: History, ahead: History | None, task: dict[str, Any]
) -> tuple[datetime | None, dict[str, np.ndarray]]:
    """The time of the first forecast step and the columns, for ``encode_inputs``.

    Args:
        history: read with ``task_of_past``; afterwards it has the variates alone.
        ahead: read with ``task_ahead``, None where nothing was given.

    Raises:
        InputError: the table ahead is missing or covers other steps.
    """
    variates, known = len(task["variates"]), column_names(task, ("known",))
    step = find_step(task)
    first = step.after(history.last, 1) if step is not None and history.last is not None else None
    columns = dict(zip(column_names(task), history.values[variates:]))
    history.values = history.values[:variates]
    if known and ahead is None:
        raise InputError(
            f"{', '.join(map(repr, known))} must be known over the {task['horizon']} steps ahead: "
            "give a table of them with --ahead"
        )
    if known and ahead is not None:
        _check_steps(history, ahead, task)
        for name, coming in zip(known, ahead.values):
            columns[name] = np.concatenate([columns[name], coming])
    return first, columns


def _check_steps(history: History, ahead: History, task: dict[str, Any]) -> None:
    """The last row ahead is the last step of the horizon; between its rows the step has been checked."""
    step, last = find_step(task), history.last
    if step is None or last is None:
        return
    expected = step.after(last, task["horizon"])
    if ahead.last != expected:
        found = "has no times" if ahead.last is None else f"ends at {ahead.last}"
        raise InputError(
            f"the table ahead {found}, expected the {task['horizon']} steps from {step.after(last, 1)} "
            f"to {expected}"
        )


def forecast_from(
    forecaster: Forecaster, read: Callable[[Path, dict[str, Any]], History], past: Path, ahead: Path | None
) -> tuple[History, np.ndarray]:
    """The history in a table and the forecast after it.

    Args:
        read: ``read(table, manifest)``: the last rows of a table by a manifest's task.
        ahead: a table of what is known over the horizon.

    Raises:
        InputError: a table or an input is missing, or covers other steps.
    """
    task = forecaster.manifest["task"]
    if not task.get("inputs"):
        if ahead is not None:
            raise InputError("--ahead: this artifact has no columns that are known ahead")
        history = read(past, forecaster.manifest)
        return history, forecaster.forecast(history.values)
    history = read(past, {"task": task_of_past(task)})
    known = column_names(task, ("known",))
    coming = read(ahead, {"task": task_ahead(task)}) if ahead is not None and known else None
    first, columns = split_inputs(history, coming, task)
    return history, forecaster.forecast(history.values, first_step=first, columns=columns)
