"""Fleet: a program for many items: who has which slot, rows of many items in, forecasts of many items out.

1.  A table has one row an item and time; columns are found by the names of the compile.
2.  The rows of each item follow the rules of ``rows.py`` as a table of their own; items come in any order.
3.  An item that nobody has seen is forecast by the slot that has the smallest error on its earlier rows, and
    by the first, that of all items, where it has too few; it is scaled by its own rows, and named as unknown.
"""

from __future__ import annotations

import csv
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....compiler.data.reading import Reading
from .arrays import read_array
from .errors import ArtifactError, InputError
from .files import ArtifactFiles
from .output import Forecast
from .rows import (
    History,
    Table,
    bounded_lines,
    header_cell,
    open_csv,
    read_window,
    reading_of,
    rows_kept,
    separator_of,
)
from .strict import parse_json

IDS, TABLE = "fleet/ids.json", "fleet/table.npy"
BASIS, HEADS, RECIPE = "fleet/basis.npy", "fleet/heads.npy", "fleet/recipe.toml"
MAX_ITEMS, MAX_ID = 1 << 20, 1000
MAX_IDS_BYTES, MAX_TABLE_BYTES = 64 << 20, 32 << 20
TRIALS, FEWEST_TRIALS, TRIAL_NUMBERS = 128, 16, 1 << 26
"""Windows of an unknown item's own rows that its slot is found on: fewer for programs of many slots."""
HISTORY = 16
"""Lookbacks and horizons of an unknown item that are read for that."""
NUMBERS_AT_ONCE = 1 << 24
"""Of windows in their slots: 64 MiB of float32."""


