"""How should rolling origins be read?  Rules of choice, judged by leaving out one fold at a time.

    TSFMC_DATA=FOLDER python benchmarks/selection_rule.py --teacher DIR --data ETTh1 ETTh2 ETTm1 weather

Every candidate has a log ratio to the plain student on every fold (blocks of training, and validation).  A
rule chooses from all folds but one, and is judged on the one left out.  Nothing here reads a test split.

    centre    mean, mean without the largest and the smallest, or median over the folds
    tie       candidates as close as this to the best, and within a standard error, count as good; the one
              with the fewest multiply-adds is taken
    average   in the place of one setting, the frequency with which each setting of the chosen form and rank
              wins when folds are drawn again (the error of the average is at most the average of errors)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kept
import torch
from torch import Tensor

from tsfmc.compiler import api
from tsfmc.compiler.base.progress import for_stderr
from tsfmc.compiler.learning.affine import Setting
from tsfmc.compiler.learning.grid import PLAIN, Grid
from tsfmc.compiler.learning.judging import judge
from tsfmc.compiler.learning.rolling_origin import log_ratios
from tsfmc.compiler.learning.statistics import WindowStatistics

RESULTS = Path(__file__).parent / "results" / "selection_rule.json"
CENTRES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda rows: rows.mean(1),
    "trimmed mean": lambda rows: rows.sort(1).values[:, 1:-1].mean(1),
    "median": lambda rows: rows.median(1).values,
}
TIES = (0.0, 0.001, 0.002, 0.003, float("inf"))
DRAWS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", nargs="+", default=["ETTh1", "ETTh2", "ETTm1", "weather"])
    options = parser.parse_args()
    found = kept.read(RESULTS)
    for data in options.data:
        found[data] = rules(*candidates(options.teacher, data))
        kept.write(RESULTS, found)
    table = render(found)
    RESULTS.with_suffix(".md").write_text(table)
    print(table)


def candidates(teacher: str, data: str) -> tuple[list[Setting], Tensor, int]:
    """The settings, their log ratios ``[candidates, folds]``, and the number of variates."""
    recipe = api.make_recipe(teacher=teacher, data=data)
    unit = api.transform(recipe, stop_after="gather_statistics", progress=for_stderr())
    statistics = unit.statistics
    assert isinstance(statistics, WindowStatistics)
    grid = Grid(mixes=((("teacher", 1.0),),))
    errors: dict[Setting, list[float]] = {}
    for fold in statistics.folds():
        for setting, error in judge(fold, grid).items():
            errors.setdefault(setting, []).append(error)
    ratios = log_ratios(errors, errors[PLAIN])
    return list(ratios), torch.stack(list(ratios.values())), len(unit.task.variates)


def rules(settings: list[Setting], ratios: Tensor, variates: int) -> dict[str, Any]:
    """Mean log ratio of every rule on the folds that it has not seen."""
    size = [(each.macs(512, 96), each.parameters(variates, 512, 96)) for each in settings]
    found: dict[str, Any] = {}
    for name, centre in CENTRES.items():
        for tie in TIES:
            for averaged in (False, True):
                left_out = []
                for fold in range(ratios.shape[1]):
                    seen = torch.cat([ratios[:, :fold], ratios[:, fold + 1 :]], dim=1)
                    weights = choose(settings, seen, size, centre, tie, averaged)
                    left_out.append(sum(weight * float(ratios[at, fold]) for at, weight in weights.items()))
                key = f"{name}, tie {tie:g}{', averaged' if averaged else ''}"
                found[key] = round(sum(left_out) / len(left_out), 5)
    return found


def choose(
    settings: list[Setting],
    ratios: Tensor,
    size: list[tuple[int, int]],
    centre: Callable[[Tensor], Tensor],
    tie: float,
    averaged: bool,
) -> dict[int, float]:
    """Weight of each chosen candidate, by its place."""
    middle = centre(ratios)
    best = int(middle.argmin())
    gaps = ratios - ratios[best]
    error = gaps.std(1) / gaps.shape[1] ** 0.5
    close = (centre(gaps) <= torch.clamp(error, max=tie)).nonzero().flatten().tolist()
    chosen = min({best, *close}, key=lambda at: (*size[at], float(middle[at])))
    if not averaged:
        return {chosen: 1.0}
    form = settings[chosen].form, settings[chosen].rank, settings[chosen].pooling
    group = [at for at, each in enumerate(settings) if (each.form, each.rank, each.pooling) == form]
    generator = torch.Generator().manual_seed(0)
    draws = -torch.log(torch.rand(DRAWS, ratios.shape[1], generator=generator, dtype=torch.float64))
    winners = torch.bincount((ratios[group] @ draws.T).argmin(0), minlength=len(group)) / DRAWS
    return {at: float(share) for at, share in zip(group, winners, strict=True) if share > 0}


def render(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = ["# How to read rolling origins", "", (__doc__ or "").split("\n\n")[2].replace("\n", " "), ""]
    lines += ["Mean log ratio to the plain student on the fold left out, per cent; lower is better.", ""]
    lines += ["| rule | " + " | ".join(found) + " | sum |", "|---" * (len(found) + 2) + "|"]
    for key in next(iter(found.values())):
        values = [100 * row[key] for row in found.values()]
        lines.append(
            f"| {key} | " + " | ".join(f"{value:.2f}" for value in values) + f" | {sum(values):.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
