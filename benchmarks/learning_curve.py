"""How much data does a student need, with and without a teacher?

    python benchmarks/learning_curve.py --teacher DIR [--data ETTh1 ...]
    python benchmarks/learning_curve.py --draw

The last 1, 2, 4, 12, 26 and 52 weeks of windows before validation are all that a student is fitted to:

    truth               no teacher
    labels              the truth and the teacher's forecasts of the same windows
    labels + synthetic  and its forecasts of synthetic windows, as the default pipeline has it
    data-free           synthetic windows alone
    teacher             the teacher itself

Everything left open is chosen as in a compile (rolling origins inside those weeks, or the stated defaults
where they are too short), never by the test split.  Test MSE over all windows, scaled by the training split.
52 weeks are all of training where that is shorter (the ETT sets: 51).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import kept
import numpy as np
import torch

from tsfmc.compiler.data import Dataset, load_data
from tsfmc.compiler.data.splits import Splits
from tsfmc.compiler.frontends import open_teacher
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.teacher_store import TeacherStore
from tsfmc.compiler.ir.unit import CompileUnit, Task
from tsfmc.compiler.learning.affine import Setting, solve
from tsfmc.compiler.learning.evaluate import Predict, evaluate, model_predictor, naive_scale, seasonal_naive
from tsfmc.compiler.learning.pieces import Labels
from tsfmc.compiler.learning.statistics import WindowStatistics
from tsfmc.compiler.learning.synthetic import TEACHER, synthetic_prior
from tsfmc.passes.add_prior import AddPrior
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.record_teacher import RecordTeacher
from tsfmc.passes.solve_affine import SolveAffine
from tsfmc.passes.weight_horizons import WeightHorizons

RESULTS = Path(__file__).parent / "results" / "learning_curve.json"
LOOKBACK, HORIZON = 512, 96
WEEKS = (1, 2, 4, 12, 26, 52)
DAYS = {"h": 24, "15min": 96, "10min": 144}
SETS = ("ETTh1", "ETTh2", "ETTm1", "weather")
CURVES = ("truth", "labels", "labels + synthetic")
LEVELS = ("data-free", "teacher", "seasonal naive")
COLOURS = {
    "truth": "#d97706",
    "labels": "#0891b2",
    "labels + synthetic": "#2563eb",
    "data-free": "#16a34a",
    "teacher": "#888888",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher")
    parser.add_argument("--data", nargs="+", default=list(SETS))
    parser.add_argument("--weeks", nargs="+", type=int, default=list(WEEKS))
    parser.add_argument("--draw", action="store_true", help="only draw what has been found")
    options = parser.parse_args()
    found = kept.read(RESULTS)
    if not options.draw:
        if options.teacher is None:
            parser.error("--teacher is missing")
        sets = [Curves(options.teacher, name) for name in options.data]
        levels = [one.levels(set(found)) for one in sets]
        curves = [one.curves(weeks, set(found)) for weeks in options.weeks for one in sets]
        for key, row in chain(*levels, *curves):
            found[key] = row
            kept.write(RESULTS, found)
            print(f"{key:<36} {row['test_mse']:.4f}", flush=True)
    RESULTS.with_suffix(".md").write_text(table(found))
    draw(found, RESULTS.with_suffix(".svg"))


class Curves:
    """All rows of one data set."""

    def __init__(self, teacher: str, name: str) -> None:
        self.name = name
        self.data = load_data(name, lookback=LOOKBACK, horizon=HORIZON)
        self.teacher, self.info = open_teacher(
            teacher, lookback=LOOKBACK, horizon=HORIZON, variates=len(self.data.variates)
        )
        self.task = Task(LOOKBACK, HORIZON, self.data.variates, self.data.frequency)
        self.scale = naive_scale(self.data)

    def levels(self, known: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and row of what needs no weeks and is not known yet."""
        prior = synthetic_prior(self.teacher, self.task)
        if (key := f"{self.name}/data-free") not in known:
            free = solve(replace(prior, cross={"truth": prior.cross[TEACHER]}), Setting())
            yield key, self._test(lambda _, past: free.predict(past).float())
        if (key := f"{self.name}/teacher") not in known:
            store = self._store()
            yield key, self._test(lambda indices, _: store.forecast("test", indices))
        if (key := f"{self.name}/seasonal naive") not in known:
            yield key, self._test(seasonal_naive(self.data.seasonality, HORIZON))

    def curves(self, weeks: int, known: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and row of every curve at so many weeks that is not known yet."""
        store = self._store()
        for curve in CURVES:
            if (key := f"{self.name}/{curve}/{weeks}") not in known:
                yield key, self._fit(curve, weeks, store)

    def _store(self) -> TeacherStore:
        unit = CompileUnit(self.task, self.data, teacher=self.teacher, teacher_info=self.info)
        store = RecordTeacher(states=False).run(unit, PassContext()).unit.teacher_store
        assert store is not None
        return store

    def _fit(self, curve: str, weeks: int, store: TeacherStore) -> dict[str, Any]:
        every = len(self.data.windows("train", LOOKBACK, HORIZON))
        windows = min(every, weeks * 7 * DAYS[str(self.data.frequency)])
        data = last_windows(self.data, every - windows)
        taught = curve != "truth"
        labels = [(TEACHER, labels_of(store, every - windows))] if taught else []
        statistics = WindowStatistics(data, LOOKBACK, HORIZON, labels)
        unit = CompileUnit(
            self.task, data, teacher=self.teacher if taught else None, teacher_info=self.info
        ).with_(statistics=statistics)
        context = PassContext()
        unit = BuildStudent(kind="dlinear", config={"maps": "auto"}).run(unit, context).unit
        if taught:
            unit = WeightHorizons().run(unit, context).unit
        if curve == "labels + synthetic":
            unit = AddPrior().run(unit, context).unit
        result = SolveAffine().run(unit, context)
        assert result.unit.student is not None
        wanted = ("maps", "rank", "lambda", "tau", "ridge", "pooling", "prior", "validation_mse", "warnings")
        chosen = {name: result.metrics[name] for name in wanted}
        return {**self._test(model_predictor(result.unit.student)), **chosen, "windows": windows}

    def _test(self, predict: Predict) -> dict[str, Any]:
        found = evaluate(predict, self.data.windows("test", LOOKBACK, HORIZON), self.scale)
        return {"test_mse": found.mse, "test_mae": found.mae}


def last_windows(data: Dataset, skipped: int) -> Dataset:
    """The data without its first ``skipped`` rows; scaled as before."""
    splits = Splits(data.splits.train - skipped, data.splits.val, data.splits.test)
    return replace(data, values=data.values[skipped:], rows=data.rows - skipped, splits=splits)


def labels_of(store: TeacherStore, skipped: int) -> Labels:
    """The teacher's forecasts of the windows that are left."""
    forecasts = store.array("train", "forecast")

    def labels(first: int, last: int) -> np.ndarray:
        return np.asarray(forecasts[skipped + first : skipped + last])

    return labels


def table(found: dict[str, Any]) -> str:
    """Markdown: a row for each set and curve, a column for each number of weeks."""
    lines = [
        "Test MSE of affine students, lookback 512, horizon 96, by weeks of data before validation",
        "(`benchmarks/learning_curve.py`; everything chosen without the test split).",
        "",
        "| data | student | " + " | ".join(f"{weeks} w" for weeks in WEEKS) + " |",
        "|---|---|" + "---|" * len(WEEKS),
    ]
    for name in SETS:
        for curve in CURVES:
            cells = [_cell(found, f"{name}/{curve}/{weeks}") for weeks in WEEKS]
            lines.append(f"| {name} | {curve} | " + " | ".join(cells) + " |")
        for level in LEVELS:
            cell = _cell(found, f"{name}/{level}")
            lines.append(f"| {name} | {level} | {cell} |" + " |" * (len(WEEKS) - 1))
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, Any], key: str) -> str:
    return f"{found[key]['test_mse']:.4f}" if key in found else ""


