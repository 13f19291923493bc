"""Variate-wise students: one token a variate, cheap enough for an edge device."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from ..base.errors import unknown_name
from ..base.registry import Registry
from ..ir.forecaster import Forecaster, Student

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
