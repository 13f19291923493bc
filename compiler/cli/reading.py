"""Options of commands that read new rows for an artifact: as it was compiled unless they say otherwise."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from ..data.dialect import DIALECT_EXAMPLE
from ..data.filling import POLICIES
from ..data.reading import DUPLICATES

_OPTIONS = (
    click.option(
        "--missing",
        type=click.Choice(POLICIES),
        help="Empty cells and missing rows: refused or filled. Default: as compiled.",
    ),
    click.option(
        "--duplicates",
        type=click.Choice(DUPLICATES),
        help="Rows of one time: refused, averaged, or the first kept. Default: as compiled.",
    ),
    click.option("--sort/--no-sort", default=None, help="Take rows in any order. Default: as compiled."),
    click.option("--zone", help="Zone whose clock the times show. Default: as compiled."),
    click.option(
        "--csv",
        metavar=DIALECT_EXAMPLE,
        help="How a text file is written: sep, decimal, thousands, dates, ... Default: as compiled.",
    ),
)
NAMES = ("missing", "duplicates", "sort", "zone", "csv")


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds them, and ``--rename``; the command gets those that were given as ``asked``, and ``rename``."""

    @functools.wraps(command)
    def packed(**values: Any) -> Any:
        asked = {name: value for name in NAMES if (value := values.pop(name)) is not None}
        return command(asked=asked, **values)

    with_options: Callable[..., Any] = click.option(
        "--rename", multiple=True, metavar="OLD=NEW", help="A column that has another name now."
    )(packed)
    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options
