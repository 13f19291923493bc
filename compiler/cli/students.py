"""``tsfmc students``."""

from __future__ import annotations

import inspect

import click

from .output import as_json, print_json, print_table


@click.command()
@as_json
def command(as_json: bool) -> None:
    """List students with their options and size at lookback 512, horizon 96."""
    from ..forecaster import parameter_count
    from ..students import STUDENTS

    rows = []
    for name in STUDENTS:
        student = STUDENTS[name]
        options = {
            key: parameter.default
            for key, parameter in inspect.signature(student).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        size = parameter_count(student(lookback=512, horizon=96))
        rows.append({"name": name, "parameters": size, "options": options})
    if as_json:
        print_json(rows)
        return
    print_table(
        ("student", "parameters", "options"),
        [(r["name"], r["parameters"], " ".join(f"{k}={v}" for k, v in r["options"].items())) for r in rows],
    )
