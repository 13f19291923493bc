"""Contracts: what a teacher, student, pass or target promises, tried on it by name.

A contract is a list of rules (``TEACHER.rules``, ``STUDENT.rules``, ``PASS.rules``, ``TARGET.rules``), each
a function with a sentence.  The same rules hold for what is built in and for what another package adds:

>>> from tsfmc.compiler import contracts
>>> contracts.check_student("dlinear")
>>> contracts.check_pass("weight_horizons")

It stands on top of the compiler, beside ``api.py``: it needs every other part, and no part needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..ir.forecaster import Forecaster
from ..ir.unit import CompileUnit
from . import passes, students, targets, teachers
from .passes import PASS
from .students import STUDENT
from .targets import TARGET, folded_dlinear
from .teachers import TEACHER

__all__ = [
    "PASS",
    "STUDENT",
    "TARGET",
    "TEACHER",
    "check_pass",
    "check_student",
    "check_target",
    "check_teacher",
]


def check_teacher(
    family: str,
    config: Mapping[str, Any] | None = None,
    *,
    lookback: int = 48,
    horizon: int = 12,
    variates: int = 2,
    **options: Any,
) -> Sequence[str]:
    """Tries the contract of a teacher family on a tiny configuration.

    Args:
        family: name in ``tsfmc.teachers``.
        config: a small ``config.json`` of the family; None takes its first card, whose weights come with
            a package.
        options: of the family.

    Returns:
        Names of the rules, all of which hold.

    Raises:
        VerificationError: the rules that do not hold, one a line.
        UsageError: no family has this name.
    """
    subject = teachers.Subject(family, config, lookback, horizon, variates, options)
    return TEACHER.check(family, subject)


def check_student(kind: str, **options: Any) -> Sequence[str]:
    """Tries the contract of a kind of student, with ``options`` of its constructor.

    Raises:
        VerificationError: the rules that do not hold, one a line.
        UsageError: no student has this name.
    """
    return STUDENT.check(kind, students.Subject(kind, options))


def check_pass(
    name: str,
    *,
    before: Sequence[str] | None = None,
    student: Mapping[str, Any] | None = None,
    make_unit: Callable[[Path], CompileUnit] | None = None,
    **options: Any,
) -> Sequence[str]:
    """Tries the contract of a pass on a small unit.

    Args:
        name: in ``tsfmc.passes``.
        before: passes to run first; by default as many of the default pipeline as it asks for.
        student: ``kind`` and options of the student that ``build_student`` builds.
        make_unit: another unit than the sample, made in the empty folder that it is given.
        options: of the pass.

    Raises:
        VerificationError: the rules that do not hold, one a line.
        UsageError: no pass has this name.
    """
    given: dict[str, Any] = {"options": options, "before": before}
    if student is not None:
        given["student"] = student
    if make_unit is not None:
        given["make_unit"] = make_unit
    return PASS.check(name, passes.Subject(name, **given))


def check_target(
    kind: str, *, make_model: Callable[[], Forecaster] = folded_dlinear, **options: Any
) -> Sequence[str]:
    """Tries the contract of a target on a small model.

    Args:
        kind: in ``tsfmc.targets``.
        make_model: another model than a folded DLinear, in evaluation mode.
        options: of the target.

    Raises:
        VerificationError: the rules that do not hold, one a line.
        UsageError: no target has this name.
    """
    return TARGET.check(kind, targets.Subject(kind, options, make_model))
