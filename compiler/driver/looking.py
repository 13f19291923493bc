"""What ``compile --dry-run`` says of the data: they are read and checked as a compile reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..base.errors import DataError
from ..base.progress import Progress
from ..data import PARTS, SYNTHETIC, Dataset, Filled, Panel
from ..data.sources import KNOWN, is_here
from ..data.survey import Survey, survey
from .costs import estimate, total
from .importing import licences_before_download, load_recipe_data
from .recipe import Recipe, reading_settings


def data_facts(recipe: Recipe, progress: Progress) -> dict[str, Any]:
    """Rows, variates, step, splits and windows; for a published data set that is not here where it is from.

    Raises:
        TsfmcError: the licence policy or the data would end a compile.
    """
    licences_before_download(recipe)
    known = KNOWN.get(recipe.data.lower())
    if known is not None and not is_here(known):
        return {"name": known.name, "rows": known.rows, "step": known.frequency, "fetched_from": known.url}
    try:
        facts = _facts(load_recipe_data(recipe, progress), recipe)
    except DataError as error:
        # Refused all the same, but not before everything that is wrong was said.
        raise UnusableDataError(
            error, survey(recipe.data, progress=progress, **reading_settings(recipe))
        ) from error
    if recipe.data == SYNTHETIC:
        return facts
    found = survey(recipe.data, progress=progress, **reading_settings(recipe))
    costs = estimate(found, recipe)
    return {**facts, "survey": found, "costs": [*costs, total(costs)]}


class UnusableDataError(DataError):
    """The data cannot be used as the recipe reads them.

    Attributes:
        found: what they are, and what is wrong with them.
    """

    def __init__(self, error: DataError, found: Survey) -> None:
        super().__init__(error.what, hint=error.hint)
        self.found = found


def _facts(data: Dataset, recipe: Recipe) -> dict[str, Any]:
    task = recipe.task
    windows = {part: len(data.windows(part, task.lookback, task.horizon)) for part in PARTS}
    return {
        "name": data.name,
        "rows": data.rows,
        "variates": list(data.variates),
        "items": len(data.ids) if isinstance(data, Panel) else None,
        "step": data.frequency,
        "first": None if data.timestamps is None else str(data.timestamps[0]),
        "last": None if data.timestamps is None else str(data.timestamps[-1]),
        "splits": {part: data.splits.span(part) for part in PARTS},
        "windows": windows,
        "filled": asdict(data.filled),
        "reading": data.reading,
        "notes": list(data.notes),
    }


def data_lines(facts: Mapping[str, Any]) -> list[str]:
    """The same for a person."""
    if "fetched_from" in facts:
        return [f"data       {facts['name']}, {facts['rows']:,} rows, not here: fetched by a compile"]
    variates = facts["variates"]
    items = f"{facts['items']:,} items of " if facts["items"] else ""
    shown = ", ".join(variates[:8]) + (", ..." if len(variates) > 8 else "")
    lines = [
        f"data       {facts['name']}: {items}{facts['rows']:,} rows, {len(variates)} variates ({shown}), "
        f"step {facts['step'] or 'unknown'}"
    ]
    if facts["first"]:
        first, last = (facts[end][:19].replace("T", " ") for end in ("first", "last"))
        lines.append(f"time       {first} to {last}")
    split = (
        f"{part} {end - begin:,} rows, {facts['windows'][part]:,} windows"
        for part, (begin, end) in facts["splits"].items()
    )
    lines.append(f"split      {'; '.join(split)}")
    if facts["reading"]:
        lines.append(f"read       {facts['reading']}")
    lines += [f"changed    {sentence}" for sentence in Filled(**facts["filled"]).sentences()]
    return [*lines, *(f"warning: {note}" for note in facts["notes"])]
