"""``tsfmc compile``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .output import as_json, missing_rows, print_json, print_table


@click.command(context_settings={"show_default": False})
@click.option("--teacher", help="Short name, hub id or directory. Default: the embedded demo teacher.")
@click.option("--data", help="Known data set, 'sample', or a CSV or Parquet file. Default: sample.")
@click.option("--target", "targets", multiple=True, help="Where it will run; may be repeated. Default: onnx.")
@click.option("--device", help="For targets that have devices, see tsfmc targets. Default: this machine.")
@click.option("--student", help="dlinear (default), itransformer, or none: the teacher itself is lowered.")
@click.option("--lookback", type=int, help="Steps in. Default: 512.")
@click.option("--horizon", type=int, help="Steps out. Default: 96.")
@click.option("--variates", help="'all' or a,b,c. Default: all.")
@click.option("--split", help="'ltsf', fractions 0.7,0.1,0.2 or row counts. Default: ltsf.")
@missing_rows
@click.option("--recipe", type=click.Path(path_type=Path), help="A recipe in TOML.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY.PATH=VALUE", help="Override a field of the recipe."
)
@click.option(
    "--budget", "budgets", multiple=True, metavar="NAME=VALUE", help="A gate, e.g. max_mse_over_teacher=5%."
)
@click.option(
    "--teacher-store", type=click.Path(path_type=Path), help="Stored teacher outputs (tsfmc teach)."
)
@click.option(
    "--licence-policy", type=click.Choice(["warn", "commercial"]), help="Refuse non-commercial weights."
)
@click.option("--baseline/--no-baseline", default=None, help="Also train the student without the teacher.")
@click.option(
    "--refit",
    type=click.Choice(["none", "train+val", "all"]),
    help="Solve what is shipped again on all rows up to there, after it was judged. Default: none.",
)
@click.option("--seed", type=int, help="Every random choice derives from it. Default: 0.")
@click.option("--threads", type=int, help="Threads of teacher and artifact while measuring. Default: 1.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("out"), help="Default: out.")
@click.option("--dry-run", is_flag=True, help="Print the resolved plan and stop.")
@click.option("--dump-after", multiple=True, metavar="PASS|all", help="Write the unit as text after a pass.")
@click.option("--stop-after", metavar="PASS", help="Run the passes up to this one and write no artifact.")
@click.option("--no-cache", is_flag=True, help="Neither look up nor keep results of passes.")
@as_json
def command(
    teacher: str | None,
    data: str | None,
    targets: tuple[str, ...],
    device: str | None,
    student: str | None,
    lookback: int | None,
    horizon: int | None,
    variates: str | None,
    split: str | None,
    missing: str | None,
    recipe: Path | None,
    settings: tuple[str, ...],
    budgets: tuple[str, ...],
    teacher_store: Path | None,
    licence_policy: str | None,
    baseline: bool | None,
    refit: str | None,
    seed: int | None,
    threads: int | None,
    out: Path,
    dry_run: bool,
    dump_after: tuple[str, ...],
    stop_after: str | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Compile a teacher to artifacts OUT/<target>/.

    Prints the artifact paths on stdout, progress and the results on stderr.
    """
    from .. import api
    from ..base.parallel import Processes
    from ..base.progress import for_stderr
    from ..driver.summary import summary_lines

    resolved = api.make_recipe(
        recipe=recipe,
        set=(*settings, *(f"budget.{budget}" for budget in budgets)),
        teacher=teacher,
        data=data,
        targets=list(targets) or None,
        task__lookback=lookback,
        task__horizon=horizon,
        task__variates=variates,
        task__split=split,
        task__missing=missing,
        student__kind=student,
        seed=seed,
        threads=threads,
        baseline=baseline,
        refit=refit,
        teacher_store=None if teacher_store is None else str(teacher_store),
        licence_policy=licence_policy,
    )
    if device is not None:
        resolved = api.on_device(resolved, device)
    if dry_run:
        _print_plan(api.plan(resolved), as_json)
        return
    result = api.compile_recipe(
        resolved,
        out=out,
        cache=not no_cache,
        dump_after=dump_after,
        stop_after=stop_after,
        progress=for_stderr(),
    )
    if not Processes.current().is_main:
        return
    if as_json:
        print_json(
            {
                "artifacts": {kind: str(path) for kind, path in result.artifacts.items()},
                "recipe_lock": result.recipe_lock and str(result.recipe_lock),
                "manifests": result.manifests,
                "teacher": result.teacher and str(result.teacher),
                "warnings": result.warnings,
            }
        )
        return
    for kind, path in result.artifacts.items():
        for line in ("", *summary_lines(result.manifests[kind]), ""):
            click.echo(line, err=True)
        click.echo(path)
    if result.teacher is not None:
        click.echo(f"the teacher as the passes left it: {result.teacher}", err=True)


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    steps = [(step["name"], step["summary"]) for step in plan["pipeline"]]
    print_table(("step", "what it does"), [("import", "load data and teacher"), *steps])
    for stage in plan["stages"]:
        click.echo(stage)
