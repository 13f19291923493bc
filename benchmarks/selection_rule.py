"""How should rolling origins be read?  Rules of choice, judged on folds that they have not seen.

    TSFMC_DATA=FOLDER python benchmarks/selection_rule.py --teacher DIR --data ETTh1 ETTh2 ETTm1 weather

Every candidate has a log ratio to the plain student on every fold (blocks of training, and validation).  A
rule chooses from some folds and is judged on another: `out`, from all but one, judged on that one; `next`,
from the first k (three and more), judged on fold k + 1, as in life.  Nothing here reads a test split.

    centre    mean, mean without the largest and the smallest, or median over the folds
    charge    standard errors of its gain over the best candidate without a teacher that one with a teacher
              is charged
    tie       candidates as close as this to the best, and within a standard error, count as good; the one
              with the fewest multiply-adds is taken
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
CHARGES = (0.0, 0.25, 0.5, 0.75, 1.0, 2.0, float("inf"))
FIRST_FOLDS = 3
HOWS = ("out", "next")


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
    """Mean log ratios ``[out, next]`` of every rule on the folds that it has not seen."""
    size = [(each.macs(512, 96), each.parameters(variates, 512, 96)) for each in settings]
    taught = torch.tensor([each.taught for each in settings])
    folds = ratios.shape[1]
    found: dict[str, Any] = {}
    for name, centre in CENTRES.items():
        for charge in CHARGES:
            for tie in TIES if charge in (0.0, 0.5) else (0.002,):

                def choose(seen: Tensor) -> int:
                    return chosen(seen, taught, size, centre, charge, tie)  # noqa: B023

                out = [
                    float(ratios[choose(torch.cat([ratios[:, :at], ratios[:, at + 1 :]], dim=1)), at])
                    for at in range(folds)
                ]
                ahead = [float(ratios[choose(ratios[:, :at]), at]) for at in range(FIRST_FOLDS, folds)]
                means = [round(sum(values) / len(values), 5) for values in (out, ahead)]
                found[f"{name}, charge {charge:g}, tie {tie:g}"] = means
    return found


def chosen(
    ratios: Tensor,
    taught: Tensor,
    size: list[tuple[int, int]],
    centre: Callable[[Tensor], Tensor],
    charge: float,
    tie: float,
) -> int:
    """The place of the candidate that a rule takes."""
    middle = centre(ratios)
    alone = int(middle.where(~taught, torch.inf).argmin())
    if charge == torch.inf:
        scores = middle.where(~taught, torch.inf)
    else:
        scores = middle + charge * _errors(ratios - ratios[alone]) * taught
    best = int(scores.argmin())
    limits = _errors(ratios - ratios[best]).clamp(max=tie)
    close = (scores - scores[best] <= limits).nonzero().flatten().tolist()
    return min(close, key=lambda at: (*size[at], float(scores[at])))


def _errors(gaps: Tensor) -> Tensor:
    return gaps.std(1) / gaps.shape[1] ** 0.5


def render(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    said = (__doc__ or "").split("\n\n")
    lines = ["# How to read rolling origins", "", said[2].replace("\n", " "), ""]
    lines += ["    " + line.strip() for line in said[3].splitlines()]
    lines += ["", "Mean log ratio to the plain student on folds not seen, per cent; lower is better.", ""]
    lines += ["| rule | " + " | ".join(f"{data} {how}" for data in found for how in HOWS) + " | sum |"]
    lines += ["|---" * (2 * len(found) + 2) + "|"]
    for key in next(iter(found.values())):
        values = [100 * value for row in found.values() for value in row[key]]
        lines.append(
            f"| {key} | " + " | ".join(f"{value:.2f}" for value in values) + f" | {sum(values):.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
