"""The teachers of a unit beside its first one, and what the statistics call each of them.

A compile with several teachers has one that is named as the original (``unit.teacher``): its latency is
compared, it is pruned and fine-tuned, its states align students.  The others only say what they forecast.
Once a pass has tuned the first teacher, the teacher as it was loaded is one more of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .forecaster import Teacher
from .provenance import TeacherInfo
from .teacher_store import TeacherStore

FIRST = "teacher"
"""What the statistics call the first teacher, as it was loaded."""
TUNED = "tuned"
"""What they call it where it was tuned, and the teacher as it was loaded is a candidate as well."""


@dataclass(frozen=True, eq=False)
class Companion:
    """A further teacher.

    Attributes:
        name: in statistics, settings and tables; no two of a unit are alike.
        info: provenance.
        teacher: the module, or None where only its stored outputs are at hand.
        store: its outputs, once they are recorded.
    """

    name: str
    info: TeacherInfo
    teacher: Teacher | None = None
    store: TeacherStore | None = None


def companion_names(infos: Sequence[TeacherInfo], taken: Collection[str] = ()) -> list[str]:
    """A name for each further teacher: its own, with a number where that is another's.

    Args:
        taken: names that none may have.
    """
    names: list[str] = []
    for info in infos:
        name, number = info.name, 1
        while name in (*taken, *names):
            number += 1
            name = f"{info.name} ({number})"
        names.append(name)
    return names
