"""``tsfmc report``."""

from __future__ import annotations

from pathlib import Path

import click

from .output import say
from .paths import INPUT, OUTPUT


@click.command()
@click.argument("folder", metavar="DIR", type=INPUT)
@click.option("-o", "--out", type=OUTPUT, help="Where the page goes. Default: DIR/report.html.")
def command(folder: Path, out: Path | None) -> None:
    """Write a page about every artifact in DIR: one HTML file that loads nothing.

    It holds a few windows of the data where the compile left them beside the artifact.
    """
    from .. import api

    say(api.report(folder, out))
