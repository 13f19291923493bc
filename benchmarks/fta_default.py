"""Does FTA help students that are trained?  Judged inside training and on validation, never on test.

    python benchmarks/fta_default.py --teacher DIR --out benchmarks/results/fta_default.json [--seeds 3]

Each origin is a split of its own: training ends where it says, the next rows choose the epoch, and the rows
after them, all of them before the published test split, judge.  Both rows of a pair share everything but
``align_temporal``: data, windows, steps, seed, KD and its horizon weights.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from tsfmc.compiler import api
from tsfmc.compiler.learning.evaluate import evaluate, model_predictor

ORIGINS = ("5760,1440,1440", "8640,1440,1440")
"""Rows of train, epoch choice and judgement: ETT's published training has 8640 rows, validation 2880."""
PASSES = ["record_teacher", "build_student", "weight_horizons", "align_temporal", "distill"]
STUDENTS: dict[str, list[str]] = {
    "dlinear": ["student.maps=shared", "student.embedding=64"],
    "itransformer": ["student.width=64", "student.ffn=128"],
}


def judged(args: argparse.Namespace, data: str, split: str, kind: str, fta: float, seed: int) -> float:
    """MSE on the rows that judge."""
    settings = [
        *STUDENTS[kind],
        f"pipeline={json.dumps(PASSES)}",
        f"passes.record_teacher.train_windows={args.windows}",
        f"passes.distill.windows_per_epoch={args.windows}",
        f"passes.distill.epochs={args.epochs}",
        f"passes.distill.learning_rate={args.learning_rate}",
        f"passes.align_temporal.lambda_fta={fta}",
        f"passes.align_temporal.factors={args.factors}",
    ]
    recipe = api.make_recipe(
        teacher=args.teacher, data=data, student=kind, split=split, seed=seed, set=settings
    )
    unit = api.transform(recipe, cache=False)
    windows = unit.data.windows("test", unit.task.lookback, unit.task.horizon)
    return evaluate(model_predictor(unit.model), windows, torch.ones(len(unit.task.variates))).mse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", nargs="+", default=["ETTh1", "ETTh2"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lambdas", type=float, nargs="+", default=[1.0])
    parser.add_argument("--windows", type=int, default=2048, help="labelled and trained on, evenly spread")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for data in args.data:
        for split in ORIGINS:
            for kind in STUDENTS:
                for seed in range(args.seeds):
                    plain = judged(args, data, split, kind, 0.0, seed)
                    for weight in args.lambdas:
                        aligned = judged(args, data, split, kind, weight, seed)
                        rows.append(
                            {
                                **{"data": data, "split": split, "student": kind, "seed": seed},
                                **{"lambda_fta": weight, "mse": aligned, "mse_without": plain},
                                "log_ratio": math.log(aligned / plain),
                            }
                        )
                        print(json.dumps(rows[-1]), flush=True)
                        options = {name: value for name, value in vars(args).items() if name != "out"}
                        options["teacher"] = Path(args.teacher).name
                        args.out.write_text(json.dumps({"options": options, "rows": rows}, indent=1))
    for kind in STUDENTS:
        ratios = [row["log_ratio"] for row in rows if row["student"] == kind]
        error = stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else 0.0
        print(
            f"{kind}: FTA changes the error by {100 * mean(ratios):+.2f} % (standard error {100 * error:.2f})"
        )


if __name__ == "__main__":
    main()
