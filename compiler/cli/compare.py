"""``tsfmc compare``."""

from __future__ import annotations

from pathlib import Path

import click

from .output import as_json, print_json, print_table, say
from .paths import INPUT


@click.command()
@click.argument("artifacts", nargs=-1, required=True, type=INPUT)
@click.option("--data", help="Test windows. Default: the data set of the first, where it is a known one.")
@click.option(
    "--latency/--no-latency", default=True, help="Measure all of them in one interleaved run. Default: yes."
)
@click.option(
    "--scenario",
    default="stream",
    help="stream: the next call follows at once; interval: cold caches. Default: stream.",
)
@click.option("--allow-noisy", is_flag=True, help="A noisy latency run does not fail.")
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, help="Threads of every artifact. Default: 1."
)
@click.option("--duration", type=float, default=5.0, help="Seconds of measuring. Default: 5.")
@click.option("--format", "style", type=click.Choice(["table", "json", "md"]), default="table")
@as_json
def command(
    artifacts: tuple[Path, ...],
    data: str | None,
    latency: bool,
    scenario: str,
    allow_noisy: bool,
    threads: int,
    duration: float,
    style: str,
    as_json: bool,
) -> None:
    """Compare ARTIFACTS, two or more, each with the first.

    Exit code 4 on a regression: the whole interval of the change of the error lies above 0.05 %, or the whole
    interval of the time over the first's lies above 1.05, or the latency run is noisy; of quantile forecasts
    also where the whole interval of the change of the quantile loss (WQL) lies above 0.05 %.
    """
    from .. import api
    from ..base.progress import for_stderr
    from ..reporting.compare import COLUMNS

    outcome = api.compare(
        artifacts,
        data=data,
        latency=latency,
        scenario=scenario,
        threads=threads,
        duration_s=duration,
        progress=for_stderr(),
    )
    if as_json or style == "json":
        print_json(outcome.to_dict())
    elif style == "md":
        click.echo(outcome.markdown(allow_noisy=allow_noisy))
    else:
        print_table(COLUMNS, outcome.rows())
        for line in outcome.quantile_lines():
            say(line)
        for side in outcome.sides:
            for line in side.differs:
                say(f"{side.name}: {line}", err=True)
        for line in (*outcome.notes, *outcome.methods):
            say(line, err=True)
    outcome.check(allow_noisy=allow_noisy)
