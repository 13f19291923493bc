"""DistilTS's rows for students that are trained: supervised, uniform KD, horizon weights, alignment, full.

    TSFMC_DATA=FOLDER python benchmarks/papers/trained_rows.py --teacher DIR --data ETTh1 ETTh2

Every row is a pipeline of the same recipe with passes left out, at the student's defaults, which are the
paper's: for iTransformer 3.5 million parameters, 4 epochs, the epoch chosen on validation.  Test split, all
windows.  A run of one row and seed is kept as soon as it is there, and a second call goes on with what is
missing.

Intervals are of the mean over seeds: Student's t at 95 %.  A change is that of a row against the supervised
one of the same seed, so what both draw alike does not count.  Neither says how another test period would be.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import kept

from tsfmc.compiler import api
from tsfmc.compiler.base.progress import for_stderr
from tsfmc.compiler.learning.evaluate import evaluate, model_predictor, naive_scale, seasonal_naive

RESULTS = Path(__file__).resolve().parents[1] / "results" / "trained_rows.json"
TAIL = ["distill", "fold_affine"]
ROWS: dict[str, tuple[list[str], list[str]]] = {
    "supervised": (["build_student", *TAIL], ["passes.build_student.lambda_kd=0.0"]),
    "uniform KD": (["build_student", *TAIL], []),
    "+ horizon weights": (["build_student", "weight_horizons", *TAIL], []),
    "+ FTA": (["build_student", "align_temporal", *TAIL], []),
    "full": (["build_student", "weight_horizons", "align_temporal", *TAIL], []),
    "full, FTA summed over d_T": (
        ["build_student", "weight_horizons", "align_temporal", *TAIL],
        ['passes.align_temporal.reduction="paper"'],
    ),
}
PLAIN = "supervised"
"""The row that the others are compared with."""
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t of 1, 2, ... degrees of freedom; beyond, the last one is a little too wide."""
Results = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", nargs="+", default=["ETTh1", "ETTh2"])
    parser.add_argument("--student", nargs="+", default=["itransformer"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", default=list(ROWS)[:3], choices=list(ROWS))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY.PATH=VALUE", help="of every row")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = kept.read(options.results)
    for data in options.data:
        reference(found, options.teacher, data)
        for student in options.student:
            for seed in range(options.seeds):
                for name in options.rows:
                    key = "/".join((data, student, name, str(seed)))
                    if key not in found:
                        found[key] = one(options.teacher, data, student, name, seed, options.set)
                        keep(options.results, found)
    keep(options.results, found)
    print(render(found))


def keep(path: Path, found: Results) -> None:
    """What is there so far, as JSON and as tables."""
    kept.write(path, found)
    path.with_suffix(".md").write_text(render(found))


def recipe_for(
    teacher: str, data: str, student: str, name: str, seed: int, settings: list[str]
) -> api.Recipe:
    """The recipe of a row; the teacher's states are recorded where the row reads them."""
    pipeline, own = ROWS[name]
    return api.make_recipe(
        teacher=teacher,
        data=data,
        student=student,
        seed=seed,
        pipeline=["record_teacher", *pipeline],
        set=[*own, *settings],
    )


def one(teacher: str, data: str, student: str, name: str, seed: int, settings: list[str]) -> Results:
    """Test accuracy of one row and seed, and what it took."""
    progress = for_stderr()
    progress.line(f"{data} {student} {name} seed {seed}")
    recipe = recipe_for(teacher, data, student, name, seed, settings)
    started = time.perf_counter()
    unit = api.transform(recipe, progress=progress)
    windows = unit.data.windows("test", recipe.task.lookback, recipe.task.horizon)
    row = evaluate(model_predictor(unit.model), windows, naive_scale(unit.data))
    trained = next(entry for entry in unit.record if entry.name == "distill")
    return {
        **row.to_dict(),
        "seconds": round(time.perf_counter() - started, 1),
        "best_epoch": trained.metrics["best_epoch"],
        "epochs": trained.config["epochs"],
    }


def reference(found: Results, teacher: str, data: str) -> None:
    """Rows that no student changes."""
    if f"{data}/teacher" in found:
        return
    recipe = recipe_for(teacher, data, "itransformer", "uniform KD", 0, [])
    unit = api.transform(recipe, stop_after="record_teacher", progress=for_stderr())
    windows = unit.data.windows("test", recipe.task.lookback, recipe.task.horizon)
    store, scale = unit.teacher_store, naive_scale(unit.data)
    assert store is not None

    def labelled(indices: Any, past: torch.Tensor) -> torch.Tensor:
        return store.forecast("test", indices)

    found[f"{data}/teacher"] = evaluate(labelled, windows, scale).to_dict()
    naive = seasonal_naive(unit.data.seasonality, recipe.task.horizon)
    found[f"{data}/seasonal naive"] = evaluate(naive, windows, scale).to_dict()


def render(found: Results) -> str:
    """The tables as Markdown."""
    lines = ["# Students that are trained", "", *(__doc__ or "").split("\n\n")[2].splitlines(), ""]
    lines += [*(__doc__ or "").split("\n\n")[3].splitlines(), ""]
    pairs = dict.fromkeys(tuple(key.split("/")[:2]) for key in found if key.count("/") == 3)
    for data, student in sorted(pairs):
        lines += table(found, data, student)
    return "\n".join(lines).rstrip() + "\n"


def table(found: Results, data: str, student: str) -> list[str]:
    """One data set and student."""
    head = f"## {data}, {student}"
    lines = [head, "", "| row | seeds | test MSE | test MAE | against supervised |", "|---" * 5 + "|"]
    for name in ("seasonal naive", "teacher"):
        if row := found.get(f"{data}/{name}"):
            lines.append(f"| {name} | | {row['mse']:.4f} | {row['mae']:.4f} | |")
    plain = by_seed(found, data, student, PLAIN)
    for name in ROWS:
        rows = by_seed(found, data, student, name)
        if not rows:
            continue
        cells = [interval([row[metric] for row in rows.values()]) for metric in ("mse", "mae")]
        both = sorted(rows.keys() & plain.keys())
        change = [100 * (rows[seed]["mse"] / plain[seed]["mse"] - 1) for seed in both]
        against = interval(change, "+.2f") + " %" if change and name != PLAIN else ""
        lines.append(f"| {name} | {len(rows)} | {cells[0]} | {cells[1]} | {against} |")
    return [*lines, ""]


def by_seed(found: Results, data: str, student: str, name: str) -> dict[str, Any]:
    """Seed -> what it gave."""
    start = "/".join((data, student, name)) + "/"
    return {key.removeprefix(start): row for key, row in found.items() if key.startswith(start)}


def interval(values: list[float], form: str = ".4f") -> str:
    """``0.3702 [0.3688, 0.3716]``; the mean alone of a single value."""
    middle = mean(values)
    if len(values) < 2:
        return f"{middle:{form}}"
    half = T_975[min(len(values) - 1, len(T_975)) - 1] * stdev(values) / math.sqrt(len(values))
    return f"{middle:{form}} [{middle - half:{form}}, {middle + half:{form}}]"


if __name__ == "__main__":
    main()
