"""Gates: each is judged, on the point estimate, with figures, and none passes because a row is missing."""

from __future__ import annotations

from typing import Any

import pytest

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import BudgetError, RecipeError
from tsfmc.compiler.driver.budgets import check_budgets, check_judgeable
from tsfmc.compiler.driver.recipe import BudgetSection, resolve


def manifest(**relative: float) -> dict[str, Any]:
    """A manifest whose artifact differs from these rows by so much, give or take 2 %."""
    comparisons = {
        name: {"relative": value, "relative_interval": [value - 0.02, value + 0.02]}
        for name, value in relative.items()
    }
    test = {"student": {"mse": 1.0}, **{name: {"mse": 1 / (1 + value)} for name, value in relative.items()}}
    return {"accuracy": {"test": test, "comparisons": comparisons}, "size": {"payload_bytes": 100}}


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("max_mse_over_supervised", "supervised", "the student without the teacher"),
        ("max_mse_over_teacher", "teacher", "the teacher"),
        ("max_mse_over_naive", "seasonal_naive", "repeating the last season"),
    ],
)
def test_each_row_has_a_budget(name: str, row: str, words: str) -> None:
    budget = BudgetSection.model_validate({name: "3%"})
    # The interval of the first reaches over the budget, that of the second below it: the point decides.
    check_budgets(
        budget, {"onnx": manifest(supervised=9, teacher=9, seasonal_naive=9) | manifest(**{row: 0.029})}
    )
    with pytest.raises(BudgetError) as missed:
        check_budgets(budget, {"onnx": manifest(**{row: 0.031})})
    assert missed.value.exit_code == 4
    assert missed.value.what == f"onnx: test MSE +3.1 % [+1.1, +5.1] over {words}, {name} +3.0%"


def test_a_negative_budget_asks_for_a_gain() -> None:
    budget = BudgetSection.model_validate({"max_mse_over_naive": "-10%"})
    check_budgets(budget, {"onnx": manifest(seasonal_naive=-0.2)})
    with pytest.raises(BudgetError, match=r"-5\.0 % .*max_mse_over_naive -10\.0%"):
        check_budgets(budget, {"onnx": manifest(seasonal_naive=-0.05)})


def test_a_missing_row_misses_the_budget() -> None:
    budget = BudgetSection.model_validate({"max_mse_over_supervised": 0.1})
    with pytest.raises(BudgetError, match=r"there is no row of .* \(--baseline trains it\)"):
        check_budgets(budget, {"onnx": manifest(teacher=0.0)})
    not_run = manifest(supervised=0.0)
    not_run["accuracy"]["test"]["model"] = not_run["accuracy"]["test"].pop("student")
    with pytest.raises(BudgetError, match="the program was not evaluated here"):
        check_budgets(budget, {"tvm": not_run})


def test_every_missed_budget_is_named() -> None:
    budget = BudgetSection.model_validate(
        {"max_mse_over_teacher": 0, "max_mse_over_naive": 0.5, "max_payload_bytes": 10}
    )
    with pytest.raises(BudgetError) as missed:
        check_budgets(
            budget,
            {
                "onnx": manifest(teacher=0.1, seasonal_naive=0.1),
                "tvm": manifest(teacher=-0.1, seasonal_naive=0),
            },
        )
    assert (
        missed.value.what.count("payload 100 bytes") == 2 and missed.value.what.count("over the teacher") == 1
    )
    assert "last season" not in missed.value.what


def test_names_and_percentages() -> None:
    recipe = resolve(settings=["budget.max_mse_increase=5%", "budget.max_mse_over_naive=-0.1"])
    assert recipe.budget.max_mse_over_teacher == pytest.approx(0.05)
    assert recipe.budget.max_mse_over_naive == -0.1
    assert "max_mse_over_teacher = 0.05" in recipe.to_toml()
    with pytest.raises(RecipeError, match="old name of max_mse_over_teacher"):
        resolve(settings=["budget.max_mse_increase=5%", "budget.max_mse_over_teacher=5%"])
    with pytest.raises(
        RecipeError, match=r"max_mse_over_supervised.*'five'.*expected a number or a percentage"
    ):
        resolve(settings=["budget.max_mse_over_supervised=five"])
    with pytest.raises(RecipeError, match="max_mse_over_naive"):
        resolve(settings=["budget.max_mse_over_naive=nan"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["baseline=false", "budget.max_mse_over_supervised=0"], "there is no row of the student without"),
        (["student.kind=none", "budget.max_mse_over_supervised=0"], "there is no row of the student without"),
        (["data=synthetic", "budget.max_mse_over_naive=0"], "max_mse_over_naive: nothing is measured"),
    ],
)
def test_what_nothing_could_judge_is_refused_at_the_start(settings: list[str], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        api.plan(resolve(settings=settings))


@pytest.mark.parametrize("budget", ["max_mse_over_naive", "max_mse_over_teacher", "max_p90_us"])
def test_other_budgets_need_no_baseline(budget: str) -> None:
    check_judgeable(resolve(settings=["baseline=false", f"budget.{budget}=1"]))
