"""``tsfmc teachers``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .output import as_json, print_json, print_table

if TYPE_CHECKING:
    from ..frontends.base import TeacherCard


@click.command()
@click.option("--family", help="Only this family.")
@as_json
def command(family: str | None, as_json: bool) -> None:
    """List teachers: size, context, licence, revision of the weights, and overlap with the standard data.

    A revision that is not pinned to a commit may give other weights on another day.  Quantiles: yes, no, or
    the option that asks for them (--set teacher_options.NAME=VALUE).
    """
    from ..base.errors import unknown_name
    from ..frontends import FRONTENDS, cards

    if family is not None and family not in FRONTENDS:
        raise unknown_name("teacher family", family, FRONTENDS)
    shown = [card for card in cards() if family in (None, card.family)]
    if as_json:
        print_json([{**asdict(card), "pinned": card.pinned} for card in shown])
        return
    rows = []
    for card in shown:
        rows.append(
            (
                card.name,
                card.family,
                card.parameters or None,
                card.context,
                card.licence,
                f"with {card.quantiles}" if isinstance(card.quantiles, str) else card.quantiles,
                _revision(card),
                _overlap(card.overlap),
            )
        )
    columns = ("teacher", "family", "parameters", "context", "licence", "quantiles", "revision")
    print_table((*columns, "pre-training overlap"), rows)


def _revision(card: TeacherCard) -> str:
    """The commit's first digits, or what else the hub is asked for."""
    if card.revision is None:
        return "package"
    return card.revision[:8] if card.pinned else f"{card.revision}, not pinned"


def _overlap(known: Mapping[str, str]) -> str:
    """``no: ETTh1 ETTh2; yes: electricity``: the data sets that pre-training is known to have seen or not."""
    verdicts = [
        (verdict, " ".join(name for name in known if known[name] == verdict)) for verdict in ("no", "yes")
    ]
    return "; ".join(f"{verdict}: {names}" for verdict, names in verdicts if names) or "unknown"
