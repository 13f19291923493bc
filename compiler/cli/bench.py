"""``tsfmc bench``."""

from __future__ import annotations

from pathlib import Path

import click

from .output import print_json, print_table
from .paths import INPUT


@click.command()
@click.argument("artifacts", nargs=-1, required=True, type=INPUT)
@click.option("--against", help="'teacher', 'plain' (the student without this compiler) or another artifact.")
@click.option(
    "--scenario",
    type=click.Choice(["stream", "interval", "both"]),
    default="both",
    help="Calls one after the other, or now and then with cold caches. Default: both, measured apart.",
)
@click.option(
    "--forms",
    default="eager,onnx",
    help="Forms of --against: eager, onnx, compiled (torch.compile). Default: eager,onnx.",
)
@click.option("--teacher", help="Where the teacher's weights are, when its name alone does not find them.")
@click.option("--data", help="Windows to rotate over. Default: the artifact's own self-test windows.")
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, help="Threads of every candidate. Default: 1."
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0),
    default=10.0,
    help="Seconds of measuring, all together. Default: 10.",
)
@click.option("--format", "style", type=click.Choice(["table", "json", "gha", "md"]), default="table")
@click.option("--min-speedup", type=float, help="Gate: lower end of the speed-up over --against.")
@click.option("--max-p90-us", type=float, help="Gate: 90th percentile in microseconds.")
@click.option(
    "--fail-on-regression",
    "baseline",
    type=INPUT,
    metavar="BASELINE.json",
    help="Gate: the speed-up is not certainly below that of an earlier --format json.",
)
@click.option("--allow-noisy", is_flag=True, help="Let a noisy measurement pass gates.")
@click.option(
    "--record",
    type=INPUT,
    metavar="LATENCY.json",
    help="Add what run.py bench --record measured on the device to the artifact's manifest.",
)
def command(
    artifacts: tuple[Path, ...],
    against: str | None,
    scenario: str,
    forms: str,
    teacher: str | None,
    data: str | None,
    threads: int,
    duration: float,
    style: str,
    min_speedup: float | None,
    max_p90_us: float | None,
    baseline: Path | None,
    allow_noisy: bool,
    record: Path | None,
) -> None:
    """Measure ARTIFACTS by the one rule: real windows, one interleaved run, ratio with interval.

    A missed gate is exit code 4.  ``--format gha`` prints github-action-benchmark JSON
    (customSmallerIsBetter), ``md`` a table for a job's summary.
    """
    from .. import api
    from ..base.progress import for_stderr
    from ..driver import bench_formats
    from ..driver.gates import Gates, check_gates

    if record is not None:
        _record(artifacts, record)
        return
    bench = api.bench(
        *artifacts,
        against=against,
        scenario=scenario,
        forms=tuple(name.strip() for name in forms.split(",")),
        teacher=teacher,
        data=data,
        threads=threads,
        duration_s=duration,
        progress=for_stderr(),
    )
    if style == "json":
        print_json(bench.to_dict())
    elif style == "gha":
        print_json(bench_formats.github_action_benchmark(bench))
    elif style == "md":
        click.echo(bench_formats.markdown(bench))
    else:
        print_table(bench_formats.COLUMNS, bench_formats.table_rows(bench))
    check_gates(bench, Gates(min_speedup, max_p90_us, baseline, allow_noisy))


def _record(artifacts: tuple[Path, ...], record: Path) -> None:
    from ..base.errors import UsageError
    from ..driver.recording import add_record
    from ..driver.summary import latency_table

    if len(artifacts) != 1:
        raise UsageError(f"--record is of one artifact, got {len(artifacts)}")
    for line in latency_table(add_record(artifacts[0], record)):
        click.echo(line)
