"""``load_panel``: files in the long format become a ``Panel``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..base.errors import DataError
from ..base.progress import Progress
from .array_file import release
from .dataset import Array, Filled
from .filling import MAX_FILLED
from .missing import checked_policy
from .panel import MOST_JUDGED, Panel, Places
from .panel_columns import choose_columns, panel_files, read_head
from .panel_store import ITEMS_AT_ONCE, StoredPanel, read_panel
from .splits import PARTS, resolve_split


def load_panel(
    source: str | Path,
    *,
    lookback: int,
    horizon: int,
    id_column: str,
    time_column: str | None = None,
    value_columns: Sequence[str] = (),
    split: str = "ltsf",
    missing: str = "error",
    max_filled: float = MAX_FILLED,
    holdout_items: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Panel:
    """Load a panel and check that the task has windows in every part.

    An item without a training window, and one of which more than ``max_filled`` would be filled in, is left
    out, and said to be.

    Args:
        source: a CSV or Parquet file, a folder of them, or a pattern such as ``meters/*.parquet``.
        id_column, time_column, value_columns: of the long format; the last two are found by their names.
        split: fractions or step counts of the calendar that all items share.
        holdout_items: share of the items that is kept out of everything and judged at the end.
        seed: of their choice.

    Raises:
        UsageError: an unknown column, split or policy.
        DataError: the files, or the windows asked of them, cannot be used.
    """
    policy = checked_policy(missing)
    files = panel_files(str(source))
    header, head = read_head(files[0])
    columns = choose_columns(header, head, str(source), id_column, time_column, value_columns)
    name = Path(source).name.split(".")[0].strip("*") or "panel"
    stored = read_panel(files, columns, Path(source).name, policy, progress)
    steps = int((stored.starts + stored.ends - stored.begins).max())
    panel = Panel(
        name=name,
        sha256=stored.sha256,
        variates=(columns.values[0] if len(columns.values) == 1 else "value",),
        frequency=stored.timeline.frequency,
        rows=len(stored.values),
        splits=resolve_split(split, steps, name),
        mean=np.zeros(1),
        std=np.ones(1),
        values=stored.values,
        ids=stored.ids,
        begins=stored.begins,
        ends=stored.ends,
        starts=stored.starts,
        scales=np.tile([0.0, 1.0], (len(stored.ids), 1)),
        first=stored.timeline.origin,
        columns=columns,
    )
    return _judged_apart(_with_notes(panel, stored, lookback, horizon, max_filled), holdout_items, seed)


def _with_notes(panel: Panel, stored: StoredPanel, lookback: int, horizon: int, max_filled: float) -> Panel:
    """The items that can be learnt from, scaled, and what was done about the others."""
    shares = (stored.cells + stored.gaps) / (stored.ends - stored.begins)
    invented = shares > max_filled
    short = panel.futures("train", lookback, horizon)[1] == 0
    kept = np.flatnonzero(~invented & ~short)
    if not len(kept):
        raise DataError(
            f"{panel.name}: none of {len(panel.ids)} items has {lookback} + {horizon} training rows",
            hint="use a shorter lookback or horizon, another split, or --max-filled",
        )
    notes = [
        f"{count} of {len(panel.ids)} items left out, {why}: {', '.join(names[:3])}"
        + (", ..." if count > 3 else "")
        for why, mask in (
            (f"shorter than {lookback} + {horizon} training rows", short & ~invented),
            (f"more than {max_filled:.0%} of their cells would be filled in", invented),
        )
        if (count := int(mask.sum())) and (names := [panel.ids[item] for item in np.flatnonzero(mask)])
    ]
    worst = int(kept[np.argmax(shares[kept])])
    filled = Filled(
        int(stored.cells[kept].sum()), int(stored.gaps[kept].sum()), float(shares[worst]), panel.ids[worst]
    )
    scales = _scales(panel, kept)
    constant = int((scales[kept, 1] == 0).sum())
    if constant:
        notes.append(f"{constant} items are constant over the train split; their scale is 1")
    scales[:, 1] = np.where(scales[:, 1] == 0, 1.0, scales[:, 1])
    told = filled if filled.cells or filled.rows else Filled()
    chosen = replace(panel, filled=told, scales=scales).subset(kept)
    for part in PARTS[1:]:
        count = int(chosen.futures(part, lookback, horizon)[1].sum())
        if count > MOST_JUDGED:
            notes.append(
                f"{MOST_JUDGED:,} of {count:,} {part} windows are judged, evenly spread over the items"
            )
    return replace(chosen, notes=tuple(notes))


def _judged_apart(panel: Panel, share: float, seed: int) -> Panel:
    """Keeps a share of the items apart."""
    count = round(share * len(panel.ids))
    if not count:
        return panel
    drawn = np.random.default_rng(seed).permutation(len(panel.ids))
    held = panel.subset(np.sort(drawn[:count]))
    return replace(panel.subset(np.sort(drawn[count:])), held=held)


def _scales(panel: Panel, items: Places) -> Array:
    """``[N, 2]`` mean and deviation of the training rows; 0 and 1 of an item that is not among ``items``."""
    scales = np.tile([0.0, 1.0], (len(panel.ids), 1))
    for place, item in enumerate(items):
        if not place % ITEMS_AT_ONCE:
            release(panel.values)
        begin = int(panel.begins[item])
        stop = min(int(panel.ends[item]), begin + panel.splits.train - int(panel.starts[item]))
        rows = np.asarray(panel.values[begin:stop, 0])
        same = bool((rows == rows[0]).all())
        scales[item] = (rows[0], 0.0) if same else (rows.mean(), rows.std())
    return scales
