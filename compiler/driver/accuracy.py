"""Test accuracy: every row of a manifest is computed here.

seasonal_naive, supervised, teacher     once, whatever the targets          ``EvaluateReferences``
teacher: NAME                           each further teacher, and a tuned one   ``EvaluateReferences``
student                                 the payload, where it runs here     ``artifact_rows``
model                                   the model that was lowered, where the payload does not run here
                                        or computes in another precision
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...targets.base import Engine
from ..base.progress import Progress
from ..data.levels import MEDIAN
from ..ir.companions import FIRST
from ..ir.passes import PassContext, PassResult, Step
from ..ir.teacher_store import TeacherStore
from ..ir.unit import CompileUnit
from ..learning.evaluate import (
    BATCH_WINDOWS,
    Accuracy,
    Predict,
    evaluate,
    model_predictor,
    naive_scale,
    seasonal_naive,
)
from ..learning.labels import teacher_stores
from .fleets import BATCH_WINDOWS as ITEM_WINDOWS
from .fleets import fleet_of, predictor, routed
from .quantiles import reference_quantiles

FURTHER = "teacher: "
"""Before the name of a row of a teacher that is not the first one as it was loaded."""


class EvaluateReferences(Step):
    """The rows that no target changes."""

    name = "evaluate_references"
    summary = "test accuracy of the seasonal naive forecast, the baseline and the teacher as it was loaded"
    reads = frozenset(
        {
            *("data", "teacher", "teacher_store", "companions", "supervised"),
            *("student", "effect", "judged", "head", "plain_head"),
        }
    )
    writes = frozenset({"accuracy", "quantile_accuracy"})

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        predictors = {**reference_predictors(unit), **further_predictors(unit)}
        rows = evaluate_rows(unit, predictors, context.progress)
        quantiles = reference_quantiles(unit, context.progress)
        return PassResult(unit.with_(accuracy=rows, quantile_accuracy=quantiles), True)


def reference_predictors(unit: CompileUnit) -> dict[str, Predict]:
    """Forecasts to compare with; of a teacher that passes have replaced, the one that was loaded."""
    rows = {"seasonal_naive": seasonal_naive(unit.data.seasonality, unit.task.horizon)}
    if unit.supervised is not None:
        rows["supervised"] = predictor(unit.supervised, unit.supervised.judged_point)
    store, original = unit.teacher_store, unit.original_teacher or unit.teacher
    if store is not None and unit.original_teacher is None:
        rows["teacher"] = stored_predictor(store)
    elif original is not None and fleet_of(unit) is None:  # of a panel, only where it was recorded
        rows["teacher"] = model_predictor(original)
    return rows


def further_predictors(unit: CompileUnit) -> dict[str, Predict]:
    """The teachers of a mix beside the first one as it was loaded, where a student is solved for a mix."""
    if not unit.companions:
        return {}
    stores = {name: store for name, store in teacher_stores(unit).items() if name != FIRST}
    return {f"{FURTHER}{name}": stored_predictor(store) for name, store in stores.items()}


def stored_predictor(store: TeacherStore) -> Predict:
    """What a store has for the test windows."""
    return lambda indices, past: store.forecast("test", indices)


def artifact_rows(
    unit: CompileUnit, engine: Engine | None, precision: str, progress: Progress
) -> dict[str, Accuracy]:
    """The payload's row, and the model's beside it where the two differ or only the model runs here."""
    rows: dict[str, Predict] = {}
    if engine is None or precision != "fp32":
        rows["model"] = predictor(unit, unit.judged_point)
    if engine is not None and unit.judged is None:
        rows["student"] = median_of(routed(unit, engine), unit.task.quantile_levels)
    elif engine is not None and unit.judged is not None and precision == "fp32":
        # It has seen rows that judge it.  Before that it was this model; parity says no more is lost.
        rows["student"] = predictor(unit, unit.judged_point)
    return evaluate_rows(unit, rows, progress)


def median_of(predict: Predict, levels: Sequence[float]) -> Predict:
    """The point forecast of a program that gives quantiles at ``levels``, rows of ``H Q`` numbers."""
    if not levels:
        return predict
    place = levels.index(MEDIAN)
    return lambda indices, past: predict(indices, past)[..., place :: len(levels)]


def evaluate_rows(unit: CompileUnit, rows: Mapping[str, Predict], progress: Progress) -> dict[str, Accuracy]:
    """Test accuracy of each predictor, every window; none on data that nothing is measured on."""
    if unit.data.unmeasured:
        return {}
    test = unit.data.windows("test", unit.task.lookback, unit.task.horizon)
    scale = naive_scale(unit.data)
    batch = BATCH_WINDOWS if fleet_of(unit) is None else ITEM_WINDOWS
    return {
        name: evaluate(predict, test, scale, batch_windows=batch, progress=progress, title=f"test {name}")
        for name, predict in rows.items()
    }
