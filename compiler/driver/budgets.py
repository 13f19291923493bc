"""Gates of a recipe: what an artifact must reach.  A missed one is exit code 4; the artifact stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...targets.measure.latency import SCENARIOS
from ..base.errors import BudgetError, RecipeError
from ..data.synthetic_data import SYNTHETIC
from .recipe import BudgetSection, Recipe
from .verdict import signed

NOISY_LINE = "the measurement is noisy, which passes no gate unless it is allowed to (allow_noisy)"

RIVALS = {
    "max_mse_over_supervised": ("supervised", "the student without the teacher"),
    "max_mse_over_teacher": ("teacher", "the teacher"),
    "max_mse_over_naive": ("seasonal_naive", "repeating the last season"),
}
"""Budget -> the row that the test MSE is judged against, and its name in words."""


QUANTILE_BUDGETS = ("min_coverage", "max_wql_increase")


def check_judgeable(recipe: Recipe) -> None:
    """Refuses, before anything long starts, a budget against a row that the recipe leaves out.

    Raises:
        RecipeError: naming the budget and what it needs.
    """
    given = [name for name in RIVALS if getattr(recipe.budget, name) is not None]
    if given and recipe.data == SYNTHETIC:
        raise RecipeError(
            f"budget.{given[0]}: nothing is measured on synthetic windows", hint="leave it out, or give data"
        )
    asked = [name for name in QUANTILE_BUDGETS if getattr(recipe.budget, name) is not None]
    if asked and not recipe.task.quantiles:
        raise RecipeError(
            f"budget.{asked[0]}: there are no quantiles to judge", hint="ask for them with --quantiles"
        )
    if recipe.budget.max_mse_over_supervised is not None and not recipe.baseline:
        raise RecipeError(
            f"budget.max_mse_over_supervised: there is no row of {RIVALS['max_mse_over_supervised'][1]}",
            hint="leave --no-baseline out (baseline = true); there is none for --student none",
        )


def check_budgets(
    budget: BudgetSection, manifests: Mapping[str, Mapping[str, Any]], result: object = None
) -> None:
    """Judges every artifact of a compile, after all of them are in place.

    Args:
        result: of the compile, handed on with the error.

    Raises:
        BudgetError: naming every missed budget, the value found and the value allowed.
    """
    missed = [f"{kind}: {line}" for kind, manifest in manifests.items() for line in _missed(budget, manifest)]
    if missed:
        hint = "the artifacts are in place; see tsfmc inspect"
        raise BudgetError("; ".join(missed), hint=hint, result=result)


def _missed(budget: BudgetSection, manifest: Mapping[str, Any]) -> Iterator[str]:
    yield from _missed_accuracy(budget, manifest["accuracy"])
    yield from _missed_quantiles(budget, manifest["accuracy"].get("quantiles"))
    latency = manifest.get("latency") or {}
    for name in SCENARIOS if budget.scenario == "both" else (budget.scenario,):
        for line in missed_latency(
            latency.get("scenarios", {}).get(name, {}),
            min_speedup=budget.min_speedup,
            max_p90_us=budget.max_p90_us,
            allow_noisy=budget.allow_noisy,
        ):
            yield f"{name}: {line}"
    size = manifest["size"]["payload_bytes"]
    if budget.max_payload_bytes is not None and size > budget.max_payload_bytes:
        yield f"payload {size} bytes, budget {budget.max_payload_bytes}"


def _missed_quantiles(budget: BudgetSection, part: Mapping[str, Any] | None) -> Iterator[str]:
    for name in QUANTILE_BUDGETS:
        if getattr(budget, name) is not None and part is None:
            yield f"{name} cannot be judged, the quantiles were not evaluated here"
    if part is None:
        return
    mine = part["test"].get("student", part["test"].get("model"))
    if budget.min_coverage is not None and mine["coverage"] < budget.min_coverage:
        found, nominal = f"coverage {mine['coverage']:.1%}", f"{mine['nominal']:.0%}"
        yield f"{found} where {nominal} was asked for, min_coverage {budget.min_coverage:.1%}"
    rival = "teacher" if "teacher" in part["comparisons"] else "empirical_residuals"
    against = part["comparisons"].get(rival)
    allowed = budget.max_wql_increase
    if allowed is not None and against is not None and against["relative"] > allowed:
        words = "the teacher's quantiles" if rival == "teacher" else "the quantiles of its residuals"
        figures = signed(against["relative"], against["relative_interval"])
        yield f"test WQL {figures} over {words}, max_wql_increase {allowed:+.1%}"


def missed_latency(
    record: Mapping[str, Any], *, min_speedup: float | None, max_p90_us: float | None, allow_noisy: bool
) -> Iterator[str]:
    """What one scenario's record misses, a line each.

    Of the speed-up the lower end of its interval is judged; a noisy record passes nothing unless it may.
    """
    if min_speedup is None and max_p90_us is None:
        return
    if min_speedup is not None:
        if "speedup" not in record:
            yield "min_speedup cannot be judged, artifact and teacher were not both run here"
        elif record["speedup_interval"][0] < min_speedup:
            low, high = record["speedup_interval"]
            yield (
                f"speed-up {record['speedup']:.2f}x [{low:.2f}, {high:.2f}], "
                f"its lower end must be at least {min_speedup:g}x"
            )
    if max_p90_us is not None:
        p90 = record.get("artifact", {}).get("p90_us")
        if p90 is None:
            yield "max_p90_us cannot be judged, the program was not run here, or too few times"
        elif p90 > max_p90_us:
            yield f"p90 {p90:.1f} us, budget {max_p90_us:g} us"
    if record.get("noisy") and not allow_noisy:
        yield NOISY_LINE


def _missed_accuracy(budget: BudgetSection, accuracy: Mapping[str, Any]) -> Iterator[str]:
    for name, (row, words) in RIVALS.items():
        allowed = getattr(budget, name)
        if allowed is None:
            continue
        if "student" not in accuracy["test"]:
            why = accuracy.get("unmeasured", "the program was not evaluated here")
            yield f"{name} cannot be judged, {why}"
        elif row not in accuracy["comparisons"]:
            hint = " (--baseline trains it)" if row == "supervised" else ""
            yield f"{name} cannot be judged, there is no row of {words}{hint}"
        elif (found := accuracy["comparisons"][row])["relative"] > allowed:
            figures = signed(found["relative"], found["relative_interval"])
            yield f"test MSE {figures} over {words}, {name} {allowed:+.1%}"
