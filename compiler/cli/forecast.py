"""``tsfmc forecast``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .output import as_json, missing_rows, print_json, say, trust_key
from .paths import INPUT, OUTPUT


@click.command()
@click.argument("artifact", type=INPUT)
@click.option("--input", "source", type=INPUT, required=True, help="CSV or Parquet.")
@click.option("--output", type=OUTPUT, help="CSV or Parquet; stdout as CSV without it.")
@missing_rows
@trust_key
@click.option("--threads", type=int, default=1)
@as_json
def command(
    artifact: Path,
    source: Path,
    output: Path | None,
    missing: str | None,
    trust: Path | None,
    threads: int,
    as_json: bool,
) -> None:
    """Forecast with ARTIFACT: the last lookback rows of the input, future timestamps in the output."""
    from ...targets.artifact.device.output import Forecast, filled_line
    from ...targets.artifact.open import compiler_errors
    from ...targets.artifact.tables import read_history, save_forecast
    from .. import api

    model = api.load(artifact, threads=threads, trust=trust)
    history = read_history(source, model.manifest, missing)
    values = model.forecast(history.values)
    with compiler_errors():
        forecast = Forecast(history, values, model.manifest["task"])
    if filled := filled_line(history):
        say(filled, err=True)
    if output is not None:
        save_forecast(forecast, output)
    if as_json:
        print_json(forecast.to_json())
    elif output is not None:
        say(output)
    else:
        forecast.write(sys.stdout)
