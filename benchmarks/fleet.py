"""What a fleet costs and what it is worth: seconds and memory by items, accuracy against one model an item.

    python benchmarks/fleet.py cost --items 500 2000 10000
    python benchmarks/fleet.py worth weather.csv                wide columns, taken as items of a panel
    python benchmarks/fleet.py worth meters.csv --most 40       long; 40 items have a model of their own

cost     a panel of ``fleet_data.py`` is read, checked and solved, without a teacher, in a process of its own.
worth    on the test part, every window, no teacher:
           fleet        one artifact for all items
           each         a solved affine student of each item alone, everything chosen for it by rolling origin
           one map      one dense map for all items
         and, five times with another quarter of the items held out, the fleet's head and the slot that a
         device finds by the item's rows before the test part, against one dense map of the other items.
Intervals are paired: over items (a normal one of the mean log ratio) or over blocks of time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fleet_data import write_meters

from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.data import Dataset, Panel, Splits, load_panel
from tsfmc.compiler.learning.fleet import FleetSolution, solve_fleet
from tsfmc.compiler.learning.fleet_heads import HeadGrid
from tsfmc.compiler.learning.grid import Grid
from tsfmc.compiler.learning.rolling_origin import select
from tsfmc.compiler.learning.statistics import WindowStatistics
from tsfmc.targets.artifact.device.fleet import HISTORY, nearest_slot

LOOKBACK, HORIZON = 512, 96
Maps = Sequence[np.ndarray]


def solved(panel: Panel, folder: Path) -> FleetSolution:
    """A fleet without a teacher, as ``solve_fleet`` has it by default."""
    return solve_fleet(
        panel, LOOKBACK, HORIZON, Grid(forms=("shared",)), HeadGrid(), blocks=8, sample=None, default=None,
        folder=folder, progress=Silent(),
    )  # fmt: skip


def open_panel(path: Path, **options: Any) -> Panel:
    """A panel, filled forward where it has gaps."""
    return load_panel(
        path, lookback=LOOKBACK, horizon=HORIZON, id_column="unique_id", missing="ffill", **options
    )


def cost(items: int, folder: Path) -> dict[str, Any]:
    """One size, in this process."""
    path = folder / f"meters{items}.csv"
    write_meters(path, items, 1100)
    base, started = _peak_mib(), time.perf_counter()
    panel = open_panel(path)
    read = time.perf_counter()
    found = solved(panel, folder)
    return {
        "items": items,
        "rows": panel.rows,
        "read_s": round(read - started, 1),
        "solve_s": round(time.perf_counter() - read, 1),
        "cpu_s": round(time.process_time(), 1),
        "peak_mib": _peak_mib(),
        "before_mib": base,
        "heads": found.found.chosen.mode,
    }


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def errors(panel: Panel, maps: Maps, part: str = "test") -> list[np.ndarray]:
    """Mean squared error of each window of each item, scaled, by a map ``[H, L]`` of its own."""
    rows, counts = panel.futures(part, LOOKBACK, HORIZON)  # type: ignore[arg-type]
    found = []
    for item, matrix in enumerate(maps):
        count = int(counts[item])
        values = panel.scaled(item, int(rows[item]), int(rows[item]) + max(0, count + LOOKBACK + HORIZON - 1))
        own = [np.empty(0)]
        view = np.lib.stride_tricks.sliding_window_view(values, LOOKBACK + HORIZON) if count else []
        for start in range(0, count, 1024):
            windows = view[start : start + 1024]
            past = windows[:, :LOOKBACK] - windows[:, :LOOKBACK].mean(axis=1, keepdims=True)
            future = windows[:, LOOKBACK:] - windows[:, :LOOKBACK].mean(axis=1, keepdims=True)
            own.append(((past @ matrix.T - future) ** 2).mean(axis=1))
        found.append(np.concatenate(own))
    return found


def own_map(panel: Panel, item: int) -> np.ndarray:
    """The map of an item that is compiled alone."""
    begin, end, start = (int(each[item]) for each in (panel.begins, panel.ends, panel.starts))
    splits = panel.splits
    test = end - begin - (splits.train - start) - splits.val
    data = Dataset(
        name=panel.ids[item],
        sha256="",
        variates=(panel.ids[item],),
        frequency=panel.frequency,
        rows=end - begin,
        splits=Splits(splits.train - start, splits.val, test),
        mean=panel.scales[item, :1],
        std=panel.scales[item, 1:],
        values=panel.values[begin:end],
    )
    statistics = WindowStatistics(data, LOOKBACK, HORIZON)
    return select(statistics, Grid(), alone=statistics.alone).solution.maps()[0].numpy()


def log_ratio(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean over items of log(MSE of the first / of the second), in percent, with a 95 % interval."""
    logs = np.array([np.log(a.mean() / b.mean()) for a, b in zip(first, second, strict=True) if a.size])
    half = 1.96 * logs.std(ddof=1) / len(logs) ** 0.5
    low, mid, high = (
        100 * float(np.expm1(value)) for value in (logs.mean() - half, logs.mean(), logs.mean() + half)
    )
    return {"percent": round(mid, 2), "low": round(low, 2), "high": round(high, 2), "items": len(logs)}


