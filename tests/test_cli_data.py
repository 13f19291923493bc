"""The command line on real tables: inspect, --dry-run, recipes, and what an artifact keeps of it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "data"))
from real_tables import REAL, comma, table

from tsfmc.compiler.api import make_recipe, survey
from tsfmc.compiler.base.errors import RecipeError
from tsfmc.compiler.cli import main
from tsfmc.compiler.data.dialect import Dialect
from tsfmc.compiler.data.reading import Reading, checked_reading, reading_fields
from tsfmc.compiler.data.reading_options import asked_reading
from tsfmc.compiler.driver.recipe import reading_settings, resolve

GERMAN = table(sep=";", header="date,a,b", a=lambda row: "" if row == 9 else comma(row))


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tsfmc", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0), *capsys.readouterr()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("x.csv").write_bytes(GERMAN)
    return tmp_path


def test_inspect_says_what_to_type(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "inspect", "x.csv", "--lookback", "24", "--horizon", "6")
    assert code == 0
    assert out.splitlines()[-1] == (
        "next: tsfmc compile --data x.csv --csv 'sep=;,decimal=,' --missing interpolate"
    )
    assert "300 rows, 2 variates, step h" in out
    assert "error   x.csv: fields are separated by semicolons, expected commas" in out
    assert re.search(r"in all +\d+ s +\d+ MB", out)


def test_inspect_as_json(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "inspect", "x.csv", "--csv", "sep=;,decimal=,", "--json")
    found = json.loads(out)
    assert (code, found["rows"], found["readable"], len(found["findings"])) == (0, 300, True, 2)
    assert found["options"] == {"csv": "sep=;,decimal=,", "missing": "interpolate"}
    assert [cost["stage"] for cost in found["costs"]] == ["read", "solve", "measure", "in all"]


def test_inspect_of_what_no_option_reads(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("y.csv").write_bytes(table().replace(b"05:00:00", b"05:07:00", 1))
    code, out, err = run(monkeypatch, capsys, "inspect", "y.csv")
    assert code == 2 and err == "error: y.csv cannot be read as it is (what it takes is said above)\n"
    assert "which does not follow" in out and "resample the file" in out and "next:" not in out


def test_a_dry_run_says_everything_before_it_refuses(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ("--lookback", "24", "--horizon", "6")
    code, out, err = run(monkeypatch, capsys, "compile", "--data", "x.csv", *shape, "--dry-run")
    assert (code, out) == (2, "")
    assert "--missing interpolate" in err
    assert err.splitlines()[-1].startswith("error: x.csv: fields are separated by semicolons")
    options = ("--csv", "sep=;,decimal=,", "--missing", "interpolate")
    code, out, err = run(monkeypatch, capsys, "compile", "--data", "x.csv", *shape, *options, "--dry-run")
    assert code == 0 and out.startswith("step") and "a compile" in err
    assert "read       missing=interpolate csv=sep=;,decimal=," in err
    code, out, _ = run(
        monkeypatch, capsys, "compile", "--data", "x.csv", *shape, *options, "--dry-run", "--json"
    )
    plan = json.loads(out)
    assert plan["data"]["survey"]["rows"] == 300 and plan["data"]["costs"][-1]["stage"] == "in all"
    assert plan["recipe"]["data_format"]["decimal"] == ","


def test_a_recipe_holds_it(place: Path) -> None:
    Path("r.toml").write_text(
        'version = 1\ndata = "x.csv"\n[task]\nduplicates = "mean"\nsort = true\nzone = "Europe/Berlin"\n'
        '[data_format]\nsep = ";"\ndecimal = ","\n'
    )
    recipe = resolve(file=Path("r.toml"))
    assert recipe.reading == Reading("error", "mean", True, "Europe/Berlin", Dialect(sep=";", decimal=","))
    Path("lock.toml").write_text(recipe.to_toml())
    assert resolve(file=Path("lock.toml")) == recipe
    settings = reading_settings(recipe)
    assert make_recipe(recipe="r.toml", **settings).reading == recipe.reading
    changed = make_recipe(recipe="r.toml", csv="thousands=,", sort=False)
    assert changed.reading.dialect == Dialect(thousands=",") and not changed.reading.sort  # it says it all


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data_format.decimal=;", "data_format: got .*expected . or ,"),
        ("data_format.colour=red", r"unknown recipe field 'data_format.colour'.*sep, sheet"),
        ("task.zone=Mars/Base", "task.zone: got 'Mars/Base': unknown time zone 'mars/base'"),
        ("task.duplicates=last", "task.duplicates: got 'last'"),
    ],
)
def test_fields_that_a_recipe_cannot_hold(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve(settings=[setting])


def test_an_artifact_keeps_how_rows_are_read() -> None:
    reading = Reading("ffill", "mean", True, "Europe/Berlin", Dialect(sep=";", decimal=","))
    task: dict[str, Any] = {"lookback": 4, **reading_fields(reading)}
    assert json.loads(json.dumps(task)) == task
    assert checked_reading(task) == reading
    assert reading_fields(Reading()) == {"missing": "error"}
    assert asked_reading(task, {"missing": None}) == reading
    asked = asked_reading(task, {"missing": "error", "csv": "sep=tab", "sort": False})
    assert asked == Reading("error", "mean", False, "Europe/Berlin", Dialect(sep="\t"))


def test_from_python(place: Path) -> None:
    found, costs = survey("x.csv", lookback=24, horizon=6, csv="sep=;,decimal=,", missing="ffill")
    assert found.findings[0].what == "filled 1 empty cells and 0 missing rows"
    assert [cost.stage for cost in costs] == ["read", "solve", "measure", "in all"]
    assert REAL["semicolons"].says
