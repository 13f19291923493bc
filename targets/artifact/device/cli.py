"""Command: ``python run.py forecast|verify|selftest|bench``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....compiler.base.text import printable
from ....compiler.data.dialect import DIALECT_EXAMPLE
from ....compiler.data.filling import POLICIES
from ....compiler.data.reading import DUPLICATES
from .ahead import forecast_from
from .bench import bench, latency_file
from .check import SUMS, find_problems, open_files
from .engine import Engine
from .errors import ArtifactError, EngineError, InputError
from .fleet import Fleet, FleetForecast, read_items
from .forecaster import Forecaster
from .output import Forecast, filled_line, save_rows
from .rows import History, read_csv, renamed_columns
from .signature import check_signature


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return COMMANDS[arguments.command](arguments)
    except (ArtifactError, InputError, EngineError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description="Runs the forecaster in this folder.")
    parser.add_argument(
        "--artifact", type=Path, default=Path(__file__).resolve().parent, help="another folder"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the engine (default 1)")
    commands = parser.add_subparsers(dest="command", required=True)
    forecast = commands.add_parser("forecast", help="forecast from the last rows of a CSV")
    forecast.add_argument("past", type=Path)
    forecast.add_argument(
        "--ahead", type=Path, metavar="TABLE", help="what is known over the horizon, where inputs ask for it"
    )
    forecast.add_argument("--id", action="append", help="an item of a fleet; may be repeated (default: all)")
    forecast.add_argument("-o", "--output", type=Path, help="a CSV file instead of standard output")
    forecast.add_argument(
        "--missing", choices=POLICIES, help="empty cells and missing rows (default: as when it was compiled)"
    )
    forecast.add_argument("--duplicates", choices=DUPLICATES, help="rows of one time (default: as compiled)")
    forecast.add_argument("--sort", action="store_true", default=None, help="take rows in any order")
    forecast.add_argument("--zone", help="zone whose clock the times show (default: as compiled)")
    forecast.add_argument(
        "--csv", metavar=DIALECT_EXAMPLE, help="how the file is written (default: as compiled)"
    )
    forecast.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW", help="a column that has another name now"
    )
    forecast.add_argument("--json", action="store_true", help="one JSON document on standard output")
    verify = commands.add_parser("verify", help="check every file against its hash; nothing is loaded")
    selftest = commands.add_parser("selftest", help="compare with the forecasts of the original model")
    measure = commands.add_parser("bench", help="measure on this device, as JSON")
    measure.add_argument(
        "--queries",
        type=int,
        default=64,
        help="fewest calls in each scenario; 0 measures the cold start only",
    )
    measure.add_argument("--duration", type=float, default=5.0, help="seconds of measuring (default 5)")
    measure.add_argument(
        "--record", type=Path, help="write the measurement to this file, for tsfmc bench ARTIFACT --record"
    )
    for command in (forecast, verify, selftest, measure):
        command.add_argument(
            "--trust",
            type=Path,
            metavar="KEY",
            help="refuse what the owner of this public key has not signed",
        )
    return parser


def _run_forecast(arguments: argparse.Namespace) -> int:
    forecaster = _loaded(arguments)
    if forecaster.fleet is not None:
        return _run_fleet(arguments, forecaster, forecaster.fleet)
    if arguments.id:
        raise InputError("--id: this artifact has no items")

    def read(path: Path, manifest: dict[str, Any]) -> History:
        return read_csv(
            path,
            manifest,
            arguments.missing,
            renamed_columns(arguments.rename),
            duplicates=arguments.duplicates,
            sort=arguments.sort,
            zone=arguments.zone,
            csv=arguments.csv,
        )

    history, values = forecast_from(forecaster, read, arguments.past, arguments.ahead)
    forecast = Forecast(history, values, forecaster.manifest["task"])
    filled = filled_line(history)
    if filled:
        print(filled, file=sys.stderr)
    if arguments.output is not None:
        forecast.save(arguments.output)
    if arguments.json:
        _print_json(forecast.to_json())
    elif arguments.output is None:
        forecast.write(sys.stdout)
    return 0


def _run_fleet(arguments: argparse.Namespace, forecaster: Forecaster, fleet: Fleet) -> int:
    histories = read_items(arguments.past, forecaster.manifest, fleet, arguments.missing, arguments.id or ())
    values = forecaster.forecast_histories(histories)
    forecast = FleetForecast(fleet, histories, values, forecaster.manifest["task"])
    for line in (
        *filter(None, map(filled_line, histories.values())),
        *filter(None, [forecast.unknown_line()]),
    ):
        print(printable(line), file=sys.stderr)
    if arguments.output is not None:
        save_rows(arguments.output, forecast)
    if arguments.json:
        _print_json(forecast.to_json())
    elif arguments.output is None:
        forecast.write(sys.stdout)
    return 0


def _run_verify(arguments: argparse.Namespace) -> int:
    device_files = getattr(Engine, "device_files", ())
    problems = list(find_problems(arguments.artifact, device_files))
    for problem in problems:
        print(f"error: {printable(problem)}", file=sys.stderr)
    if problems:
        return ArtifactError.exit_code
    files = open_files(arguments.artifact, device_files)
    signed = check_signature(files, arguments.trust) if arguments.trust is not None else None
    print(f"ok: {len(files.sums or {})} files match {SUMS}")
    if signed is not None:
        print(f"ok: signed by the key {signed[:16]}...")
    return 0


def _run_selftest(arguments: argparse.Namespace) -> int:
    result = _loaded(arguments).selftest()
    _print_json(result)
    if result["passed"]:
        return 0
    print("error: the self-test departs from the original model by more than its tolerance", file=sys.stderr)
    return ArtifactError.exit_code


def _run_bench(arguments: argparse.Namespace) -> int:
    forecaster = _loaded(arguments)
    how = (arguments.threads, arguments.queries, arguments.duration)
    if arguments.record is None:
        _print_json(bench(forecaster, *how))
        return 0
    record = latency_file(forecaster, *how)
    arguments.record.write_text(json.dumps(record, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    where = printable(str(arguments.record))
    print(f"ok: {where} written; tsfmc bench ARTIFACT --record takes it", file=sys.stderr)
    return 0


def _loaded(arguments: argparse.Namespace) -> Forecaster:
    return Forecaster(arguments.artifact, arguments.threads, trust=arguments.trust)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, sort_keys=True))


COMMANDS = {
    "forecast": _run_forecast,
    "verify": _run_verify,
    "selftest": _run_selftest,
    "bench": _run_bench,
}

if __name__ == "__main__":
    sys.exit(main())
