"""``tsfmc compile`` on standard data sets: the accuracy of what ships, and what it is measured against.

    TSFMC_DATA=FOLDER python benchmarks/end_to_end.py --teacher DIR_OF_TTM_R2_512_96 --student dlinear auto

    default             the recipe as it comes
    fine-tuned first    the same with ``finetune`` before it: the teacher is adapted to the data first

Every figure is read from the manifest of the artifact that was written: test split, all windows, through the
shipped ONNX file; the supervised row is the same student without a teacher.  Results go to
benchmarks/results/end_to_end.json, a compile as soon as it is there; a second call goes on with the rest.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import kept

from tsfmc.compiler import api
from tsfmc.compiler.base.progress import for_stderr

RESULTS = Path(__file__).parent / "results" / "end_to_end.json"
PIPELINES = {
    "default": [],
    "fine-tuned first": ["finetune"],
}
FINETUNE = [
    "passes.finetune.epochs=1",
    "passes.finetune.learning_rates=[1e-4, 1e-3]",
    "passes.finetune.train_windows=4096",
    "passes.finetune.validation_windows=1024",
]


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", nargs="+", default=["ETTh1", "ETTh2", "ETTm1", "weather"])
    parser.add_argument("--student", nargs="+", default=["dlinear", "auto"])
    parser.add_argument("--pipelines", nargs="+", default=["default"], choices=PIPELINES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = kept.read(options.results)
    for data in options.data:
        for student in options.student:
            for name in options.pipelines:
                key = f"{data}/{student}/{name}/{options.seed}"
                if key not in found:
                    found[key] = one(options, data, student, name)
                    kept.write(options.results, found)
    table = render(found)
    options.results.with_suffix(".md").write_text(table)
    print(table)


def one(options: argparse.Namespace, data: str, student: str, name: str) -> dict[str, Any]:
    """One compile; its manifest's figures."""
    progress = for_stderr()
    progress.line(f"{data}, {student}, {name}")
    chosen = {"teacher": options.teacher, "data": data, "student": student}
    before = PIPELINES[name]
    pipeline = [*before, *api.make_recipe(**chosen).pipeline]
    recipe = api.make_recipe(**chosen, seed=options.seed, pipeline=pipeline, set=FINETUNE if before else [])
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = api.compile_recipe(recipe, out=Path(folder), progress=progress)
    manifest = result.manifests["onnx"]
    return {
        "accuracy": manifest["accuracy"]["test"],
        "comparisons": manifest["accuracy"].get("comparisons"),
        "verdict": manifest["accuracy"].get("verdict"),
        "speedup": {
            scenario: [record["speedup"], *record["speedup_interval"]]
            for scenario, record in manifest["latency"]["scenarios"].items()
        },
        "noisy": any(record["noisy"] for record in manifest["latency"]["scenarios"].values()),
        "parameters": manifest["student"]["parameters"],
        "overlap": manifest["teacher"]["pretraining_overlap"],
        "passes": [
            {"name": entry["name"], "seconds": entry["seconds"], "metrics": _short(entry["metrics"])}
            for entry in manifest["passes"]
        ],
        "seconds": round(time.monotonic() - started),
    }


def _short(metrics: dict[str, Any]) -> dict[str, Any]:
    """Without the table of all candidates, which the manifest keeps."""
    return {key: value for key, value in metrics.items() if key != "selection"}


def percent(low: float, high: float) -> str:
    """An interval in per cent."""
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def render(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "# Compiled end to end",
        "",
        "Test MSE / MAE of the shipped file, every window, one seed; the teacher as it was loaded.  In",
        "brackets: 95 % interval of the artifact's error against that row, paired block bootstrap.",
        "",
        "| data | student | pipeline | parameters | artifact | supervised | teacher | naive | solve |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, result in found.items():
        data, student, name, _ = key.split("/")
        rows, compared = result["accuracy"], result["comparisons"]
        cells = [f"**{rows['student']['mse']:.4f}** / {rows['student']['mae']:.4f}"]
        for row in ("supervised", "teacher", "seasonal_naive"):
            interval = compared[row]
            cells.append(
                f"{rows[row]['mse']:.4f} / {rows[row]['mae']:.4f} ({100 * interval['relative']:+.1f} % "
                f"{percent(*interval['relative_interval'])})"
            )
        solve = sum(step["seconds"] for step in result["passes"] if step["name"] == "solve_affine")
        line = (data, student, name, f"{result['parameters']:,}", *cells, f"{solve:.1f} s")
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
