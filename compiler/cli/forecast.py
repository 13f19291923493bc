"""``tsfmc forecast``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import as_json, print_json, print_table, say, trust_key
from .paths import INPUT, OUTPUT
from .reading import reading_options

if TYPE_CHECKING:
    from ...targets.artifact.device.fleet import Fleet
    from ...targets.artifact.device.forecaster import Forecaster
    from ...targets.artifact.device.rows import History


@click.command()
@click.argument("artifact", type=INPUT)
@click.option("--input", "--data", "source", type=INPUT, required=True, help="CSV, TSV, Parquet or .xlsx.")
@click.option("--id", "ids", multiple=True, help="An item of a fleet, may be repeated. Default: all of them.")
@click.option("--ahead", type=INPUT, help="What is known over the horizon, where inputs ask for it.")
@click.option("--output", type=OUTPUT, help="CSV or Parquet; stdout as CSV without it.")
@click.option("--plot", type=OUTPUT, help="Also draw it: a .png, .svg or .html file.")
@reading_options
@trust_key
@click.option("--threads", type=click.IntRange(min=1), default=1, help="Default: 1.")
@as_json
def command(
    artifact: Path,
    source: Path,
    ids: tuple[str, ...],
    ahead: Path | None,
    output: Path | None,
    plot: Path | None,
    asked: dict[str, Any],
    rename: tuple[str, ...],
    trust: Path | None,
    threads: int,
    as_json: bool,
) -> None:
    """Forecast with ARTIFACT: the last lookback rows of the input, future timestamps in the output.

    A fleet's artifact takes rows of many items in the long format and forecasts each of them.

    Without --output the forecast is CSV on stdout, and on a terminal a table with sparklines.
    """
    from ...targets.artifact.device.ahead import forecast_from
    from ...targets.artifact.device.output import Forecast, filled_line
    from ...targets.artifact.device.rows import renamed_columns
    from ...targets.artifact.open import compiler_errors
    from ...targets.artifact.tables import read_history, save_forecast
    from .. import api
    from ..base.errors import UsageError

    model = api.load(artifact, threads=threads, trust=trust)
    if model.fleet is not None:
        _forecast_items(model, model.fleet, source, ids, output, asked.get("missing"), as_json)
        return
    if ids:
        raise UsageError(f"--id {ids[0]}: {artifact} has no items", hint="leave it out")
    with compiler_errors():
        names = renamed_columns(rename)

    def read(path: Path, manifest: dict[str, Any]) -> History:
        return read_history(path, manifest, rename=names, **asked)

    with compiler_errors():
        history, values = forecast_from(model, read, source, ahead)
        forecast = Forecast(history, values, model.manifest["task"])
    if filled := filled_line(history):
        say(filled, err=True)
    if output is not None:
        save_forecast(forecast, output)
    if plot is not None:
        from ..reporting.plot import save_plot

        if remark := save_plot(forecast, plot, source.name):
            say(remark, err=True)
        say(f"plot: {plot}", err=True)
    if as_json:
        print_json(forecast.to_json())
    elif output is not None:
        say(output)
    elif sys.stdout.isatty():
        from ..reporting.sparkline import COLUMNS, sparkline_rows

        if forecast.stamps:
            say(f"{forecast.columns[0]} {forecast.stamps[0]} to {forecast.stamps[-1]}")
        print_table(COLUMNS, sparkline_rows(forecast))
    else:
        forecast.write(sys.stdout)


def _forecast_items(
    model: Forecaster,
    fleet: Fleet,
    source: Path,
    ids: tuple[str, ...],
    output: Path | None,
    missing: str | None,
    as_json: bool,
) -> None:
    """The long format in and out."""
    from ...targets.artifact.device.fleet import FleetForecast
    from ...targets.artifact.device.output import filled_line
    from ...targets.artifact.open import compiler_errors
    from ...targets.artifact.tables import read_item_histories, save_item_forecasts

    histories = read_item_histories(source, model.manifest, fleet, missing, ids)
    values = model.forecast_histories(histories)
    with compiler_errors():
        forecast = FleetForecast(fleet, histories, values, model.manifest["task"])
    for line in (*map(filled_line, histories.values()), forecast.unknown_line()):
        if line:
            say(line, err=True)
    if output is not None:
        save_item_forecasts(forecast, output)
    if as_json:
        print_json(forecast.to_json())
    elif output is not None:
        say(output)
    else:
        forecast.write(sys.stdout)
