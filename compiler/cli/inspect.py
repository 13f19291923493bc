"""``tsfmc inspect``."""

from __future__ import annotations

from pathlib import Path

import click

from .output import as_json, print_json
from .paths import INPUT


@click.command()
@click.argument("artifact", type=INPUT)
@as_json
def command(artifact: Path, as_json: bool) -> None:
    """Show what ARTIFACT is: task, teacher, passes, accuracy, latency, and the level of each claim."""
    from .. import api
    from ..driver.summary import summary_lines

    manifest = api.inspect(artifact)
    if as_json:
        print_json(manifest)
        return
    for line in summary_lines(manifest):
        click.echo(line)
