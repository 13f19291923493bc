"""Does the score rank units as their true ablation does?  Spearman correlations on trained models.

    python benchmarks/score_correlation.py --ttm DIR_OF_TTM_R2_512_96 --data ETTh1

    true       L(m - e_i) - L(m)                                over --windows training windows, evenly spread
    order 1    -mean_n g                                        paper A, same windows
    order 2    -mean_n g + 1/2 mean_n g^2
    random     a uniform number a unit, the largest |rho| of 20 draws

for --units units drawn evenly from all groups.  "signed" compares the score with the change of the loss,
"absolute" |score| with |change|, which is what is ranked.  TTM has its published weights; the others have
none here, so small ones of the true architecture are trained on the same data first.

Prints the table and writes benchmarks/results/score_correlation.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import kept
import torch
from torch import Tensor

from tsfmc.compiler.base.progress import for_stderr
from tsfmc.compiler.data import load_data
from tsfmc.compiler.data.dataset import SpreadWindows
from tsfmc.compiler.frontends import build_teacher, load_teacher
from tsfmc.compiler.ir.forecaster import Teacher
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit, Task
from tsfmc.passes.finetune import Finetune
from tsfmc.passes.scores import batch_score, mask_derivatives, sample_losses
from tsfmc.passes.surgery import mask_units

RESULTS = Path(__file__).parent / "results" / "score_correlation.json"
LOOKBACK, HORIZON, BATCH = 512, 96, 32

SMALL: dict[str, dict[str, Any]] = {
    "chronos-bolt": {
        "architectures": ["ChronosBoltModelForForecasting"],
        "chronos_config": {
            "context_length": 512,
            "input_patch_size": 16,
            "input_patch_stride": 16,
            "prediction_length": 96,
            "quantiles": [0.1, 0.5, 0.9],
            "use_reg_token": True,
        },
        "model_type": "t5",
        "d_model": 64,
        "d_ff": 128,
        "d_kv": 16,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "dense_act_fn": "relu",
        "is_gated_act": False,
    },
    "timer": {
        "model_type": "timer",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "input_token_len": 32,
        "output_token_lens": [96],
    },
}


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--ttm", required=True)
    parser.add_argument("--data", default="ETTh1")
    parser.add_argument("--families", nargs="+", default=["ttm", *SMALL])
    parser.add_argument("--units", type=int, default=200)
    parser.add_argument("--windows", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3, help="of training the small models")
    parser.add_argument("--train-windows", type=int, default=4096)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = kept.read(options.results)
    for family in options.families:
        key = f"{family}/{options.data}/{options.units} units/{options.windows} windows"
        if key not in found:
            found[key] = correlate(options, family)
            kept.write(options.results, found)
    print("| model | order 1 | order 2 | abs order 1 | abs order 2 | random |")
    print("|---|---|---|---|---|---|")
    for key, row in found.items():
        names = ("order 1 signed", "order 2 signed", "order 1 absolute", "order 2 absolute", "random")
        print(f"| {key} | " + " | ".join(f"{row[name]:.3f}" for name in names) + " |")


def correlate(options: argparse.Namespace, family: str) -> dict[str, float]:
    """All correlations of one trained model."""
    torch.manual_seed(0)
    data = load_data(options.data, lookback=LOOKBACK, horizon=HORIZON)
    task = {"lookback": LOOKBACK, "horizon": HORIZON, "variates": len(data.variates)}
    if family == "ttm":
        teacher = load_teacher(options.ttm, **task)
    else:
        unit = CompileUnit(
            Task(LOOKBACK, HORIZON, data.variates, data.frequency),
            data,
            teacher=build_teacher(SMALL[family], **task),
        )
        step = Finetune(
            epochs=options.epochs,
            learning_rates=(1e-3,),
            patience=options.epochs,
            train_windows=options.train_windows,
            validation_windows=512,
        )
        with tempfile.TemporaryDirectory() as folder:
            trained = step.run(unit, PassContext(0, Path(folder), for_stderr())).unit.teacher
        if trained is None or trained is unit.teacher:
            raise SystemExit(f"{family}: training did not improve the model")
        teacher = trained
    windows = SpreadWindows(data.windows("train", LOOKBACK, HORIZON), options.windows)
    batches = [
        windows.batch(range(start, min(start + BATCH, len(windows))))
        for start in range(0, len(windows), BATCH)
    ]
    return {"units": float(options.units), **ranks(teacher, batches, options.units, family)}


def ranks(teacher: Teacher, batches: list[tuple[Tensor, Tensor]], units: int, title: str) -> dict[str, float]:
    """Spearman correlations of scores and true ablations."""
    teacher.requires_grad_(False)
    groups = teacher.structure().groups
    parts = [mask_derivatives(teacher, past, target, groups) for past, target in batches]
    samples = {group.name: torch.cat([part[0][group.name] for part in parts]) for group in groups}
    base = torch.cat([part[1] for part in parts]).mean()
    every = [(group, unit) for group in groups for unit in range(group.units)]
    chosen = [every[int(at)] for at in torch.linspace(0, len(every) - 1, min(units, len(every)))]
    true: list[Tensor] = []
    with for_stderr().task(f"{title}: true ablations", len(chosen)) as task:
        for group, unit in chosen:
            mask = torch.ones(group.units)
            mask[unit] = 0
            with torch.inference_mode(), mask_units(teacher, group, mask):
                losses = torch.cat([sample_losses(teacher(past), target) for past, target in batches])
            true.append(losses.mean() - base)
            task.advance()
    ablation = torch.stack(true)
    row: dict[str, float] = {}
    for order in (1, 2):
        whole = {name: batch_score(sample, order) for name, sample in samples.items()}
        score = torch.stack([whole[group.name][unit] for group, unit in chosen])
        row[f"order {order} signed"] = spearman(score, ablation)
        row[f"order {order} absolute"] = spearman(score.abs(), ablation.abs())
    generator = torch.Generator().manual_seed(0)
    draws = (torch.rand(len(chosen), generator=generator) for _ in range(20))
    row["random"] = max(abs(spearman(draw, ablation)) for draw in draws)
    return row


def spearman(one: Tensor, other: Tensor) -> float:
    """Rank correlation."""
    order = torch.stack([one.argsort().argsort(), other.argsort().argsort()]).double()
    return float(torch.corrcoef(order)[0, 1])


if __name__ == "__main__":
    main()
