"""The readable part of a selection: the best of each form, and what was chosen, in words."""

from __future__ import annotations

from typing import Any

from tsfmc.compiler.driver.choice import (
    better_lines,
    candidate_table,
    choice_lines,
    mix_lines,
    remarkable,
    setting_words,
)


def row(form: str, rank: int, weight: float | str, ratio: float, **more: Any) -> dict[str, Any]:
    return {
        "form": form, "rank": rank, "ridge": 100.0, "lambda": weight, "tau": 0.0, "parameters": 1000 + rank,
        "macs": 500, "log_ratio": ratio, "standard_error": 0.01, "near_best": False,
        "mse": {"block 2": 1.0, "validation": 2.0}, **more,
    }  # fmt: skip


ROWS = [
    row("shared", 0, 0.0, 0.0),
    row("shared", 0, 1.0, -0.03, near_best=True, tau=1.0),
    row("shared", 0, 2.0, -0.02, chosen=True, pooling=0.3),
    row("low-rank", 8, 0.0, -0.01),
    row("low-rank", 24, 0.25, -0.05, near_best=True),
    row("per-variate", 0, "inf", 0.02),
]


def test_the_best_of_each_form_and_the_best_without_a_teacher() -> None:
    assert remarkable(ROWS) == [ROWS[4], ROWS[1], ROWS[2], ROWS[3], ROWS[5]]


def test_the_best_is_not_listed_twice() -> None:
    assert remarkable([row("shared", 0, 0.0, -0.1), row("shared", 0, 1.0, 0.0)]) == [
        row("shared", 0, 0.0, -0.1)
    ]


def test_the_table_gives_the_figures() -> None:
    title, heads, first, _, chosen, *_ = candidate_table(ROWS)
    assert title.endswith("2 blocks")
    columns = "candidate lambda tau ridge pooling prior MSE parameters MACs/variate bytes"
    assert heads.split() == columns.split()
    # exp(-0.05) - 1 = -4.9 %, exp(-0.02) - 1 = -2.0 %
    assert " ".join(first.split()) == "low rank 24 0.25 0 100 0 0 -4.9 % +- 1.0 1,024 500 4,096"
    assert (
        " ".join(chosen.split()) == "* one map for all variates 2 0 100 0.3 0 -2.0 % +- 1.0 1,000 500 4,000"
    )


def test_words() -> None:
    assert (
        setting_words(ROWS[1]) == "one map for all variates, teacher's weight 1 (tau 1), ridge of 100 windows"
    )
    assert setting_words(ROWS[3]) == "low rank 8, no teacher, ridge of 100 windows"
    assert setting_words(ROWS[5]) == "one map each, the teacher alone, ridge of 100 windows"
    aligned = row("low-rank", 8, 0.0, -0.06, align=0.5)
    assert setting_words(aligned).startswith("low rank 8, basis shaped by states of weight 0.5, no teacher")
    assert ROWS[3] in remarkable([*ROWS, aligned])  # states are a teacher's
    blended = row("low-rank", 24, 0.74662, -0.05, tau=0.47059, ridge=50.812)
    assert setting_words(blended) == "low rank 24, teacher's weight 0.747 (tau 0.471), ridge of 50.8 windows"


def test_lines_of_a_manifest() -> None:
    metrics = {
        "maps": "shared", "rank": 0, "lambda": 0.5, "tau": 0.0, "ridge": 1000.0, "near_best": 2,
        "selection": ROWS, "warnings": ["few windows"],
    }  # fmt: skip
    lines = choice_lines([{"metrics": {}}, {"metrics": metrics}])
    assert lines[:3] == [
        "chosen     one map for all variates, teacher's weight 0.5, ridge of 1000 windows",
        "           the smallest of 2 near-best of 6 candidates",
        "warning    few windows",
    ]
    assert len(lines) == 3 + 1 + 2 + 5
    assert choice_lines([{"metrics": {"windows": 3}}]) == []


def test_what_the_next_better_one_would_cost() -> None:
    small = row("low-rank", 7, 0.0, -0.05, judgement=-0.05, chosen=True, macs=100)
    rows = [
        small,
        row("low-rank", 31, 1.0, -0.07, judgement=-0.06, macs=450),
        row("shared", 0, 0.0, 0.1, macs=9),
    ]
    (line,) = better_lines(rows)
    assert line.strip() == (
        "the best, low rank 31, would lower the error by another 1.00 % at 4.5x the multiply-adds"
    )
    assert better_lines([small, row("shared", 0, 0.0, 0.1, judgement=0.1)]) == []
    metrics = {**small, "maps": "low-rank", "near_best": 1, "selection": [small]}
    lines = choice_lines([{"metrics": metrics}, {"metrics": {"in_words": "the branch lowers nothing"}}])
    assert lines[-1] == "branch     the branch lowers nothing"


def test_which_teachers_and_what_each_mix_was_judged_to_bring() -> None:
    def mix(ratio: float, chosen: bool = False, **teachers: float) -> dict[str, Any]:
        what = {"teachers": teachers, "lambda": "inf", "tau": 1.0, "standard_error": 0.01}
        return {**what, "log_ratio": ratio, "chosen": chosen}

    mixes = [mix(-0.01, teacher=1.0), mix(-0.03, True, teacher=0.75, other=0.25)]
    lines = mix_lines({"mixes": mixes, "teachers": {"teacher": 0.75, "other": 0.25}}, "ttm")
    assert lines == [
        "teachers   ttm 0.75 + other 0.25",
        "           each mix with one shared map, MSE against no teacher:",
        "           * ttm 0.75 + other 0.25: -3.0 % +- 1.0, lambda inf, tau 1",
        "             ttm: -1.0 % +- 1.0, lambda inf, tau 1",
    ]
    assert mix_lines({"mixes": mixes, "teachers": {}}, "ttm")[0] == "teachers   none: lambda 0 was chosen"
    both = [mix(-0.01, True, teacher=1.0), mix(0.01, tuned=1.0)]
    lines = mix_lines({"mixes": both, "teachers": {"teacher": 1.0}}, "ttm")
    assert lines[0] == "teachers   ttm as loaded" and "ttm tuned: +1.0 %" in lines[3]
    assert mix_lines({"teachers": {"teacher": 0.5, "other": 0.5}}, "ttm") == [
        "teachers   ttm 0.5 + other 0.5"
    ]
    assert mix_lines({"teachers": {"teacher": 1.0}}, "ttm") == []
