"""``tsfmc compile`` on standard data sets: the accuracy of what ships, and what it is measured against.

    python benchmarks/end_to_end.py --teacher DIR_OF_TTM_R2_512_96

    default             the recipe as it comes
    fine-tuned first    the same with ``finetune`` before it: a teacher that is worse than plain supervision
                        teaches badly (METHODS.md B.5), so it is adapted to the data first

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
    parser.add_argument("--student", default="dlinear")
    parser.add_argument("--pipelines", nargs="+", default=list(PIPELINES), choices=PIPELINES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = kept.read(options.results)
    for data in options.data:
        for name in options.pipelines:
            key = f"{data}/{options.student}/{name}/{options.seed}"
            if key not in found:
                found[key] = one(options, data, name)
                kept.write(options.results, found)
    table = render(found)
    options.results.with_suffix(".md").write_text(table)
    print(table)


def one(options: argparse.Namespace, data: str, name: str) -> dict[str, Any]:
    """One compile; its manifest's figures."""
    progress = for_stderr()
    progress.line(f"{data}, {options.student}, {name}")
    chosen = {"teacher": options.teacher, "data": data, "student": options.student}
    before = PIPELINES[name]
    pipeline = [*before, *api.make_recipe(**chosen).pipeline]
    recipe = api.make_recipe(**chosen, seed=options.seed, pipeline=pipeline, set=FINETUNE if before else [])
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = api.compile_recipe(recipe, out=Path(folder), progress=progress)
    manifest = result.manifests["onnx"]
    return {
        "accuracy": manifest["accuracy"]["test"],
        "parameters": manifest["student"]["parameters"],
        "overlap": manifest["teacher"]["pretraining_overlap"],
        "passes": [
            {key: entry[key] for key in ("name", "seconds", "metrics")} for entry in manifest["passes"]
        ],
        "seconds": round(time.monotonic() - started),
    }


def render(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "# Compiled end to end",
        "",
        "Test MSE / MAE of the shipped file, every window, one seed; the teacher as it was loaded.",
        "",
        "| data | windows | student | pipeline | artifact | supervised | teacher | seasonal naive |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, result in found.items():
        data, student, name, _ = key.split("/")
        rows = result["accuracy"]
        cells = [
            f"{rows[row]['mse']:.4f} / {rows[row]['mae']:.4f}"
            for row in ("student", "supervised", "teacher", "seasonal_naive")
        ]
        lines.append(f"| {data} | {rows['student']['windows']} | {student} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
