"""``tsfmc students``."""

from __future__ import annotations

import inspect
from typing import Any

import click

from .output import as_json, print_json, print_table


@click.command()
@as_json
def command(as_json: bool) -> None:
    """List students with their options and size at lookback 512, horizon 96."""
    from ..ir.forecaster import parameter_count
    from ..students import STUDENTS

    rows: list[tuple[str, int, dict[str, Any]]] = []
    for name, student in STUDENTS.items():
        options = {
            key: parameter.default
            for key, parameter in inspect.signature(student).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        rows.append((name, parameter_count(student(lookback=512, horizon=96)), options))
    columns = ("student", "parameters", "options")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    print_table(columns, [(*row[:2], " ".join(f"{k}={v}" for k, v in row[2].items())) for row in rows])