class Fleet:
    """Slot and scale of each item.

    Attributes:
        columns: names of the columns ``id``, ``time`` and the list ``values``.
        slots: of the program.
    """

    def __init__(self, files: ArtifactFiles, manifest: dict[str, Any]) -> None:
        task = manifest["task"]
        self.columns, self.slots = _columns(manifest), len(task["variates"])
        self.lookback, self.horizon = task["lookback"], task["horizon"]
        ids = parse_json(files.read(IDS, MAX_IDS_BYTES), IDS)
        if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_ITEMS:
            raise ArtifactError(f"{IDS}: expected a list of 1 to {MAX_ITEMS} names")
        if not all(isinstance(name, str) and len(name) <= MAX_ID for name in ids):
            raise ArtifactError(f"{IDS}: expected names of up to {MAX_ID} characters")
        self._places = {name: place for place, name in enumerate(ids)}
        table = read_array(files, TABLE, MAX_TABLE_BYTES, (3,), "<f8")
        slots = table[:, 0]
        if not len(self._places) == len(ids) == len(table):
            raise ArtifactError(f"{IDS} has {len(self._places)} different names, {TABLE} {len(table)} rows")
        if (slots != np.floor(slots)).any() or slots.min() < 0 or slots.max() >= self.slots:
            raise ArtifactError(f"{TABLE}: expected slots from 0 to {self.slots - 1}")
        if table[:, 2].min() <= 0:
            raise ArtifactError(f"{TABLE}: expected deviations above 0")
        self._table = table

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def known(self, name: str) -> tuple[int, float, float]:
        """Slot, mean and deviation of an item.

        Raises:
            InputError: there is no such item.
        """
        if name not in self._places:
            raise InputError(f"item {name[:80]!r} is not in this artifact, which has {len(self)} items")
        slot, mean, std = self._table[self._places[name]]
        return int(slot), float(mean), float(std)

    def forecast(self, run: Any, past: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """``past [N, T]`` of the items ``names`` to ``[N, H]``, in the units of the data.

        Args:
            run: the program, ``[B, S, L] -> [B, S, H]`` in scaled units.
            past: the lookback, and for items that nobody has seen what rows there are before it.
        """
        places = np.array([self._places.get(name, -1) for name in names])
        unknown = places < 0
        mean = np.where(unknown, past.mean(axis=1), self._table[places, 1])
        own = past.std(axis=1)
        std = np.where(unknown, np.where(own > 0, own, 1.0), self._table[places, 2])
        scaled = (past - mean[:, None]) / std[:, None]
        slots = np.where(unknown, 0, self._table[places, 0]).astype(np.int64)
        for at in np.flatnonzero(unknown):
            slots[at] = nearest_slot(run, scaled[at], self.slots, self.lookback, self.horizon)
        found = self._in_slots(run, scaled[:, -self.lookback :], slots)
        values: np.ndarray = found * std[:, None] + mean[:, None]
        return values

    def _in_slots(self, run: Any, scaled: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """Each window in its slot, in as few calls as there are windows of the commonest slot."""
        row, seen = np.empty(len(slots), dtype=np.int64), np.zeros(self.slots, dtype=np.int64)
        for at, slot in enumerate(slots):
            row[at] = seen[slot]
            seen[slot] += 1
        at_once = max(1, NUMBERS_AT_ONCE // (self.slots * scaled.shape[1]))
        forecast: np.ndarray | None = None
        for start in range(0, int(seen.max()), at_once):
            inside = np.flatnonzero((row >= start) & (row < start + at_once))
            rows = row[inside] - start
            placed = np.zeros((int(rows.max()) + 1, self.slots, scaled.shape[1]))
            placed[rows, slots[inside]] = scaled[inside]
            found = run(placed)
            if forecast is None:
                forecast = np.empty((len(slots), found.shape[2]))
            forecast[inside] = found[rows, slots[inside]]
        assert forecast is not None
        return forecast


def nearest_slot(run: Any, history: np.ndarray, slots: int, lookback: int, horizon: int) -> int:
    """The slot with the smallest error on windows spread over ``history [T]``, scaled; 0 for too short a one.

    Args:
        run: the program, ``[B, S, L] -> [B, S, H]``.
    """
    count = len(history) - lookback - horizon + 1
    if count < 1 or slots == 1:
        return 0
    trials = min(count, TRIALS, max(FEWEST_TRIALS, TRIAL_NUMBERS // (slots * lookback)))
    starts = np.linspace(0, count - 1, trials).round().astype(np.int64)
    windows = history[starts[:, None] + np.arange(lookback + horizon)]
    errors, at_once = np.zeros(slots), max(1, NUMBERS_AT_ONCE // (slots * lookback))
    for start in range(0, trials, at_once):
        chunk = windows[start : start + at_once, None]
        past = np.repeat(chunk[..., :lookback], slots, axis=1)
        errors += ((run(past) - chunk[..., lookback:]) ** 2).sum(axis=(0, 2))
    return int(np.argmin(errors))


def _columns(manifest: dict[str, Any]) -> dict[str, Any]:
    """``fleet.columns`` of the manifest."""
    fleet = manifest["fleet"]
    columns = fleet.get("columns") if isinstance(fleet, dict) else None
    values = columns.get("values") if isinstance(columns, dict) else None
    names = (
        [columns.get("id"), columns.get("time"), *values] if isinstance(values, list) and columns else [None]
    )
    if not values or not all(isinstance(name, str) for name in names):
        raise ArtifactError("manifest.json field fleet.columns: expected names for id, time and values")
    return dict(columns or {})


def read_items(
    path: Path,
    manifest: dict[str, Any],
    fleet: Fleet,
    missing: str | None,
    wanted: Sequence[str] = (),
) -> dict[str, History]:
    """The window at the end of each item of a CSV, by name; of those ``wanted`` alone where some are.

    That of an item that the artifact does not have is as long as its rows are regular, up to a limit.

    Raises:
        InputError: names file, line, column and item.
    """
    try:
        dialect = reading_of(manifest["task"]).dialect
        encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
        with open_csv(path, "r", encoding) as stream:
            reader = csv.reader(bounded_lines(stream), strict=True, delimiter=separator_of(path, dialect))
            header = next(reader, [])
            rows = ((reader.line_num, row) for row in reader if any(map(str.strip, row)) or len(row) > 1)
            return items_of(str(path), header, rows, manifest, fleet, missing, wanted)
    except (OSError, EOFError, UnicodeError, csv.Error, zlib.error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from None


def items_of(
    name: str,
    header: Sequence[str],
    rows: Iterable[tuple[int, list[str]]],
    manifest: dict[str, Any],
    fleet: Fleet,
    missing: str | None,
    wanted: Sequence[str],
) -> dict[str, History]:
    """``read_items`` of rows ``(number, cells)``; of each item the last ones are kept."""
    columns = fleet.columns
    task = manifest["task"]
    reading = reading_of(task, {"missing": missing})
    names = [column.strip() for column in header]
    places = {}
    for column in (columns["id"], columns["time"], *columns["values"]):
        if names.count(column) != 1:
            raise InputError(
                f"{name}: column {column!r} occurs {names.count(column)} times in the header, expected once; "
                f"the columns are {', '.join(map(repr, names[:12])) or 'none'}"
            )
        places[column] = names.index(column)
    kept: dict[str, deque[tuple[int, list[str]]]] = {}
    one = len(columns["values"]) == 1
    for number, cells in rows:
        if len(cells) != len(names):
            raise InputError(f"{name} line {number} has {len(cells)} fields, expected {len(names)}")
        item = cells[places[columns["id"]]].strip()
        for column in columns["values"]:
            series = item if one else f"{item}/{column}"
            if wanted and series not in wanted:
                continue
            if series not in kept and len(kept) >= MAX_ITEMS:
                raise InputError(f"{name} has more than {MAX_ITEMS} items")
            if series not in kept:
                most = rows_kept(task, reading)
                more = 0 if series in fleet else HISTORY * (task["lookback"] + task["horizon"])
                kept[series] = deque(maxlen=most + more)
            last = kept[series]
            last.append((number, [cells[places[columns["time"]]], cells[places[column]]]))
    for series in wanted:
        if series not in kept:
            raise InputError(f"{name} has no row of item {series[:80]!r}")
    if not kept:
        raise InputError(f"{name} has no rows")
    found = {}
    for series, last in kept.items():
        column = columns["values"][0] if one else series.rsplit("/", 1)[1]
        table = Table(f"{name} item {series!r}", [columns["time"], column], last)
        found[series] = _longest_window(table, {**task, "variates": [column]}, reading)
    return found


def _longest_window(table: Table, task: dict[str, Any], reading: Reading) -> History:
    """All rows of a table as one window where they are regular, else the lookback."""
    most = rows_kept(task, reading)
    if len(table.rows) > most:
        try:
            return read_window(table, {**task, "lookback": len(table.rows)}, reading)
        except InputError:  # what is wrong further back is no reason not to forecast
            table.rows = table.rows[-most:]
    return read_window(table, task, reading)


class FleetForecast:
    """Future rows of many items, in the long format.

    Attributes:
        items: name -> ``Forecast`` of its one value.
        unknown: names that the artifact does not have.
    """

    def __init__(
        self, fleet: Fleet, histories: dict[str, History], values: np.ndarray, task: dict[str, Any]
    ) -> None:
        self.fleet = fleet
        self.unknown = [name for name in histories if name not in fleet]
        self.items = {
            name: Forecast(history, own[None], {**task, "variates": ["forecast"]})
            for (name, history), own in zip(histories.items(), values)
        }

    def rows(self) -> Iterable[tuple[str, Any, float]]:
        """Item, time and value."""
        for name, forecast in self.items.items():
            for stamp, value in zip(forecast.stamps, forecast.values[0]):
                yield name, stamp, float(value)

    @property
    def columns(self) -> list[str]:
        """Of the table: the id's, the time's, and the value's."""
        first = next(iter(self.items.values()))
        values = self.fleet.columns["values"]
        return [self.fleet.columns["id"], first.columns[0], values[0] if len(values) == 1 else "value"]

    def to_json(self) -> dict[str, Any]:
        """By item, as ``Forecast.to_json`` has it."""
        return {
            "items": {name: forecast.to_json() for name, forecast in self.items.items()},
            "unknown": self.unknown,
        }

    def write(self, stream: Any) -> None:
        """CSV; numbers to the last bit."""
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([header_cell(name) for name in self.columns])
        for name, stamp, value in self.rows():
            writer.writerow([header_cell(name), stamp, repr(value)])

    def unknown_line(self) -> str | None:
        """Who was forecast without having been seen, in one line; None for nobody."""
        if not self.unknown:
            return None
        more = ", ..." if len(self.unknown) > 5 else ""
        return (
            f"{len(self.unknown)} of {len(self.items)} items are unknown to this artifact and have the head "
            "that fits their earlier rows, the fleet's where these are few: "
            f"{', '.join(self.unknown[:5])}{more}"
        )
