"""``tsfmc forecast``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help="CSV or Parquet.")
@click.option("--output", type=click.Path(path_type=Path), help="CSV or Parquet; stdout as CSV without it.")
@click.option("--threads", type=int, default=1)
def command(artifact: Path, source: Path, output: Path | None, threads: int) -> None:
    """Forecast with ARTIFACT: the last lookback rows of the input, future timestamps in the output."""
    from .. import api
    from ..data import read_input, write_forecast

    model = api.load(artifact, threads=threads)
    task = model.manifest["task"]
    values, last, frequency = read_input(source, tuple(task["variates"]), task["lookback"])
    write_forecast(
        output, model.forecast(values), tuple(task["variates"]), last, frequency or task.get("frequency")
    )
    if output is not None:
        click.echo(output)
