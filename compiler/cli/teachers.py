"""``tsfmc teachers``."""

from __future__ import annotations

from dataclasses import asdict

import click

from .output import as_json, print_json, print_table


@click.command()
@click.option("--family", help="Only this family.")
@as_json
def command(family: str | None, as_json: bool) -> None:
    """List teachers: size, context, licence of the weights, and overlap with the standard data sets."""
    from ..errors import unknown_name
    from ..frontends import FRONTENDS, cards

    if family is not None and family not in FRONTENDS:
        raise unknown_name("teacher family", family, FRONTENDS)
    shown = [card for card in cards() if family in (None, card.family)]
    if as_json:
        print_json([asdict(card) for card in shown])
        return
    rows = []
    for card in shown:
        overlap = ",".join(f"{data}:{seen}" for data, seen in card.overlap.items() if seen != "unknown")
        rows.append(
            (
                card.name,
                card.family,
                card.parameters or None,
                card.context,
                card.licence,
                card.quantiles,
                overlap or "unknown",
            )
        )
    print_table(
        ("teacher", "family", "parameters", "context", "licence", "quantiles", "pre-training overlap"), rows
    )
