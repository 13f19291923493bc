"""``tsfmc passes``."""

from __future__ import annotations

from typing import Any

import click

from .output import as_json, print_json, print_table


@click.command()
@as_json
def command(as_json: bool) -> None:
    """List passes: what each does, its options and their defaults."""
    from ...passes import PASSES

    def describe(step: Any) -> dict[str, Any]:
        options = {
            key: field.get_default(call_default_factory=True)
            for key, field in step.Options.model_fields.items()
        }
        return {"summary": step.summary, "options": options}

    rows = [{"name": name, **facts} for name, facts in PASSES.each(describe)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("pass", "what it does", "options"),
        [(r["name"], r["summary"], " ".join(f"{k}={v}" for k, v in r["options"].items())) for r in rows],
    )
