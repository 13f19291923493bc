"""Options of the command line that are settings of a recipe, made from the one table of them."""

from __future__ import annotations

import collections.abc
import functools
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import click

from ..driver.settings import Setting, known_settings

ENGINE = "Where labels and statistics are computed: local (default), or ray; the result is the same."
ADDRESS = "Of a running Ray cluster: auto, HOST:PORT or ray://HOST:PORT. Default: one is started here."
WORKERS = "Tasks at a time. Default: all there is room for."
MANY = (collections.abc.Iterable, collections.abc.Sequence)


def recipe_options(*names: str, required: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """Adds the options of these settings; the command gets those that were given as ``settings``."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def packed(**values: Any) -> Any:
            given = {name: values.pop(name) for name in names}
            settings = {name: value for name, value in given.items() if value not in (None, ())}
            return command(settings=settings, **values)

        with_options: Callable[..., Any] = packed
        known = known_settings()
        for name in reversed(names):
            with_options = _option(name, *known[name], required=name in required)(with_options)
        return with_options

    return decorate


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds where tasks run; the command gets it as ``engine``."""

    @click.option("--engine", default="local", metavar="NAME", help=ENGINE)
    @click.option("--address", help=ADDRESS)
    @click.option("--workers", type=click.IntRange(min=1), help=WORKERS)
    @functools.wraps(command)
    def packed(engine: str, address: str | None, workers: int | None, **values: Any) -> Any:
        from ..base.engines import EXECUTORS

        return command(engine=EXECUTORS[engine](address, workers), **values)

    return packed


def _option(
    name: str, setting: Setting, kinds: tuple[Any, ...], *, required: bool
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    flag = f"--{name.replace('_', '-')}"
    # What has to be given has no default.
    words = setting.help.partition(" Default:")[0] if required else setting.help
    facts: dict[str, Any] = {"help": words, "metavar": setting.metavar, "required": required}
    if bool in kinds:
        return click.option(f"{flag}/--no-{name.replace('_', '-')}", name, default=None, **facts)
    if choices := [kind for kind in kinds if get_origin(kind) is Literal]:
        return click.option(flag, name, type=click.Choice(get_args(choices[0])), **facts)
    many = any(get_origin(kind) in MANY for kind in kinds)
    number = next((kind for kind in (int, float) if kind in kinds), str)
    return click.option(flag, name, type=number, multiple=many, **facts)
