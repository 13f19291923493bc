"""Zero-shot accuracy of a teacher on the test split: every window, stride 1, the scaling of the field.

    TSFMC_DATA=DIR python benchmarks/zero_shot.py --teacher NAME_OR_DIR --data ETTh1 ETTh2 ETTm1 weather

Results go to benchmarks/results/zero_shot.json, a data set as soon as it is there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import kept

from tsfmc.compiler.base.progress import for_stderr
from tsfmc.compiler.data import load_data
from tsfmc.compiler.frontends import open_teacher
from tsfmc.compiler.learning.evaluate import evaluate, model_predictor, naive_scale, seasonal_naive

RESULTS = Path(__file__).parent / "results" / "zero_shot.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--lookback", type=int, default=512)
    parser.add_argument("--horizon", type=int, default=96)
    options = parser.parse_args()
    found = kept.read(RESULTS)
    print("| data | windows | teacher MSE | MAE | seasonal naive MSE | MAE |\n|---|---|---|---|---|---|")
    for name in options.data:
        data = load_data(name, lookback=options.lookback, horizon=options.horizon)
        teacher, info = open_teacher(
            options.teacher,
            lookback=options.lookback,
            horizon=options.horizon,
            variates=len(data.variates),
        )
        key = f"{info.name} {name} {options.lookback}-{options.horizon}"
        if key not in found:
            windows = data.windows("test", options.lookback, options.horizon)
            scale, progress = naive_scale(data), for_stderr()
            naive = seasonal_naive(data.seasonality, options.horizon)
            found[key] = {
                "teacher": evaluate(
                    model_predictor(teacher),
                    windows,
                    scale,
                    batch_windows=32,
                    progress=progress,
                    title=name,
                ).to_dict(),
                "seasonal_naive": evaluate(naive, windows, scale).to_dict(),
            }
            kept.write(RESULTS, found)
        rows = [found[key]["teacher"], found[key]["seasonal_naive"]]
        cells = " | ".join(f"{row['mse']:.4f} | {row['mae']:.4f}" for row in rows)
        print(f"| {name} | {rows[0]['windows']} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
