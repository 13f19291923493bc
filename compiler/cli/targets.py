"""``tsfmc targets``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .output import as_json, print_json, print_table, say

if TYPE_CHECKING:
    from ...targets.base import Target


@click.command()
@as_json
def command(as_json: bool) -> None:
    """List targets and what this machine can do with them."""
    from ...targets import TARGETS

    def describe(target: Target) -> dict[str, Any]:
        here = target.probe()
        return {
            "lowers_here": here.can_lower,
            "runs_here": here.can_run,
            "problems": list(here.problems),
            "facts": dict(here.facts),
            **dict(target.describe()),
        }

    rows = [{"kind": kind, **facts} for kind, facts in TARGETS.each(describe)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("target", "lowers here", "runs here", "what it is"),
        [(r["kind"], r["lowers_here"], r["runs_here"], r["summary"]) for r in rows],
    )
    for row in rows:
        say()
        for name, values in row.items():
            if name in ("kind", "lowers_here", "runs_here", "problems", "facts", "summary"):
                continue
            _print_facts(f"{row['kind']} {name}", [values] if isinstance(values, str) else values)
        for problem in row["problems"]:
            say(f"{row['kind']}: {problem}")


def _print_facts(title: str, values: list[str]) -> None:
    """On one line where they fit, else a line each."""
    line = f"{title}: {', '.join(values)}"
    if len(line) <= 100:
        say(line)
        return
    say(f"{title}:")
    for value in values:
        say(f"    {value}")
