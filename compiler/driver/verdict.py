"""What a compile gave, in words: did the teacher help, is the artifact better than it, should it be deployed.

Figures come from paired comparisons on the test windows (``learning/compare.py``).  "Measurable" means that
the whole interval is on one side of zero.  The part of a manifest is

    accuracy.test          the rows
    accuracy.teachers      those of each further teacher, where there are several, and of a tuned one
    accuracy.judged        whose the artifact's row is, where it is not the shipped program's
    accuracy.comparisons   artifact against supervised, teacher, seasonal naive
    accuracy.verdict       lines for a person
    accuracy.unmeasured    why there is none of these, on data that nothing is measured on
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..ir.unit import CompileUnit, PassRecord
from ..learning.compare import Comparison, block_windows, compare
from ..learning.evaluate import Accuracy
from .accuracy import FURTHER

RIVALS = ("supervised", "teacher", "seasonal_naive")
"""The rows that an artifact is compared with."""
NO_INTERVAL = "the test split is too short for an interval"
NO_CHANGE = 5e-4
"""Relative differences that print as 0.0 %: equal students, lowered or not."""


def accuracy_part(rows: Mapping[str, Accuracy], unit: CompileUnit) -> dict[str, Any]:
    """``accuracy`` of a manifest, from the rows that were evaluated on the test split."""
    if unit.data.unmeasured:
        return {"test": {}, "unmeasured": unit.data.unmeasured}
    further = {name for name in rows if name.startswith(FURTHER)}
    part: dict[str, Any] = {"test": {n: row.to_dict() for n, row in rows.items() if n not in further}}
    if further:
        part["teachers"] = {n.removeprefix(FURTHER): rows[n].to_dict() for n in rows if n in further}
    whose = judged_name(rows, unit.record)
    if whose:
        part["judged"] = whose
    mine = rows.get("student", rows.get("model"))
    if mine is None:
        return part
    block = block_windows(unit.data, unit.task.lookback, unit.task.horizon)
    comparisons = {
        name: compare(mine.window_mse, rows[name].window_mse, block) for name in RIVALS if name in rows
    }
    part["comparisons"] = {name: found.to_dict() for name, found in comparisons.items()}
    part["verdict"] = [
        *sentences(comparisons, teacher_weight(unit.record)),
        *training_notes(unit.record),
    ]
    return part


def judged_name(rows: Mapping[str, Accuracy], record: Sequence[PassRecord]) -> str | None:
    """Whose the accuracy is, None where it is that of the shipped program."""
    refit = next((entry.metrics for entry in reversed(record) if "refit" in entry.metrics), None)
    if refit is not None:
        return (
            f"the student before it was refitted on {refit['refit']} ({refit['windows']:,} windows); "
            "what is shipped has seen rows that chose or judged it, and no accuracy is told of it"
        )
    return None if "student" in rows else "the model before lowering; the program was not run here"


def teacher_weight(record: Sequence[PassRecord]) -> float | None:
    """The weight of the teacher where one was chosen; None where nothing was chosen between, and where the
    teacher came in by synthetic windows as well."""
    for entry in reversed(record):
        table = entry.metrics.get("selection") or entry.metrics.get("weights_judged")
        if table:
            if entry.metrics.get("prior"):
                return None
            tried = {float(row["lambda"]) for row in table}
            return float(entry.metrics["lambda"]) if len(tried) > 1 else None
    return None


def sentences(comparisons: Mapping[str, Comparison], weight: float | None) -> Iterator[str]:
    """A sentence for each rival.

    Args:
        weight: of the teacher, where it was chosen among several.
    """
    if (found := comparisons.get("supervised")) is not None:
        yield teacher_sentence(found, weight)
    if (found := comparisons.get("teacher")) is not None:
        yield rival_sentence(found, "the teacher")
    if (found := comparisons.get("seasonal_naive")) is not None:
        advice = ": do not deploy this" if _has_sign(found) and found.relative > 0 else ""
        yield rival_sentence(found, "repeating the last season") + advice


def teacher_sentence(found: Comparison, weight: float | None) -> str:
    """What the teacher gave, from the artifact against the same student without it."""
    if weight == 0:
        line = "the teacher does not help on this data: lambda 0 was chosen"
        if abs(found.relative) < NO_CHANGE:
            return line
        return f"{line} ({_signed(found)} against the student without the teacher)"
    if _has_sign(found):
        verb = "lowers" if found.relative < 0 else "raises"
        advice = "; the student without the teacher is better" if found.worse else ""
        return f"the teacher {verb} the error by {_size(found)}{advice}"
    return f"no measurable difference with and without the teacher: error {_signed(found)}"


def rival_sentence(found: Comparison, rival: str) -> str:
    """The artifact against something else that forecasts."""
    if _has_sign(found):
        return f"{'better' if found.relative < 0 else 'worse'} than {rival} by {_size(found)}"
    return f"no measurable difference from {rival}: error {_signed(found)}"


def training_notes(record: Sequence[PassRecord]) -> Iterator[str]:
    """A line for each pass whose training was still getting better when its epochs were over."""
    for entry in record:
        epochs, best = entry.config.get("epochs", 0), entry.metrics.get("best_epoch")
        if best is not None and best == epochs > 0:
            yield (
                f"{entry.name}: training stopped on its last epoch ({epochs}): more epochs may help "
                f"(passes.{entry.name}.epochs)"
            )


def _has_sign(found: Comparison) -> bool:
    """Its sign may be told: it is measurable, or there is no interval that says it is not."""
    return found.relative_interval is None or found.better or found.worse


def _size(found: Comparison) -> str:
    """``3.2 % [1.1, 5.0]``, positive in the direction of the point estimate."""
    sign = -1 if found.relative < 0 else 1
    if found.relative_interval is None:
        return f"{_percent(abs(found.relative))} % ({NO_INTERVAL})"
    low, high = sorted(sign * end for end in found.relative_interval)
    return f"{_percent(abs(found.relative))} % [{_percent(low)}, {_percent(high)}]"


def _signed(found: Comparison) -> str:
    return signed(found.relative, found.relative_interval)


def signed(relative: float, interval: Sequence[float] | None) -> str:
    """``-3.2 % [-5.0, -1.1]``, negative where the artifact is better."""
    if interval is None:
        return f"{_percent(relative, '+')} %, no interval"
    return f"{_percent(relative, '+')} % [{_percent(interval[0], '+')}, {_percent(interval[1], '+')}]"


def _percent(share: float, sign: str = "-") -> str:
    """One decimal, and no sign on a zero."""
    rounded = round(100 * share, 1)
    return f"{rounded:{sign}.1f}" if rounded else "0.0"
