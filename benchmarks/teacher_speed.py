"""Our own forward passes against the upstream packages: same weights, same outputs, one interleaved run.

    python benchmarks/teacher_speed.py

Each teacher is built at its published size with random weights, which upstream's module then takes over.
Both forecast the same windows first and must agree; then both are timed by the latency rule (context 512,
7 variates, one thread, batch 1).  Upstream runs in its best form that computes the same forecast:

chronos-bolt   chronos-forecasting's model; beyond 64 steps the median is appended, as ours does (the
               pipeline follows nine quantiles instead: nine times the work, other numbers)
moirai         uni2ts as sktime carries it, the analytic mean, without validation of distribution arguments
time-moe       the authors' code as sktime carries it, with its key-value cache: transformers 5 lost a method
               of the cache that this code calls, which is given back here

A pair of calls that takes longer than --slow seconds gets --slow-rounds rounds after one warm-up call:
medians and their ratio, too few calls for percentiles.  Time-MoE is such a pair.

Results go to benchmarks/results/teacher_speed.json, a teacher as soon as it is there; a second call goes on
with the missing ones.  Needs chronos-forecasting and sktime.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import kept
import numpy as np
import torch
from torch import Tensor

from tsfmc.compiler.base.progress import for_stderr
from tsfmc.compiler.frontends import build_teacher, find_card
from tsfmc.compiler.frontends.moirai.moirai1 import Moirai
from tsfmc.compiler.ir.forecaster import Teacher
from tsfmc.targets.measure.host import host_record
from tsfmc.targets.measure.latency import MIN_WINDOWS, Call, measure, torch_candidate

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "teacher_speed.json"
LOOKBACK = 512
COMMON = "fp32, eager, eval, inference_mode, no hidden states"


def chronos_bolt(teacher: Teacher) -> tuple[Callable[[Tensor], Tensor], str]:
    """chronos-forecasting's model along the median path."""
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    fields = {name: value for name, value in teacher.config.items() if name != "tsfmc"}
    model = ChronosBoltModelForForecasting(T5Config(**fields)).eval()
    lost = model.load_state_dict(teacher.state_dict(), strict=False)
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}  # both are shared.weight
    if lost.unexpected_keys or not set(lost.missing_keys) <= tied:
        raise SystemExit(f"upstream's weights are others: {lost}")
    median = model.chronos_config.quantiles.index(0.5)

    def forecast(past: Tensor) -> Tensor:
        context = past.flatten(0, 1)
        while context.shape[1] < past.shape[-1] + teacher.horizon:
            context = torch.cat([context, model(context=context).quantile_preds[:, median]], dim=1)
        ahead = context[:, past.shape[-1] : past.shape[-1] + teacher.horizon]
        return ahead.unflatten(0, past.shape[:2])

    attention = model.config._attn_implementation
    form = f"chronos-forecasting {version('chronos-forecasting')}, {attention} attention, {COMMON}"
    return forecast, form


