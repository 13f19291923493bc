"""The family of a configuration, and teachers built without naming it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from ..base.errors import TeacherError, TsfmcError
from ..ir.forecaster import Teacher
from .base import Frontend
from .checkpoint import (
    CONFIG,
    build_with,
    fill,
    fitting,
    read_config,
    read_weights,
    rebuild_with,
    weight_files,
)
from .families import FRONTENDS
from .header import read_headers
from .outline import bounded, outline, unbuildable


def family_of(config: Mapping[str, Any], where: str) -> str:
    """Name of the family that a configuration belongs to.

    Raises:
        TeacherError: no family recognises it.
    """
    saved = config.get("tsfmc", {}).get("family")
    if saved is not None:
        return cast("Frontend", FRONTENDS[saved]).family
    for name in FRONTENDS:
        # A field of another type than the family's is no configuration of this family.
        with suppress(TypeError, AttributeError, KeyError, ValueError):
            if FRONTENDS[name].recognises(config):
                return name
    kind = config.get("model_type") or config.get("architectures")
    raise TeacherError(
        f"{where}: no teacher family recognises this {CONFIG} (model_type or architectures: {kind!r})",
        hint=f"families: {', '.join(sorted(FRONTENDS))}",
    )


def build_teacher(config: Mapping[str, Any], **task_and_options: Any) -> Teacher:
    """A teacher with untrained weights of the family that ``config`` belongs to; see ``build_with``.

    Raises:
        TeacherError: the family is not recognised, or it cannot take the configuration or the task.
    """
    return build_with(FRONTENDS[family_of(config, "teacher")], config, **task_and_options)


def read_teacher(directory: Path, **task_and_options: Any) -> tuple[Teacher, list[Path]]:
    """The teacher of a checkpoint directory and its weight files.

    Raises:
        TeacherError: see ``family_of``, and ``read_config``, ``weight_files``, ``build_with`` and ``fill`` in
            ``checkpoint.py``.
    """
    config, where = read_config(directory), str(directory)
    frontend = FRONTENDS[family_of(config, where)]
    files = weight_files(directory)
    stored = read_headers(files)

    def build() -> Teacher:
        return build_with(frontend, config, **task_and_options)

    shape = outline(build, stored, where)
    state = frontend.rename(read_weights(files))
    if shape is not None:
        fitting(shape, state, where)
    try:
        with bounded(stored, where):
            teacher = build()
    except TsfmcError:
        raise
    except Exception as error:
        raise unbuildable(error, where) from error
    fill(teacher, state, where)
    return teacher, files


def rebuild_teacher(teacher: Teacher, **options: Any) -> Teacher:
    """The same teacher with the same weights, built with other ``options``."""
    return rebuild_with(FRONTENDS[family_of(teacher.config, "teacher")], teacher, **options)
