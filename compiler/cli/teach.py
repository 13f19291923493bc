"""``tsfmc teach``."""

from __future__ import annotations

from pathlib import Path

import click

from .output import as_json, missing_rows, print_json


@click.command()
@click.option("--teacher", required=True, help="Short name, hub id or directory.")
@click.option("--data", required=True, help="Known data set, 'sample', or a CSV or Parquet file.")
@click.option(
    "-o", "--out", "store", type=click.Path(path_type=Path), required=True, help="The store's folder."
)
@click.option("--lookback", type=int, help="Steps in. Default: 512.")
@click.option("--horizon", type=int, help="Steps out. Default: 96.")
@click.option("--variates", help="'all' or a,b,c. Default: all.")
@click.option("--split", help="'ltsf', fractions or row counts. Default: ltsf.")
@missing_rows
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
@click.option(
    "--licence-policy", type=click.Choice(["warn", "commercial"]), help="Refuse non-commercial weights."
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY.PATH=VALUE", help="Override a field of the recipe."
)
@as_json
def command(
    teacher: str,
    data: str,
    store: Path,
    lookback: int | None,
    horizon: int | None,
    variates: str | None,
    split: str | None,
    missing: str | None,
    states: bool,
    states_dtype: str,
    state_positions: int,
    train_windows: int,
    licence_policy: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write a teacher store; the same command goes on where a killed one stopped.

    ``tsfmc compile --teacher-store STORE`` then needs neither the weights nor the teacher's library.
    """
    from .. import api
    from ..base.parallel import Processes
    from ..base.progress import for_stderr

    recipe = api.make_recipe(
        set=settings,
        teacher=teacher,
        data=data,
        task__lookback=lookback,
        task__horizon=horizon,
        task__variates=variates,
        task__split=split,
        task__missing=missing,
        licence_policy=licence_policy,
    )
    written = api.teach(
        recipe,
        store,
        states=states,
        states_dtype=states_dtype,
        state_positions=state_positions,
        train_windows=train_windows,
        progress=for_stderr(),
    )
    if not Processes.current().is_main:
        return
    if as_json:
        print_json(written.record)
    else:
        click.echo(store)
