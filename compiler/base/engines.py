"""The engines that tasks of long stages may run on, by name; see ``executors.py`` for what one does."""

from __future__ import annotations

from .executors import Executor
from .registry import Registry

EXECUTORS = Registry(
    "engine",
    {"local": "compiler.base.executors:Local", "ray": "compiler.base.ray_executor:Ray"},
    contract="compiler.base.executors:Executor",
)


def executor_of(engine: str | Executor) -> Executor:
    """An engine by its name, or one that a caller has made already.

    Raises:
        UsageError: there is no such engine.
    """
    return EXECUTORS[engine]() if isinstance(engine, str) else engine
