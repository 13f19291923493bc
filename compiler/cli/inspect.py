"""``tsfmc inspect``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..base.errors import shortened
from .output import as_json, print_json, say, trust_key
from .paths import INPUT


@click.command()
@click.argument("artifact", type=INPUT)
@trust_key
@as_json
def command(artifact: Path, trust: Path | None, as_json: bool) -> None:
    """Show what ARTIFACT is: task, teacher, passes, accuracy, latency, and the level of each claim.

    The first line says how far its manifest can be believed; nothing of ARTIFACT is executed.
    """
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
