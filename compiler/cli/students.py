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

    def describe(student: Any) -> tuple[int, dict[str, Any]]:
        options = {
            key: parameter.default
            for key, parameter in inspect.signature(student).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        return parameter_count(student(lookback=512, horizon=96)), options

    rows = [(name, *facts) for name, facts in STUDENTS.each(describe)]
    columns = ("student", "parameters", "options")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    print_table(columns, [(*row[:2], " ".join(f"{k}={v}" for k, v in row[2].items())) for row in rows])
