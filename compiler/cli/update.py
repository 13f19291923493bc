"""``tsfmc update``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .output import as_json, print_json, say
from .paths import INPUT, OUTPUT
from .reading import reading_options


@click.command()
@click.argument("artifact", type=INPUT)
@click.option("--data", required=True, type=INPUT, help="New rows: CSV, TSV, Parquet or .xlsx.")
@click.option("-o", "--out", type=OUTPUT, default=Path("out"), help="Default: out.")
@reading_options
@as_json
def command(
    artifact: Path, data: Path, out: Path, asked: dict[str, Any], rename: tuple[str, ...], as_json: bool
) -> None:
    """Add new rows to ARTIFACT and write it to OUT/<target>/.

    The statistics beside the artifact are extended and solved again: without the teacher and without the old
    data.  The rows must begin one step after the last ones that the statistics have.
    """
    from .. import api
    from ..base.progress import for_stderr
    from ..data.reading_options import renames
    from ..driver.summary import summary_lines

    result = api.update(artifact, data, out, rename=renames(rename), progress=for_stderr(), **asked)
    for sentence in result.filled:
        say(sentence, err=True)
    if as_json:
        print_json({"artifact": str(result.artifact), "manifest": result.manifest})
        return
    for line in ("", *summary_lines(result.manifest), ""):
        say(line, err=True)
    say(result.artifact)
