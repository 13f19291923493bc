"""``add_prior``: the teacher's labels of synthetic windows, where training is short."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from factory import HORIZON, LOOKBACK

from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.data import synthetic_windows
from tsfmc.compiler.data.splits import Splits
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.statistics import WindowStatistics
from tsfmc.passes.add_prior import AddPrior
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.gather_statistics import GatherStatistics
from tsfmc.passes.solve_affine import SolveAffine

CONTEXT = PassContext()


@pytest.fixture
def gathered(taught: CompileUnit) -> CompileUnit:
    return GatherStatistics().run(taught, CONTEXT).unit


def test_adds_the_sums_of_labelled_windows(gathered: CompileUnit) -> None:
    result = AddPrior(windows=60).run(gathered, CONTEXT)
    statistics, before = result.unit.statistics, gathered.statistics
    assert isinstance(statistics, WindowStatistics) and isinstance(before, WindowStatistics)
    assert result.modified and before.prior is None and statistics.prior is not None
    assert statistics.key != before.key
    # The same windows through the teacher, three variates at a time, and plain products in float64.
    drawn = synthetic_windows(60, LOOKBACK, 0, step=gathered.task.frequency)
    past = torch.from_numpy(drawn).float().reshape(20, 3, LOOKBACK)
    assert gathered.teacher is not None
    with torch.inference_mode():
        labels = gathered.teacher.outputs(past).forecast.double().reshape(60, HORIZON)
    x = past.double().reshape(60, LOOKBACK)
    mean = x.mean(1, keepdim=True)
    assert torch.allclose(statistics.prior.gram[0], (x - mean).T @ (x - mean))
    assert torch.allclose(statistics.prior.cross["teacher"][0], (x - mean).T @ (labels - mean), rtol=1e-5)
    assert statistics.prior.count == 60


def test_labels_are_computed_once(gathered: CompileUnit, monkeypatch: pytest.MonkeyPatch) -> None:
    first = AddPrior(windows=30).run(gathered, CONTEXT).unit.statistics
    assert gathered.teacher is not None
    monkeypatch.setattr(gathered.teacher, "outputs", None)
    second = AddPrior(windows=30).run(gathered, CONTEXT).unit.statistics
    assert isinstance(first, WindowStatistics) and isinstance(second, WindowStatistics)
    assert first.prior is not None and second.prior is not None
    assert torch.equal(first.prior.gram, second.prior.gram)
    assert torch.equal(first.prior.cross["teacher"], second.prior.cross["teacher"])


@pytest.mark.parametrize("reason", ["many windows", "no teacher"])
def test_is_idle_with_many_windows_or_without_the_teacher(gathered: CompileUnit, reason: str) -> None:
    unit = gathered if reason == "many windows" else replace(gathered, teacher=None)
    result = AddPrior(most_windows=100 if reason == "many windows" else 5000).run(unit, CONTEXT)
    assert not result.modified and result.unit is unit
    assert ("are enough" if reason == "many windows" else "cannot label") in result.metrics["idle"]


def test_needs_statistics(taught: CompileUnit) -> None:
    with pytest.raises(PassError, match="there are no statistics"):
        AddPrior().requires(taught)


def _solved(unit: CompileUnit, **options: object) -> dict[str, object]:
    unit = BuildStudent(kind="dlinear", config={"maps": "auto"}).run(unit, CONTEXT).unit
    return dict(SolveAffine(**options).run(unit, CONTEXT).metrics)


def test_the_weight_is_one_more_candidate(gathered: CompileUnit) -> None:
    unit = AddPrior(windows=60).run(gathered, CONTEXT).unit
    metrics = _solved(unit, lambdas=(0.0, 1.0), ridges=(100.0,), priors=(0.0, 500.0), ranks=(4,))
    rows = metrics["selection"]
    assert isinstance(rows, list)
    assert {row["prior"] for row in rows} == {0.0, 500.0}
    assert {row["form"] for row in rows if row["prior"]} == {"shared"}
    assert _solved(gathered)["prior"] == 0.0


@pytest.fixture
def short(gathered: CompileUnit) -> CompileUnit:
    """Blocks of training no longer than a horizon."""
    unit = AddPrior(windows=60).run(gathered, CONTEXT).unit
    statistics = unit.statistics
    assert isinstance(statistics, WindowStatistics) and not statistics.alone
    statistics.blocks = statistics.windows // HORIZON
    assert statistics.alone
    return unit


def test_too_few_windows_for_rolling_origins_are_judged_by_stretches_of_validation(
    short: CompileUnit,
) -> None:
    metrics = _solved(short)
    rows, warnings = metrics["selection"], metrics["warnings"]
    assert isinstance(rows, list) and isinstance(warnings, list)
    assert list(rows[0]["mse"]) == [f"validation {number}" for number in range(1, len(rows[0]["mse"]) + 1)]
    (default,) = [
        row
        for row in rows
        if [row[name] for name in ("form", "lambda", "tau", "ridge", "prior")]
        == ["shared", 1.0, 0.0, 100.0, 1000.0]
    ]
    (chosen,) = [row for row in rows if row["chosen"]]
    assert {row["form"] for row in rows} == {"shared"}
    # The truth alone is far better here, by more than a standard error of the gain in the stretches.
    logs = np.log([chosen["mse"][name] / default["mse"][name] for name in chosen["mse"]])
    assert logs.mean() + logs.std(ddof=1) / len(logs) ** 0.5 < 0
    assert "stretches of the validation split, against the default weights" in " ".join(warnings)


def test_what_two_stretches_would_say_is_not_asked(short: CompileUnit) -> None:
    statistics = short.statistics
    assert isinstance(statistics, WindowStatistics)
    windows = short.data.windows("val", LOOKBACK, HORIZON)
    assert sum(fold.judged.count for fold in statistics.stretches()) == len(windows)
    splits = short.data.splits
    statistics.data = replace(short.data, splits=Splits(splits.train, 3 * HORIZON + 2, splits.test))
    assert len(statistics.stretches()) == 2
    metrics = _solved(short)
    chosen = [metrics[name] for name in ("maps", "lambda", "tau", "prior", "candidates")]
    assert chosen == ["shared", 1.0, 0.0, 1000.0, 2]  # and the plain one, which all are compared with
    assert metrics["ridge"] == pytest.approx(100.0)
    warnings = metrics["warnings"]
    assert isinstance(warnings, list)
    assert "the teacher has its default weights, nothing was judged" in " ".join(warnings)
    assert "chosen by the validation split" not in " ".join(warnings)