def draw(found: dict[str, Any], path: Path) -> None:
    """Four small panels, in colours that read on white and on black."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    grey = "#888888"
    plt.rcParams.update(
        {"text.color": grey, "axes.labelcolor": grey, "xtick.color": grey, "ytick.color": grey}
    )
    plt.rcParams.update({"axes.edgecolor": grey, "svg.hashsalt": "tsfmc", "font.size": 9})
    figure, panels = plt.subplots(1, len(SETS), figsize=(12, 3.2), layout="constrained")
    for name, panel in zip(SETS, panels, strict=True):
        for curve in CURVES:
            points = [(w, found[key]["test_mse"]) for w in WEEKS if (key := f"{name}/{curve}/{w}") in found]
            if points:
                panel.plot(
                    *zip(*points, strict=True), "o-", ms=3.5, lw=1.6, color=COLOURS[curve], label=curve
                )
        for level in ("data-free", "teacher"):
            if (key := f"{name}/{level}") in found:
                style = "--" if level == "data-free" else ":"
                panel.axhline(found[key]["test_mse"], ls=style, lw=1.4, color=COLOURS[level], label=level)
        panel.set(title=name, xscale="log", xlabel="weeks of data")
        panel.set_xticks(WEEKS, [str(weeks) for weeks in WEEKS])
        panel.minorticks_off()
        panel.grid(alpha=0.25, lw=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test MSE")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
