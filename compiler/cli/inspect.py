"""``tsfmc inspect``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..base.errors import shortened
from .options import recipe_options
from .output import as_json, print_json, say, trust_key
from .paths import INPUT

DATA_SETTINGS = ("variates", "missing", "duplicates", "sort", "zone", "csv")


@click.command()
@click.argument("what", type=INPUT)
@recipe_options(*DATA_SETTINGS, "max_filled", "teacher", "lookback", "horizon", "split")
@trust_key
@as_json
def command(what: Path, settings: dict[str, Any], trust: Path | None, as_json: bool) -> None:
    """Show what WHAT is: an artifact, or a data set (a file, or a name that --data takes).

    Of an artifact: task, teacher, passes, accuracy, latency, and the level of each claim.  The first line
    says how far its manifest can be believed; nothing of it is executed.

    Of a data set: rows, step and span, each variate with its cycles and level shifts, what is wrong and the
    option that puts it right, and what a compile would cost.  The other options say how to read it, and the
    compile whose cost is asked for.
    """
    from ..data.sources import is_data

    if is_data(what):
        _inspect_data(what, settings, as_json)
    else:
        _inspect_artifact(what, trust, as_json)


def _inspect_data(source: Path, settings: dict[str, Any], as_json: bool) -> None:
    from .. import api
    from ..base.errors import DataError
    from ..base.progress import for_stderr
    from .survey_view import show_survey

    found, costs = api.survey(source, progress=for_stderr(), **settings)
    if as_json:
        print_json({**found.to_json(), "costs": [asdict(cost) for cost in costs]})
    else:
        show_survey(found, costs)
    if not found.readable:
        raise DataError(f"{source} cannot be read as it is", hint="what it takes is said above")


def _inspect_artifact(artifact: Path, trust: Path | None, as_json: bool) -> None:
    from .. import api

    standing, manifest = api.standing(artifact, trust=trust), api.inspect(artifact)
    if as_json:
        print_json({**manifest, "standing": asdict(standing)})
        return
    say(f"files      {standing.sentence}")
    if standing.problems:
        say("           what follows is what its manifest claims, and nothing vouches for it")
    for line in readable_lines(manifest):
        say(shortened(line))


def readable_lines(manifest: Mapping[str, Any]) -> list[str]:
    """The summary of a manifest that a compile wrote; of any other one its fields as they are."""
    from ..driver.summary import summary_lines

    try:
        return summary_lines(manifest)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return [
            "manifest   not as a compile writes it; its fields:",
            *(f"{name:<20} {json.dumps(value)[:400]}" for name, value in sorted(manifest.items())),
        ]
