"""``tsfmc verify``."""

from __future__ import annotations

from pathlib import Path

import click

from .output import as_json, print_json
from .paths import INPUT


@click.command()
@click.argument("artifact", type=INPUT)
@click.option("--threads", type=int, default=1)
@as_json
def command(artifact: Path, threads: int, as_json: bool) -> None:
    """Check the hashes of ARTIFACT and run its self-test; exit code 5 when it fails."""
    from .. import api

    findings = api.verify(artifact, threads=threads)
    if as_json:
        print_json({"artifact": str(artifact), "ok": True, "checks": findings})
        return
    for finding in findings:
        click.echo(finding)
