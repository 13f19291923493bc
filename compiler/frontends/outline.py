"""A teacher without its numbers: what a configuration asks for, found out before anything is allocated.

A configuration is built on torch's meta device, where a tensor has a shape and no memory, and the building
is stopped once it asks for far more than the weights' header has.  So no size in a configuration, however
absurd, costs time or memory, and whatever a family's builder raises on it ends as one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from ..base.errors import TeacherError, TsfmcError
from ..ir.forecaster import Teacher
from .header import Entry

LARGEST_INTEGER = (1 << 31) - 1
BUFFER_BYTES = 1 << 30
"""Of tables that no file holds, such as those of rotary embeddings."""
# A builder may make a module and put another one in its place; it does not make many times what is stored.
_TIMES, _NUMBERS, _TENSORS = 4, 1 << 20, 256


def check_integers(config: Any, where: str, field: str = "") -> None:
    """Refuses an integer that no size of a model is.

    Raises:
        TeacherError: naming the field.
    """
    items: Any = ()
    if isinstance(config, Mapping):
        items = config.items()
    elif isinstance(config, list | tuple):
        items = enumerate(config)
    elif isinstance(config, int) and abs(config) > LARGEST_INTEGER:
        raise TeacherError(f"{where}: {field} is {config}, expected at most {LARGEST_INTEGER}")
    for name, value in items:
        check_integers(value, where, f"{field}.{name}" if field else str(name))


def outline(build: Callable[[], Teacher], stored: Mapping[str, Entry], where: str) -> Teacher | None:
    """The teacher that ``build`` makes, on the meta device; None for a family that cannot be built there.

    Args:
        stored: the tensors of the weights' files.
        where: for messages.

    Raises:
        TeacherError: the configuration is refused, or asks for far more than the files hold.
    """
    try:
        with torch.device("meta"), bounded(stored, where):
            teacher = build()
        held = sum(buffer.numel() * buffer.element_size() for buffer in teacher.buffers())
    except TsfmcError:
        raise
    except Exception as error:
        if "meta" in str(error):
            return None
        raise unbuildable(error, where) from error
    if held > BUFFER_BYTES + sum(entry.numbers * 8 for entry in stored.values()):
        raise TeacherError(
            f"{where}: the configuration asks for tables of {held >> 20} MiB, expected at most "
            f"{BUFFER_BYTES >> 20} MiB",
            hint="a size in the configuration is not that of these weights",
        )
    return teacher


def unbuildable(error: Exception, where: str) -> TeacherError:
    """One line for whatever a builder raised on a configuration."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return TeacherError(
        f"{where}: no teacher can be built with this configuration: {reason}",
        hint="a field has a value or a type that the family does not take",
    )


@contextmanager
def bounded(stored: Mapping[str, Entry], where: str) -> Iterator[None]:
    """Stops the building of a module that grows far beyond what is stored.

    Modules register a parameter before they write to it, so one that is too large takes no memory yet.

    Raises:
        TeacherError: it asks for more numbers, tensors or layers than the files can fill.
    """
    most_numbers = _TIMES * sum(entry.numbers for entry in stored.values()) + _NUMBERS
    most_tensors = _TIMES * len(stored) + _TENSORS
    numbers = tensors = modules = 0

    def check(so_far: str, found: int, most: int) -> None:
        if found > most:
            raise TeacherError(
                f"{where}: the configuration asks for {so_far}, the weights have {len(stored)} tensors of "
                f"{sum(entry.numbers for entry in stored.values())} numbers",
                hint="config and weights have to come from the same checkpoint",
            )

    def on_parameter(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal numbers, tensors
        if parameter is not None:
            numbers, tensors = numbers + parameter.numel(), tensors + 1
            check(f"more than {most_numbers} parameters", numbers, most_numbers)
            check(f"more than {most_tensors} tensors", tensors, most_tensors)

    def on_module(module: nn.Module, name: str, child: nn.Module | None) -> None:
        nonlocal modules
        modules += 1
        check(f"more than {_TIMES * most_tensors} layers", modules, _TIMES * most_tensors)

    hooks = [
        register_module_parameter_registration_hook(on_parameter),
        register_module_module_registration_hook(on_module),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
