"""A survey for a person: what a data set is, what is wrong with it, what a compile costs, what to type."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..base.text import printable
from ..reporting.figures import bytes_words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..data.survey import Survey
    from ..driver.costs import Cost

_MOST_VARIATES, _WIDTH = 40, 110
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def show_survey(found: Survey, costs: Sequence[Cost], *, err: bool = False) -> None:
    """Prints it, on stderr where stdout is for something else."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    console = Console(
        file=stream, width=None if stream.isatty() else _WIDTH, highlight=False, soft_wrap=False, markup=False
    )
    _head(console, found)
    if found.variates:
        console.print(_variates(found))
        if found.sampled:
            console.print(f"{found.sampled}; a strength is from 0, none, to 1, all", style="dim")
    console.print()
    for finding in found.findings:
        _finding(console, finding.level, finding.what, finding.do)
    if not found.findings:
        console.print("nothing wrong was found", style="green")
    if costs:
        console.print()
        console.print(_costs(costs))
    if found.readable:
        console.print()
        console.print(_words("next: ", command_line(found)), soft_wrap=True)


def command_line(found: Survey) -> str:
    """The compile of this data set."""
    source = found.name if not found.path or found.known else shlex.quote(found.path)
    return " ".join(filter(None, ("tsfmc compile --data", source, found.options_text)))


def _head(console: Console, found: Survey) -> None:
    console.print(_words(f"{found.name}", "", "bold"), f"{bytes_words(found.size_bytes)}")
    if found.readable:
        console.print(
            f"{found.rows:,} rows, {len(found.variates):,} variates, step {found.step or 'unknown'}"
        )
        if found.first is not None:
            console.print(f"{found.first} to {found.last}{' UTC' if found.options.get('zone') else ''}")
        if found.options_text:
            console.print(_words("read with ", found.options_text), soft_wrap=True)
    console.print()


def _variates(found: Survey) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variate", overflow="fold", max_width=32)
    for name in ("mean", "deviation", "low", "high"):
        table.add_column(name, justify="right")
    cycles = list(dict.fromkeys(season.name for fact in found.variates for season in fact.seasons))
    for name in cycles:
        table.add_column(f"{name}", justify="right")
    table.add_column("shifts", justify="right")
    for fact in found.variates[:_MOST_VARIATES]:
        strengths = {season.name: f"{season.strength:.2f}" for season in fact.seasons}
        numbers = (f"{value:.4g}" for value in (fact.mean, fact.std, fact.low, fact.high))
        shifts = str(len(fact.shifts)) if fact.shifts else ""
        table.add_row(_words(fact.name), *numbers, *(strengths.get(name, "") for name in cycles), shifts)
    if len(found.variates) > _MOST_VARIATES:
        table.add_row(f"and {len(found.variates) - _MOST_VARIATES:,} more")
    return table


def _finding(console: Console, level: str, what: str, do: str) -> None:
    console.print(_words(f"{level:<8}", what, _STYLES[level]))
    if do:
        console.print(_words(f"{'':<5}-> ", do))


def _costs(costs: Sequence[Cost]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("a compile", "time", "memory", "disk"):
        table.add_column(name, justify="left" if name == "a compile" else "right", no_wrap=True)
    table.add_column("an estimate from", overflow="fold")
    for cost in costs:
        table.add_row(
            cost.stage,
            seconds_words(cost.seconds),
            bytes_words(cost.memory_bytes),
            bytes_words(cost.disk_bytes),
            _words(cost.basis),
        )
    return table


def seconds_words(seconds: float | None) -> str:
    """``< 1 s``, ``40 s``, ``12 min``, ``3 h``."""
    if seconds is None:
        return "?"
    if seconds < 1:
        return "< 1 s"
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _words(first: str, rest: str = "", style: str = "") -> Any:
    """Text that obeys neither a terminal nor markup."""
    from rich.text import Text

    return Text(printable(first), style=style) + Text(printable(rest), style="")