def moirai(teacher: Teacher) -> tuple[Callable[[Tensor], Tensor], str]:
    """uni2ts in sktime, filled by hand as the tests do it."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from uni2ts_reference import UpstreamMoirai

    torch.distributions.Distribution.set_default_validate_args(False)
    patch = cast(Moirai, teacher).patch_size
    upstream = UpstreamMoirai(teacher, patch)
    form = f"uni2ts in sktime {version('sktime')}, patch {patch}, analytic mean, {COMMON}"
    return upstream.mean, form


def time_moe(teacher: Teacher) -> tuple[Callable[[Tensor], Tensor], str]:
    """The authors' code in sktime, with the README's normalisation of the window."""
    from sktime.libs.timemoe.timemoe import TimeMoeForPrediction
    from sktime.libs.timemoe.timemoe_config import TimeMoeConfig
    from transformers import DynamicCache

    class Cache(DynamicCache):
        """With the method that transformers 5 removed: how many of the cached tokens are usable, all."""

        def get_usable_length(self, new_length: int, layer: int = 0) -> int:
            return self.get_seq_length(layer)

    fields = {name: value for name, value in teacher.config.items() if name not in ("tsfmc", "model_type")}
    # Constructed and filled: from_pretrained of transformers 5 would leave its rotary tables undefined.
    model = TimeMoeForPrediction(TimeMoeConfig(**fields, attn_implementation="eager")).eval()
    model.load_state_dict(teacher.state_dict(), strict=True)

    def forecast(past: Tensor) -> Tensor:
        series = past.flatten(0, 1)
        mean, std = series.mean(dim=-1, keepdim=True), series.std(dim=-1, keepdim=True)
        new, cache, steps = (series - mean) / std, Cache(), []
        while (left := teacher.horizon - sum(part.shape[1] for part in steps)) > 0:
            output = model(
                new[..., None],  # a tensor of its own: this code reshapes its input in place
                past_key_values=cache,
                use_cache=True,
                output_hidden_states=False,
                max_horizon_length=left,
            )
            new = output.logits[:, -1]
            steps.append(new)
        return (torch.cat(steps, dim=-1) * std + mean).unflatten(0, past.shape[:2])

    form = f"Time-MoE in sktime {version('sktime')}, eager attention, key-value cache, {COMMON}"
    return forecast, form


PEERS = {"chronos-bolt": chronos_bolt, "moirai": moirai, "time-moe": time_moe}


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument(
        "--teachers", nargs="+", default=["chronos-bolt-small", "moirai-small", "time-moe-50m"]
    )
    parser.add_argument("--variates", type=int, default=7)
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=60.0, help="per teacher; at least 64 rounds")
    parser.add_argument("--warmup-calls", type=int, default=50)
    parser.add_argument("--slow", type=float, default=5.0, help="seconds of a pair of calls")
    parser.add_argument("--slow-rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = kept.read(options.results)
    torch.set_num_threads(1)
    for name in options.teachers:
        key = f"{name}, H {options.horizon}, D {options.variates}"
        if key not in found:
            found[key] = one(options, name)
            kept.write(options.results, found)
    print(render(found))


def one(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """One teacher and its upstream: agreement, then latency."""
    progress = for_stderr()
    progress.line(name)
    card = find_card(name)
    if card.config is None or card.family not in PEERS:
        raise SystemExit(f"{name} has no peer here, only published sizes of {', '.join(PEERS)}")
    torch.manual_seed(0)
    teacher = build_teacher(
        card.config, lookback=LOOKBACK, horizon=options.horizon, variates=options.variates
    )
    drawn = np.random.default_rng(0).standard_normal((MIN_WINDOWS, options.variates, LOOKBACK))
    past = drawn.cumsum(axis=-1).astype(np.float32)
    upstream, form = PEERS[card.family](teacher)
    calls: dict[str, Call] = {"ours": torch_candidate(teacher), "upstream": torch_candidate(upstream)}  # type: ignore[arg-type]
    began = time.perf_counter()
    agreement = agree(calls, past[:1])
    slow = time.perf_counter() - began > options.slow
    progress.line(f"    outputs differ by {agreement['difference']:.1e} of {agreement['limit']:.1e} allowed")
    few: dict[str, Any] = {
        "duration_s": 0.0,
        "warmup_calls": 1,
        "min_queries": options.slow_rounds,
    }
    many = {"duration_s": options.seconds, "warmup_calls": options.warmup_calls}
    forms = {"ours": f"tsfmc, {COMMON}", "upstream": form}
    report = measure(calls, past, forms=forms, **(few if slow else many))
    ratio = report.ratio("upstream", "ours")
    return {
        "rows": {side: row.to_dict() for side, row in report.rows.items()},
        "speedup": ratio.value,
        "speedup_interval": [ratio.low, ratio.high],
        "agreement": agreement,
        "method": f"{report.method}, random weights at full size",
        "host": host_record(),
    }


def agree(calls: dict[str, Call], past: np.ndarray) -> dict[str, float]:
    """The rule of the tests' stored vectors: within 1e-4 standard deviations of the forecast plus 1e-5.

    Raises:
        SystemExit: the two compute something else, so that their times say nothing.
    """
    ours, upstream = calls["ours"](past), calls["upstream"](past)
    difference = float(np.abs(ours - upstream).max())
    limit = 1e-4 * float(upstream.std()) + 1e-5
    if not difference <= limit:  # also where something is not a number
        raise SystemExit(f"outputs differ by {difference}, allowed are {limit}")
    return {"difference": difference, "limit": limit}


def render(found: dict[str, Any]) -> str:
    """The table, and how it was measured."""
    lines = ["| teacher | ours ms | upstream ms | upstream / ours |", "|---|---|---|---|"]
    for key, run in found.items():
        ours, upstream = (run["rows"][side] for side in ("ours", "upstream"))
        low, high = run["speedup_interval"]
        noisy = ", noisy" if ours["noisy"] or upstream["noisy"] else ""
        lines.append(
            f"| {key} | {ours['median_us'] / 1e3:.1f} | {upstream['median_us'] / 1e3:.1f} "
            f"| {run['speedup']:.2f}x ({low:.2f}-{high:.2f}{noisy}) |"
        )
    lines.append("")
    for key, run in found.items():
        lines += [f"{key}: {run['method']}; upstream: {run['rows']['upstream']['form']}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
