"""``tsfmc bench``."""

from __future__ import annotations

from pathlib import Path

import click

from .output import print_json, print_table
from .paths import INPUT


@click.command()
@click.argument("artifacts", nargs=-1, required=True, type=INPUT)
@click.option("--against", help="'teacher', or another artifact: measured in the same run, interleaved.")
@click.option("--teacher", help="Where the teacher's weights are, when its name alone does not find them.")
@click.option("--data", help="Windows to rotate over. Default: the artifact's own self-test windows.")
@click.option("--threads", type=int, default=1, help="Threads of every candidate.")
@click.option("--duration", type=float, default=5.0, help="Seconds of measuring per artifact.")
@click.option("--format", "style", type=click.Choice(["table", "json", "gha"]), default="table")
@click.option("--min-speedup", type=float, help="Gate: speed-up over --against; exit code 4.")
@click.option("--max-p90-us", type=float, help="Gate: 90th percentile in microseconds; exit code 4.")
def command(
    artifacts: tuple[Path, ...],
    against: str | None,
    teacher: str | None,
    data: str | None,
    threads: int,
    duration: float,
    style: str,
    min_speedup: float | None,
    max_p90_us: float | None,
) -> None:
    """Measure ARTIFACTS by the one rule: single stream, real windows, interleaved, ratio with interval.

    ``--format gha`` prints github-action-benchmark JSON (customSmallerIsBetter).
    """
    from .. import api
    from ..base.progress import for_stderr
    from ..driver.bench import COLUMNS, check_gates

    progress = for_stderr()
    reports = [
        api.bench(
            path,
            against=against,
            teacher=teacher,
            data=data,
            threads=threads,
            duration_s=duration,
            progress=progress,
        )
        for path in artifacts
    ]
    if style == "json":
        print_json([report.to_dict() for report in reports])
    elif style == "gha":
        print_json([entry for report in reports for entry in report.github_action_benchmark()])
    else:
        print_table(COLUMNS, [row for report in reports for row in report.rows()])
    check_gates(reports, min_speedup=min_speedup, max_p90_us=max_p90_us)
