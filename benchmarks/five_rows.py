"""Five rows: supervised, uniform KD, + horizon weights, + FTA, full; teacher and seasonal naive beside them.

    python benchmarks/five_rows.py --teacher DIR --data ETTh1 --student dlinear --seeds 3

Every row is a pipeline of the same recipe with passes left out.  Test split, all windows; the epoch is
chosen on validation.  Results go to benchmarks/results/five_rows.json, a row as soon as it is there, and a
second call goes on with the rows that are missing.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import kept

from tsfmc.compiler import api
from tsfmc.compiler.base.progress import for_stderr
from tsfmc.compiler.learning.evaluate import evaluate, model_predictor, naive_scale, seasonal_naive

RESULTS = Path(__file__).parent / "results" / "five_rows.json"
TAIL = ["distill", "fold_affine"]
ROWS = {
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", nargs="+", default=["ETTh1"])
    parser.add_argument("--student", nargs="+", default=["dlinear", "itransformer"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", default=list(ROWS))
    options = parser.parse_args()
    found = kept.read(RESULTS)
    for data in options.data:
        for student in options.student:
            for name in options.rows:
                for seed in range(options.seeds):
                    key = f"{data}/{student}/{name}/{seed}"
                    if key not in found:
                        found[key] = one(options.teacher, data, student, name, seed)
                        kept.write(RESULTS, found)
            reference(found, options.teacher, data)
            kept.write(RESULTS, found)
            print_table(found, data, student, options)


def recipe_for(teacher: str, data: str, student: str, name: str, seed: int) -> api.Recipe:
    """The recipe of a row.  States are recorded for every row, so that all rows share one teacher store."""
    pipeline, settings = ROWS[name]
    return api.make_recipe(
        teacher=teacher,
        data=data,
        student=student,
        seed=seed,
        pipeline=["record_teacher", *pipeline],
        set=["passes.record_teacher.states=true", *settings],
    )


def one(teacher: str, data: str, student: str, name: str, seed: int) -> dict[str, float]:
    """Test accuracy of one row and seed."""
    progress = for_stderr()
    progress.line(f"{data} {student} {name} seed {seed}")
    recipe = recipe_for(teacher, data, student, name, seed)
    # The store does not depend on the seed of the student.
    unit = api.transform(recipe, progress=progress)
    windows = unit.data.windows("test", recipe.task.lookback, recipe.task.horizon)
    return evaluate(model_predictor(unit.model), windows, naive_scale(unit.data)).to_dict()


def reference(found: dict[str, dict[str, float]], teacher: str, data: str) -> None:
    """Rows that no student changes."""
    if f"{data}/teacher" in found:
        return
    progress = for_stderr()
    recipe = recipe_for(teacher, data, "dlinear", "uniform KD", 0)
    unit = api.transform(recipe, stop_after="record_teacher", progress=progress)
    windows = unit.data.windows("test", recipe.task.lookback, recipe.task.horizon)
    store, scale = unit.teacher_store, naive_scale(unit.data)
    found[f"{data}/teacher"] = evaluate(lambda i, past: store.forecast("test", i), windows, scale).to_dict()
    naive = seasonal_naive(unit.data.seasonality, recipe.task.horizon)
    found[f"{data}/seasonal naive"] = evaluate(naive, windows, scale).to_dict()


def print_table(
    found: dict[str, dict[str, float]], data: str, student: str, options: argparse.Namespace
) -> None:
    windows = found[f"{data}/teacher"]["windows"]
    print(f"\n{data}, {student}, {options.seeds} seeds, {windows} test windows")
    print(f"| {'row':<26} | MSE | MAE |\n|---|---|---|")
    for name in ("seasonal naive", "teacher"):
        row = found[f"{data}/{name}"]
        print(f"| {name:<26} | {row['mse']:.4f} | {row['mae']:.4f} |")
    for name in options.rows:
        rows = [found[f"{data}/{student}/{name}/{seed}"] for seed in range(options.seeds)]
        cells = []
        for metric in ("mse", "mae"):
            values = [row[metric] for row in rows]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.4f} ± {spread:.4f}")
        print(f"| {name:<26} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