def mse(found: Sequence[np.ndarray]) -> float:
    """Mean over items."""
    return round(float(np.mean([each.mean() for each in found if each.size])), 4)


def slots_maps(found: FleetSolution) -> list[np.ndarray]:
    """``[H, L]`` of each slot."""
    return [(head @ found.basis).numpy() for head in found.found.heads]


def worth(path: Path, most: int, folder: Path) -> dict[str, Any]:
    """Accuracy on one panel."""
    if "unique_id" not in pd.read_csv(path, nrows=1).columns:
        path = _long(path, folder / "long.csv")
    panel = open_panel(path)
    started = time.perf_counter()
    found = solved(panel, folder)
    seconds = time.perf_counter() - started
    maps = slots_maps(found)
    fleet = errors(panel, [maps[slot] for slot in found.found.slot_of])
    one = errors(panel, [found.selection.solution.maps()[0].numpy()] * len(panel.ids))
    few = np.linspace(0, len(panel.ids) - 1, min(most, len(panel.ids))).round().astype(int)
    started = time.perf_counter()
    alone = errors(panel.subset(few), [own_map(panel, int(item)) for item in few])
    seconds_each = (time.perf_counter() - started) / len(few)
    chosen = found.found.chosen
    return {
        "items": len(panel.ids),
        "chosen": f"{chosen.mode} rank {chosen.rank} clusters {chosen.clusters} pooling {chosen.pooling:g}",
        "fleet_s": round(seconds, 1),
        "each_s_an_item": round(seconds_each, 1),
        "mse": {"fleet": mse(fleet), "one map": mse(one)},
        "mse_of_few": {"fleet": mse([fleet[item] for item in few]), "each": mse(alone)},
        "fleet_over_each": log_ratio([fleet[item] for item in few], alone),
        "fleet_over_one_map": log_ratio(fleet, one),
        "held_out": held_out(path, folder),
    }


def held_out(path: Path, folder: Path) -> dict[str, Any]:
    """Items that nothing was learnt from, each five times or less."""
    head: list[np.ndarray] = []
    nearest: list[np.ndarray] = []
    one: list[np.ndarray] = []
    for seed in range(5):
        panel = open_panel(path, holdout_items=0.25, seed=seed)
        held = panel.held
        assert held is not None
        found = solved(panel, folder)
        maps = slots_maps(found)
        head += errors(held, [maps[0]] * len(held.ids))
        one += errors(held, [found.selection.solution.maps()[0].numpy()] * len(held.ids))
        nearest += errors(held, [maps[found_slot(held, item, maps)] for item in range(len(held.ids))])
    return {
        "mse": {"fleet's head": mse(head), "nearest slot": mse(nearest), "one map": mse(one)},
        "head_over_one_map": log_ratio(head, one),
        "nearest_over_one_map": log_ratio(nearest, one),
    }


def found_slot(held: Panel, item: int, maps: Maps) -> int:
    """The slot that a device finds for an unknown item, of its rows before the test part."""
    begin = int(held.begins[item])
    end = min(int(held.ends[item]), begin + held.splits.span("test")[0] - int(held.starts[item]))
    first = max(begin, end - HISTORY * (LOOKBACK + HORIZON))

    def run(past: np.ndarray) -> np.ndarray:
        level = past.mean(axis=-1, keepdims=True)
        return np.stack([(past - level)[:, s] @ m.T for s, m in enumerate(maps)], axis=1) + level

    return nearest_slot(run, held.scaled(item, first, end), len(maps), LOOKBACK, HORIZON)


def _long(wide: Path, path: Path) -> Path:
    """The columns of a wide table as items."""
    frame = pd.read_csv(wide)
    time_column = frame.columns[0]
    # Published files have a few doubtful stamps; rows are taken as they come, a step apart.
    step = pd.to_datetime(frame[time_column]).diff().mode()[0]
    frame[time_column] = pd.to_datetime(frame[time_column].iloc[0]) + step * np.arange(len(frame))
    frame.melt(id_vars=time_column, var_name="unique_id", value_name="y").rename(
        columns={time_column: "ds"}
    ).to_csv(path, index=False)
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    costs = commands.add_parser("cost")
    costs.add_argument("--items", type=int, nargs="+", default=[500, 2000, 10000])
    worths = commands.add_parser("worth")
    worths.add_argument("data", type=Path)
    worths.add_argument("--most", type=int, default=1 << 30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="tsfmc-fleet-") as name:
        if given.command == "worth":
            print(json.dumps(worth(given.data, given.most, Path(name)), indent=1))
        elif len(given.items) == 1:
            print(json.dumps(cost(given.items[0], Path(name))))
        else:
            for items in given.items:
                subprocess.run([sys.executable, __file__, "cost", "--items", str(items)], check=True)


if __name__ == "__main__":
    main()
