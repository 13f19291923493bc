"""``tsfmc teach``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import engine_options, recipe_options
from .output import as_json, print_json, say
from .paths import OUTPUT

if TYPE_CHECKING:
    from ..base.executors import Executor


@click.command()
@recipe_options(
    "teacher", "data", "lookback", "horizon", "variates", "split", "missing", "max_filled",
    "duplicates", "sort", "zone", "csv",
    "licence_policy", "set",
    required=("teacher", "data"),
)  # fmt: skip
@click.option("-o", "--out", "store", type=OUTPUT, required=True, help="The store's folder.")
@click.option("--states/--no-states", default=True, help="Keep states for FTA.")
@click.option("--states-dtype", type=click.Choice(["float16", "float32"]), default="float16")
@click.option(
    "--state-positions",
    type=click.IntRange(min=0),
    default=0,
    help="Keep a seeded subset of positions; 0 keeps all.",
)
@click.option(
    "--train-windows",
    type=click.IntRange(min=0),
    default=0,
    help="Label that many, evenly spread; 0 labels all.",
)
@engine_options
@as_json
def command(
    settings: dict[str, Any],
    store: Path,
    states: bool,
    states_dtype: str,
    state_positions: int,
    train_windows: int,
    as_json: bool,
    engine: Executor,
) -> None:
    """Write a teacher store; the same command goes on where a killed one stopped.

    ``tsfmc compile --teacher-store STORE`` then needs neither the weights nor the teacher's library.
    """
    from .. import api
    from ..base.parallel import Processes
    from ..base.progress import for_stderr

    written = api.teach(
        api.make_recipe(**settings),
        store,
        states=states,
        states_dtype=states_dtype,
        state_positions=state_positions,
        train_windows=train_windows,
        progress=for_stderr(),
        engine=engine,
    )
    if not Processes.current().is_main:
        return
    if as_json:
        print_json(written.record)
    else:
        say(store)
