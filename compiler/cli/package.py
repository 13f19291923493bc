"""``tsfmc package``."""

from __future__ import annotations

from pathlib import Path

import click

from .output import as_json, print_json
from .paths import INPUT, OUTPUT


@click.command()
@click.argument("artifact", type=INPUT)
@click.option(
    "--layout",
    default="tsfmc",
    help="tsfmc (default), triton, kserve, mlflow, hf, oci, edge-impulse, web or bench.",
)
@click.option("-o", "--out", type=OUTPUT, help="Default: NAME, with the layout's suffix.")
@click.option("--name", default="forecaster", help="What the platform calls the model.  Default: forecaster.")
@click.option("--id", "item", help="An item of a fleet: its own artifact is cut out.")
@click.option(
    "--runtime",
    type=INPUT,
    metavar="DIR",
    help="web: the npm package onnxruntime-web, unpacked.  Default: fetched by npm.",
)
@as_json
def command(
    artifact: Path,
    layout: str,
    out: Path | None,
    name: str,
    item: str | None,
    runtime: Path | None,
    as_json: bool,
) -> None:
    """Check ARTIFACT and lay it out for a platform: one file, a model server, a registry or the hub."""
    from .. import api

    written = api.package(artifact, layout=layout, out=out, name=name, runtime=runtime, id=item)
    if as_json:
        print_json({"layout": layout, "path": str(written)})
    else:
        click.echo(written)
