"""The command line.  Commands parse and print; ``compiler/api.py`` does the work.

A command's module is imported when it is called, so that ``tsfmc --help`` imports neither torch nor onnx.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import click

from ..base.errors import TsfmcError, one_line, unknown_name
from ..base.paths import as_disk_error
from ..base.text import printable

COMMANDS = {
    "compile": "Compile a teacher to artifacts for one or more targets.",
    "update": "Add new rows to an artifact: solved again in seconds, without the teacher.",
    "bench": "Measure artifacts against a teacher or each other; gate budgets.",
    "compare": "Hold artifacts against each other: accuracy, latency, size; a gate for CI.",
    "report": "Write a page about artifacts: accuracy, forecasts, latency, how each was made.",
    "forecast": "Forecast with an artifact: CSV or Parquet in, CSV or Parquet out.",
    "sign": "Sign an artifact with a private key.",
    "verify": "Check an artifact's hashes, signature and self-test.",
    "inspect": "Show what an artifact or a data set is, what is wrong with it, what to do.",
    "package": "Lay an artifact out for a model server, a registry, the hub, or as one file.",
    "push": "Upload an artifact and its model card to the Hugging Face hub.",
    "teach": "Write a teacher store: a teacher's outputs over every window.",
    "teachers": "List teachers.",
    "students": "List students.",
    "passes": "List passes.",
    "targets": "List targets and what this machine can do with them.",
    "doctor": "Say what this machine has, what is missing, and how to get it.",
}


class _Lazy(click.Group):
    """Commands by name from ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f".{name}", __name__)
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            raise unknown_name("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tsfmc")
def cli() -> None:
    """Compile a time-series foundation model down to an artifact for an edge device.

    stdout is data, stderr is progress.  Exit codes: 0 ok, 1 our bug, 2 usage or recipe, 3 missing extra,
    toolchain or device, 4 a budget or gate missed, 5 verification failed, 6 licence policy violated,
    130 interrupted.
    """


def main() -> None:
    """Runs the command line; every known error is one line and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except TsfmcError as error:
        _fail(str(error), error.exit_code)
    except click.exceptions.Abort:
        _fail("interrupted; the same command goes on from the cache", 130, kind="")
    except click.ClickException as error:
        _show(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our stdout has seen enough.
        sys.stderr.close()
        sys.exit(0)
    except MemoryError:
        _fail("not enough memory (use fewer variates, a smaller lookback or horizon, or another machine)", 3)
    except Exception as error:
        disk = as_disk_error(error)
        if disk is None:
            raise  # our bug: exit code 1, and the traceback to report
        _fail(str(disk), disk.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str, code: int, kind: str = "error: ") -> NoReturn:
    print(f"{kind}{printable(text)}", file=sys.stderr)
    sys.exit(code)


def _show(error: click.ClickException) -> None:
    """click's own message after its usage line, without what a terminal would obey or be flooded with."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        print(error.ctx.get_usage(), file=sys.stderr)
    print(f"error: {one_line(error.format_message())}", file=sys.stderr)
