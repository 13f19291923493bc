"""DistilTS's rows for the affine student, solved exactly: supervised, uniform KD, horizon weights, sweeps.

    TSFMC_DATA=FOLDER python benchmarks/papers/affine_rows.py --teacher DIR --data ETTh1 ETTh2 ETTm1 weather

One shared map (the paper's DLinear), every window, no seed anywhere: a solve has none.  ``lambda`` and
``tau`` are swept from the same statistics; then the default command's choice by rolling origins, with and
without the teacher.  Test MSE comes from the sums over the test windows, which nothing before it reads.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import kept

from tsfmc.compiler import api
from tsfmc.compiler.base.progress import for_stderr
from tsfmc.compiler.learning.affine import Setting, solve, squared_error
from tsfmc.compiler.learning.grid import Grid
from tsfmc.compiler.learning.rolling_origin import select
from tsfmc.compiler.learning.statistics import Sums, WindowStatistics, series_sums

RESULTS = Path(__file__).resolve().parents[1] / "results" / "affine_rows.json"
TEACHER = (("teacher", 1.0),)
LAMBDAS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, math.inf)
TAUS = (0.0, 0.5, 1.0, 2.0, 4.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", nargs="+", default=["ETTh1", "ETTh2", "ETTm1", "weather"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = kept.read(options.results)
    for data in options.data:
        found[data] = rows(options.teacher, data)
        kept.write(options.results, found)
    table = render(found)
    options.results.with_suffix(".md").write_text(table)
    print(table)


def rows(teacher: str, data: str) -> dict[str, Any]:
    """All rows of one data set."""
    progress = for_stderr()
    recipe = api.make_recipe(teacher=teacher, data=data)
    unit = api.transform(recipe, stop_after="gather_statistics", progress=progress)
    statistics = unit.statistics
    assert isinstance(statistics, WindowStatistics)
    task = unit.task
    windows = unit.data.windows("test", task.lookback, task.horizon)
    test = series_sums(unit.data, task.lookback, task.horizon, windows.first, windows.first + len(windows))
    fit = statistics.all()
    found: dict[str, Any] = {"windows": len(windows)}
    found["shared"] = {
        f"{weight:g}/{tau:g}": round(error(fit, test, weight, tau), 5)
        for weight in (0.0, *LAMBDAS)
        for tau in (TAUS if weight == 1.0 else (0.0, 1.0))
    }
    for name, mixes in (("no teacher", ()), ("with teacher", (TEACHER,))):
        started = time.perf_counter()
        selection = select(statistics, replace(Grid(), mixes=mixes))
        seconds = time.perf_counter() - started
        chosen = selection.chosen
        found[name] = {
            "mse": round(squared_error(test, selection.solution), 5),
            "validation_mse": round(selection.validation_mse, 5),
            "maps": chosen.form,
            "rank": chosen.rank,
            "pooling": chosen.pooling,
            "ridge": chosen.ridge,
            "lambda": str(chosen.distill),
            "tau": chosen.tau,
            "seconds": round(seconds, 1),
        }
    return found


def error(fit: Sums, test: Sums, weight: float, tau: float) -> float:
    """Test MSE of the shared map at one lambda and tau."""
    setting = Setting(distill=weight, tau=tau, teachers=TEACHER if weight else ())
    return squared_error(test, solve(fit, setting))


def render(found: dict[str, Any]) -> str:
    """The tables as Markdown."""
    cells = list(next(iter(found.values()))["shared"])
    lines = [
        "# The affine student, solved exactly",
        "",
        (__doc__ or "").split("\n\n")[2].replace("\n", " "),
        "",
        "One shared map, test MSE by lambda and tau (`lambda/tau`; 0/0 is supervised, 1/0 uniform KD, 1/1",
        "the paper's horizon weights):",
        "",
        "| data | " + " | ".join(cells) + " |",
        "|---" * (len(cells) + 1) + "|",
    ]
    for data, row in found.items():
        lines.append(f"| {data} | " + " | ".join(f"{row['shared'][cell]:.4f}" for cell in cells) + " |")
    lines += [
        "",
        "Chosen by rolling origins inside training and validation:",
        "",
        "| data | windows | teacher | test MSE | maps | rank | pooling | ridge | lambda | tau | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for data, row in found.items():
        for name in ("no teacher", "with teacher"):
            one = row[name]
            lines.append(
                f"| {data} | {row['windows']} | {name} | {one['mse']:.4f} | {one['maps']} | {one['rank']} | "
                f"{one['pooling']:g} | {one['ridge']:g} | {one['lambda']} | {one['tau']:g} | "
                f"{one['seconds']} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
