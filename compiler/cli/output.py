"""What commands share: tables for people and JSON for programs, both on stdout, and common options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from ..base.text import printable
from .paths import INPUT


def say(text: object = "", *, err: bool = False) -> None:
    """One line, on stderr for what is not data; whatever stands in it obeys no terminal."""
    click.echo(printable(str(text)), err=err)


def print_json(value: Any) -> None:
    """One JSON document."""
    click.echo(json.dumps(value, indent=2, sort_keys=True, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Aligned columns without frames: easy to read, easy to cut; numbers to the right."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(columns), *texts]) for i in range(len(columns))]
    numeric = [
        all(isinstance(row[i], (int, float)) or row[i] is None for row in rows) for i in range(len(columns))
    ]
    for line in [list(columns), *texts]:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        say("  ".join(cells).rstrip())


def _text(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return printable(str(cell))


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")

trust_key = click.option(
    "--trust",
    type=INPUT,
    metavar="KEY",
    help="Public key (PEM); what its owner has not signed is refused, exit code 5.",
)
