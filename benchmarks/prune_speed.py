"""Speed-up against parameters kept: random weights at full size, eager and onnxruntime.

    python benchmarks/prune_speed.py

For every kept ratio r the first units of every group stay: of FFNs and attention heads ``r * units`` (at
least one), experts all.  ``aligned`` rounds the FFN widths up to multiples of --round-to, ``unaligned``
takes 3 units less than that: fewer parameters, odd widths.  All sizes of one teacher and engine are timed
in one interleaved run (context 512, 7 variates, one thread, batch 1; the latency rule).  Weights are random:
latency does not depend on them, but for which experts are routed to.  Time-MoE takes seconds a forecast:

    python benchmarks/prune_speed.py --teachers time-moe-50m --ratios 0.5 0.1 --rounds 9 --warmup-calls 1

Paper A quotes up to 7x, eager on a CPU with one series per variate in the batch: the eager rows.

Results go to benchmarks/results/prune_speed.json, an engine of a teacher as soon as it is there; a second
call goes on with the missing ones.  The table is written beside it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kept
import numpy as np
import torch

from tsfmc.compiler.base.progress import for_stderr
from tsfmc.compiler.frontends import build_teacher, find_card
from tsfmc.compiler.ir.forecaster import Teacher
from tsfmc.compiler.learning.cost import cost_of
from tsfmc.passes.surgery import slice_teacher
from tsfmc.targets import TARGETS
from tsfmc.targets.artifact.device.rounds import MIN_QUERIES
from tsfmc.targets.base import Shape
from tsfmc.targets.measure.host import host_record
from tsfmc.targets.measure.latency import MIN_WINDOWS, measure, torch_candidate

RESULTS = Path(__file__).parent / "results" / "prune_speed.json"
LOOKBACK = 512
ENGINES = ("eager", "onnxruntime")


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument(
        "--teachers", nargs="+", default=["moirai-small", "chronos-bolt-small", "time-moe-50m"]
    )
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.75, 0.5, 0.25, 0.1])
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--variates", type=int, default=7)
    parser.add_argument("--horizon", type=int, default=64, help="64 is one pass of Bolt and Time-MoE")
    parser.add_argument("--seconds", type=float, default=60.0, help="per run; at least --rounds")
    parser.add_argument("--rounds", type=int, default=MIN_QUERIES, help="fewer for slow teachers")
    parser.add_argument("--warmup-calls", type=int, default=50, help="fewer for slow teachers")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = kept.read(options.results)
    for name in options.teachers:
        for engine in options.engines:
            key = f"{name}/{engine}"
            if key not in found:
                found[key] = one(options, name, engine)
                kept.write(options.results, found)
    table = render(found)
    options.results.with_suffix(".md").write_text(table)
    print(table)


def one(options: argparse.Namespace, name: str, engine: str) -> dict[str, Any]:
    """All sizes of one teacher on one engine."""
    progress = for_stderr()
    progress.line(f"{name} on {engine}")
    card = find_card(name)
    if card.config is None:
        raise SystemExit(f"{name} has no published configuration to build it from")
    torch.manual_seed(0)
    teacher = build_teacher(
        card.config, lookback=LOOKBACK, horizon=options.horizon, variates=options.variates
    )
    whole = teacher.without_dead_weights()
    sizes = {"published": teacher, "without dead weights": whole}
    if whole is teacher:
        del sizes["without dead weights"]
    for ratio in options.ratios:
        sizes[f"{ratio:g} aligned"] = shrink(whole, ratio, options.round_to, 0)
        sizes[f"{ratio:g} unaligned"] = shrink(whole, ratio, options.round_to, 3)
    drawn = np.random.default_rng(0).standard_normal((MIN_WINDOWS, options.variates, LOOKBACK))
    past = drawn.cumsum(axis=-1).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        calls = {}
        for size, model in sizes.items():
            progress.line(f"    {size}")
            calls[size] = candidate(model, engine, Path(folder) / size.replace(" ", "-"), past)
        report = measure(
            calls,
            past,
            duration_s=options.seconds,
            warmup_calls=options.warmup_calls,
            min_queries=options.rounds,
            forms=dict.fromkeys(calls, engine),
        )
    rows = {}
    for size, model in sizes.items():
        ratio = report.ratio("published", size)
        rows[size] = {
            **vars(cost_of(model, options.variates)),
            **report.rows[size].to_dict(),
            "speedup": ratio.value,
            "speedup_interval": [ratio.low, ratio.high],
        }
    return {"rows": rows, "method": report.method, "host": host_record()}


def shrink(teacher: Teacher, ratio: float, round_to: int, less: int) -> Teacher:
    """The first ``ratio`` of the units of every FFN and attention."""
    keep = {}
    for group in teacher.structure().groups:
        count = max(1, round(ratio * group.units))
        if group.kind == "ffn":
            aligned = min(-(-count // round_to) * round_to, group.units)
            keep[group.name] = range(max(1, aligned - less))
        elif group.kind == "head":
            keep[group.name] = range(count)
    return slice_teacher(teacher, keep).eval()


def candidate(model: Teacher, engine: str, folder: Path, past: np.ndarray) -> Callable[[np.ndarray], Any]:
    """The model as the engine runs it."""
    if engine == "eager":
        return torch_candidate(model.eval())
    folder.mkdir()
    target = TARGETS["onnx"]
    shape = Shape(model.variates, model.lookback, model.horizon)
    payload = target.lower_model(model.eval(), shape, folder, options=target.Options(), calibration=past)
    call: Callable[[np.ndarray], Any] = target.load(folder, payload, 1)
    return call


def render(found: dict[str, Any]) -> str:
    """The tables and their methods as Markdown."""
    lines = ["# Speed-up against parameters kept", "", "Random weights at full size; medians.", ""]
    for key, run in found.items():
        published = run["rows"]["published"]["parameters"]
        lines += [
            f"## {key}",
            "",
            "| size | parameters | kept | MACs | median ms | speed-up |",
            "|---|---|---|---|---|---|",
        ]
        for size, row in run["rows"].items():
            low, high = row["speedup_interval"]
            noisy = ", noisy" if row["noisy"] else ""
            lines.append(
                f"| {size} | {row['parameters']:,} | {row['parameters'] / published:.1%} "
                f"| {row['macs'] / 1e6:,.0f} M | {row['median_us'] / 1e3:.2f} "
                f"| {row['speedup']:.2f}x ({low:.2f}-{high:.2f}{noisy}) |"
            )
        lines += ["", f"Method: {run['method']}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
