"""Zero-shot, full fine-tune, prune-then-finetune of one teacher: test accuracy, parameters, latency.

    python benchmarks/prune_then_finetune.py --teacher DIR_OF_TTM_R2_512_96

Every row is a pipeline of the same recipe without student (paper A):

    zero-shot               -
    full fine-tune          finetune
    prune, then finetune    drop_dead_weights, prune_channels, finetune

The learning rate, the epoch and the pruned candidate are chosen on validation; the test split is read once,
all windows.  The seed orders the mini-batches of scores and of training.  Latency, last, so that the machine
can be left alone for it (``--latency-s 0``: not now): eager and onnxruntime, each pruned model of seed 0
against the zero-shot one, interleaved, one thread, batch 1.

Results go to benchmarks/results/prune_then_finetune.json, a row as soon as it is there; a second call goes
on with what is missing (training itself resumes from its last epoch), and the table is written beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import kept

from tsfmc.compiler import api
from tsfmc.compiler.base.progress import for_stderr
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.cost import cost_of
from tsfmc.compiler.learning.evaluate import evaluate, model_predictor, naive_scale
from tsfmc.targets import TARGETS
from tsfmc.targets.base import Shape
from tsfmc.targets.measure.latency import MIN_WINDOWS, measure, torch_candidate

RESULTS = Path(__file__).parent / "results" / "prune_then_finetune.json"
PRUNED = "prune, then finetune"
ROWS = {
    "zero-shot": [],
    "full fine-tune": ["finetune"],
    PRUNED: ["drop_dead_weights", "prune_channels", "finetune"],
}
# How far a call goes: no setting of a row.
EXTENT = ("results", "data", "seeds", "latency_s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", nargs="+", default=["ETTh1", "ETTh2", "ETTm1", "weather"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1, help="of fine-tuning; the paper's for most teachers")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-4, 1e-3])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--train-windows", type=int, default=4096, help="an epoch of fine-tuning; 0 for all")
    parser.add_argument("--score-windows", type=int, default=1024, help="an epoch of pruning; 0 for all")
    parser.add_argument("--validation-windows", type=int, default=1024, help="evenly spread; 0 for all")
    parser.add_argument("--rho", type=float, default=0.1, help="of pruning, an epoch")
    parser.add_argument("--prune-epochs", type=int, default=5)
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--latency-s", type=float, default=5.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    settings = {**vars(options), "teacher": Path(options.teacher).name}
    settings = {name: settings[name] for name in settings if name not in EXTENT}
    found = kept.read(options.results, {"rows": {}, "latency": {}})
    if found.setdefault("settings", settings) != settings:
        raise SystemExit(f"{options.results} was made with other settings: give --results another file")
    for data in options.data:
        for row in ROWS:
            for seed in range(options.seeds if ROWS[row] else 1):
                key = f"{data}/{row}/{seed}"
                if key not in found["rows"]:
                    found["rows"][key] = one(options, data, row, seed)
                    kept.write(options.results, found)
    for data in options.data if options.latency_s else ():
        if data not in found["latency"]:
            found["latency"][data] = latency(tuned(options, data, PRUNED, 0), options.latency_s)
            kept.write(options.results, found)
    table = render(found, options.data)
    options.results.with_suffix(".md").write_text(table)
    print(table)


def tuned(options: argparse.Namespace, data: str, row: str, seed: int) -> CompileUnit:
    """The teacher after the passes of a row, from the pass cache where they ran before."""
    progress = for_stderr()
    progress.line(f"{data}, {row}, seed {seed}")
    passes = {
        "finetune": {
            "epochs": options.epochs,
            "learning_rates": options.learning_rates,
            "batch_size": options.batch_size,
            "train_windows": options.train_windows,
            "validation_windows": options.validation_windows,
        },
        "prune_channels": {
            "rho": options.rho,
            "epochs": options.prune_epochs,
            "tolerance": options.tolerance,
            "batch_size": options.batch_size,
            "score_windows": options.score_windows,
            "validation_windows": options.validation_windows,
        },
    }
    recipe = api.make_recipe(
        teacher=options.teacher,
        data=data,
        student="none",
        seed=seed,
        pipeline=ROWS[row],
        passes={name: passes[name] for name in ROWS[row] if name in passes},
    )
    return api.transform(recipe, progress=progress)


def one(options: argparse.Namespace, data: str, row: str, seed: int) -> dict[str, Any]:
    """One row: accuracy on the test split and static cost."""
    unit = tuned(options, data, row, seed)
    windows = unit.data.windows("test", unit.task.lookback, unit.task.horizon)
    scale = naive_scale(unit.data)
    accuracy = evaluate(model_predictor(unit.model), windows, scale, progress=for_stderr(), title="test")
    return {
        **accuracy.to_dict(),
        "cost": vars(cost_of(unit.model, len(unit.task.variates))),
        "passes": {entry.name: dict(entry.metrics) for entry in unit.record},
        "seconds": sum(entry.seconds for entry in unit.record),
    }


def latency(unit: CompileUnit, seconds: float) -> dict[str, Any]:
    """The pruned model and the one it came from, in one run for each engine."""
    task = unit.task
    shape = Shape(len(task.variates), task.lookback, task.horizon)
    past = unit.data.windows("test", task.lookback, task.horizon).spread(MIN_WINDOWS)
    models = {"teacher": unit.original_teacher or unit.model, "artifact": unit.model}
    report: dict[str, Any] = {}
    forms = dict.fromkeys(models, "eager, fp32, inference_mode")
    eager = {name: torch_candidate(model) for name, model in models.items()}
    report["eager"] = measure(eager, past, duration_s=seconds, forms=forms).to_manifest()
    with tempfile.TemporaryDirectory() as folder:
        target, engines = TARGETS["onnx"], {}
        for name, model in models.items():
            where = Path(folder) / name
            where.mkdir()
            payload = target.lower_model(
                model.eval(), shape, where, options=target.Options(), calibration=past
            )
            engines[name] = target.load(where, payload, 1)
        forms = dict.fromkeys(models, "onnxruntime, fp32")
        report["onnxruntime"] = measure(engines, past, duration_s=seconds, forms=forms).to_manifest()
    return report


def render(found: dict[str, Any], names: list[str]) -> str:
    """The table and its method as Markdown."""
    lines = [
        "# Prune, then fine-tune",
        "",
        "Mean and standard deviation over seeds; `parameters` are stored ones.  Speed-up: median time of the",
        "zero-shot teacher over that of the row, interleaved, one thread, batch 1, first seed.",
        "",
        "Settings: " + ", ".join(f"{key} {value}" for key, value in found["settings"].items()) + ".",
        "",
        "| data | row | test MSE | test MAE | parameters | MACs | eager | onnxruntime |",
        "|---|---|---|---|---|---|---|---|",
    ]
    verdicts = []
    for data in names:
        means: dict[str, list[float]] = {}
        for row in ROWS:
            results = [
                value for key, value in sorted(found["rows"].items()) if key.startswith(f"{data}/{row}/")
            ]
            if not results:
                continue
            means[row] = [result["mse"] for result in results]
            costs = [result["cost"] for result in results]
            speed = found["latency"].get(data, {}) if row == PRUNED else {}
            lines.append(
                f"| {data} | {row} | {spread(means[row])} | {spread([r['mae'] for r in results])} "
                f"| {statistics.mean(c['parameters'] for c in costs):,.0f} "
                f"| {statistics.mean(c['macs'] for c in costs) / 1e6:.1f} M "
                f"| {speedup(speed, 'eager')} | {speedup(speed, 'onnxruntime')} |"
            )
        if {"full fine-tune", PRUNED} <= means.keys():
            full, pruned = (statistics.mean(means[row]) for row in ("full fine-tune", PRUNED))
            verdicts.append(f"- {data}: {pruned / full - 1:+.2%} test MSE of pruned against full fine-tune")
    methods = {run["method"] for engines in found["latency"].values() for run in engines.values()}
    lines += ["", '"Pruned is not worse than full fine-tune":', *verdicts, "", "Latency method:"]
    return "\n".join([*lines, *(f"- {method}" for method in sorted(methods))]) + "\n"


def spread(values: list[float]) -> str:
    """Mean and standard deviation; a single value as it is."""
    mean = f"{statistics.mean(values):.4f}"
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def speedup(latencies: dict[str, Any], engine: str) -> str:
    """The ratio with its interval, or a dash."""
    if engine not in latencies:
        return "-"
    low, high = latencies[engine]["speedup_interval"]
    noisy = ", noisy" if latencies[engine]["noisy"] else ""
    return f"{latencies[engine]['speedup']:.2f}x ({low:.2f}-{high:.2f}{noisy})"


if __name__ == "__main__":
    main()
