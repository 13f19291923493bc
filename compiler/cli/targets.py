"""``tsfmc targets``."""

from __future__ import annotations

import click

from .output import as_json, print_json, print_table, say


@click.command()
@as_json
def command(as_json: bool) -> None:
    """List targets and what this machine can do with them."""
    from ...targets import TARGETS

    rows = []
    for kind, target in TARGETS.items():
        here = target.probe()
        rows.append(
            {
                "kind": kind,
                "lowers_here": here.can_lower,
                "runs_here": here.can_run,
                "problems": list(here.problems),
                "facts": dict(here.facts),
                **dict(target.describe()),
            }
        )
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
