"""Variate-wise students: one token a variate, cheap enough for an edge device."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..base.errors import RecipeError, TsfmcError, UsageError, unknown_name
from ..base.registry import Registry
from ..ir.forecaster import Forecaster, Student, parameter_count

MAX_PARAMETERS = 1_000_000_000
"""Of a student: beyond, its training alone asks for 16 GB."""
MAX_OPTION = 1_000_000_000_000
"""Of a whole number among a student's options, budgets included."""

STUDENTS = Registry(
    "student",
    {
        "dlinear": "compiler.students.dlinear:DLinear",
        "itransformer": "compiler.students.itransformer:ITransformer",
        "residual": "compiler.students.residual:Residual",
        "auto": "compiler.students.residual:Residual",
    },
    contract="compiler.ir.forecaster:Student",
)
"""Kind -> :class:`~tsfmc.compiler.ir.forecaster.Student`; plugins join through ``tsfmc.students``."""


def build_student(kind: str, *, lookback: int, horizon: int, **options: Any) -> Student:
    """A student with untrained weights; of a kind that grows out of another student, that other one.

    Raises:
        UsageError: an unknown kind; the message lists what exists.
    """
    student: Student = STUDENTS[kind].start(lookback=lookback, horizon=horizon, **options)
    return student


def check_student(kind: str, options: Iterable[str]) -> None:
    """Refuses an unknown kind or option before anything long starts.

    Raises:
        UsageError: the message lists what exists and the nearest name.
    """
    known = STUDENTS[kind].options()
    for option in options:
        if option not in known:
            raise unknown_name(f"option of student {kind}", option, known)


def check_values(kind: str, lookback: int, horizon: int, options: Mapping[str, Any]) -> None:
    """Builds the student once without memory for its weights: what it refuses is refused before any work.

    Raises:
        UsageError: its own, or one that names the option or the reason.
    """
    import torch

    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"student.{name}: got {value}", hint="expected a finite number")
        if isinstance(value, int) and abs(value) > MAX_OPTION:
            raise RecipeError(f"student.{name}: got {value}", hint=f"expected at most {MAX_OPTION:,}")
    given = dict(options)
    if takes(kind, "variates"):
        given.setdefault("variates", 1)
    try:
        with torch.device("meta"):
            size = parameter_count(build_student(kind, lookback=lookback, horizon=horizon, **given))
    except TsfmcError:
        raise
    except Exception as error:  # of torch, or of another package's code
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        named = ", ".join(f"{name}={value!r}" for name, value in options.items()) or "no options"
        raise RecipeError(
            f"student {kind} cannot be built with {named}: {reason}", hint="see tsfmc students"
        ) from error
    if size > MAX_PARAMETERS:
        raise UsageError(
            f"student {kind}: {size:,} parameters, expected at most {MAX_PARAMETERS:,}",
            hint="a smaller width, lookback or horizon",
        )


def takes(kind: str, option: str) -> bool:
    """Whether a kind of student has an option, such as ``variates``."""
    return option in inspect.signature(STUDENTS[kind]).parameters


def from_config(config: Mapping[str, Any]) -> Forecaster:
    """The student, folded or not, that ``config`` (its own ``config`` attribute) describes.

    Raises:
        UsageError: a kind that no student is and none folds into.
    """
    fields = dict(config)
    model: Forecaster = _class_of(fields.pop("kind"))(**fields)
    return model


def _class_of(kind: str) -> type[Forecaster]:
    if kind in STUDENTS:
        student: type[Forecaster] = STUDENTS[kind]
        return student
    known = set(STUDENTS)
    for name in STUDENTS:
        forms: Mapping[str, type[Forecaster]] = STUDENTS[name].folded_forms()
        if kind in forms:
            return forms[kind]
        known |= set(forms)
    raise unknown_name("student", kind, known)
