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
    },
)

_FOLDED = Registry(
    "folded student",
    {
        "affine": "compiler.students.affine:AffineMap",
        "folded_itransformer": "compiler.students.itransformer:FoldedITransformer",
    },
)


def build_student(kind: str, *, lookback: int, horizon: int, **options: Any) -> Student:
    """A student with untrained weights.

    Raises:
        UsageError: an unknown kind; the message lists what exists.
    """
    student: Student = STUDENTS[kind](lookback=lookback, horizon=horizon, **options)
    return student


def check_student(kind: str, options: Iterable[str]) -> None:
    """Refuses an unknown kind or option before anything long starts.

    Raises:
        UsageError: the message lists what exists and the nearest name.
    """
    known = set(inspect.signature(STUDENTS[kind]).parameters) - {"lookback", "horizon"}
    for option in options:
        if option not in known:
            raise unknown_name(f"option of student {kind}", option, known)


def from_config(config: Mapping[str, Any]) -> Forecaster:
    """The student, folded or not, that ``config`` (its own ``config`` attribute) describes."""
    fields = dict(config)
    kind = fields.pop("kind")
    registry = STUDENTS if kind in STUDENTS else _FOLDED
    model: Forecaster = registry[kind](**fields)
    return model
