"""``tsfmc compile``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import engine_options, recipe_options
from .output import as_json, print_json, print_table, say
from .paths import OUTPUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..api import CompileResult, Recipe
    from ..base.executors import Executor


@click.command(context_settings={"show_default": False})
@recipe_options(
    "teacher", "data", "target", "device", "student", "lookback", "horizon", "variates",
    "calendar", "known_columns", "past_columns", "step",
    "split", "missing", "max_filled", "id_column", "time_column", "value_columns", "holdout_items",
    "duplicates", "sort", "zone", "csv", "quantiles", "recipe", "set", "budget", "teacher_store",
    "licence_policy", "baseline", "refit", "with_teacher", "seed", "threads",
)  # fmt: skip
@click.option("-o", "--out", type=OUTPUT, default=Path("out"), help="Default: out.")
@click.option("--dry-run", is_flag=True, help="Read the data, print the resolved plan and stop.")
@click.option("--dump-after", multiple=True, metavar="STEP|all", help="Write the unit as text after a step.")
@click.option("--stop-after", metavar="STEP", help="Run up to this pass or stage and pack nothing after it.")
@click.option("--report", "wants_report", is_flag=True, help="Also write OUT/report.html, see tsfmc report.")
@click.option("--no-cache", is_flag=True, help="Neither look up nor keep results of passes.")
@engine_options
@as_json
def command(
    settings: dict[str, Any],
    out: Path,
    dry_run: bool,
    dump_after: tuple[str, ...],
    stop_after: str | None,
    wants_report: bool,
    no_cache: bool,
    as_json: bool,
    engine: Executor,
) -> None:
    """Compile a teacher to artifacts OUT/<target>/.

    Prints the artifact paths on stdout, progress and the results on stderr.
    """
    from .. import api
    from ..base.errors import BudgetError
    from ..base.progress import for_stderr

    resolved = api.make_recipe(**settings)
    if dry_run:
        _dry_run(resolved, dump_after, stop_after, as_json)
        return
    try:
        result = api.compile_recipe(
            resolved,
            out=out,
            cache=not no_cache,
            dump_after=dump_after,
            stop_after=stop_after,
            progress=for_stderr(),
            engine=engine,
        )
    except BudgetError as error:
        if isinstance(error.result, api.CompileResult):
            _print_result(error.result, out if wants_report else None, as_json)
        raise
    _print_result(result, out if wants_report else None, as_json)


def _print_result(result: CompileResult, reported: Path | None, as_json: bool) -> None:
    """The result, after a report on the folder ``reported``, where one is wanted."""
    from .. import api
    from ..base.parallel import Processes
    from ..driver.summary import summary_lines

    if not Processes.current().is_main:
        return
    report = api.report(reported) if reported is not None and result.artifacts else None
    if as_json:
        print_json(
            {
                "artifacts": {kind: str(path) for kind, path in result.artifacts.items()},
                "recipe_lock": result.recipe_lock and str(result.recipe_lock),
                "manifests": result.manifests,
                "teacher": result.teacher and str(result.teacher),
                "report": report and str(report),
                "warnings": result.warnings,
            }
        )
        return
    for kind, path in result.artifacts.items():
        for line in ("", *summary_lines(result.manifests[kind]), ""):
            say(line, err=True)
        say(path)
    if report is not None:
        say(report)
    if result.teacher is not None:
        say(f"the teacher as the passes left it: {result.teacher}", err=True)


def _dry_run(recipe: Recipe, dump_after: Sequence[str], stop_after: str | None, as_json: bool) -> None:
    """The data and what is wrong with them on stderr, the steps on stdout; one document as JSON."""
    from .. import api
    from ..base.progress import for_stderr
    from ..driver.looking import UnusableDataError, data_lines
    from .survey_view import show_survey

    try:
        plan = api.plan(recipe, dump_after=dump_after, stop_after=stop_after, progress=for_stderr())
    except UnusableDataError as error:
        show_survey(error.found, (), err=True)
        raise
    data = plan["data"]
    if as_json:
        for name in ("survey", "costs"):
            if name in data:
                data[name] = (
                    data[name].to_json() if name == "survey" else [asdict(cost) for cost in data[name]]
                )
        print_json(plan)
        return
    for line in data_lines(data):
        click.echo(line, err=True)
    if "survey" in data:
        show_survey(data["survey"], data["costs"], err=True)
    print_table(("step", "what it does"), [(step["name"], step["summary"]) for step in plan["steps"]])
