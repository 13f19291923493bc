"""Real tables: the exact message of each, and the option in it that reads the table."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from real_tables import REAL, ROWS, RealTable, berlin, shuffled, table

from tsfmc.compiler.base.errors import DataError, TsfmcError, UsageError
from tsfmc.compiler.cli import cli
from tsfmc.compiler.data import Filled, load_data
from tsfmc.compiler.data.dialect import PLAIN, Dialect, dialect_text, parse_dialect, plain_number
from tsfmc.compiler.data.remedies import RepairableError
from tsfmc.compiler.data.survey import survey

TASK = {"lookback": 6, "horizon": 2}
REFUSED = {name: case for name, case in REAL.items() if case.says}


def write(case: RealTable, folder: Path) -> Path:
    path = folder / case.file
    path.write_bytes(case.content)
    return path


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_with_one_message(case: RealTable, tmp_path: Path) -> None:
    path = write(case, tmp_path)
    with pytest.raises(DataError) as caught:
        load_data(path, **TASK)
    assert str(caught.value) == case.says
    if case.named:
        assert isinstance(caught.value, RepairableError)
        said = options_in(str(caught.value))
        assert all(
            name in said and (value is True or value in said[name]) for name, value in case.options.items()
        )


@pytest.mark.parametrize("chunk_rows", [None, 37])
@pytest.mark.parametrize("case", REAL.values(), ids=REAL.keys())
def test_the_option_reads_it(case: RealTable, chunk_rows: int | None, tmp_path: Path) -> None:
    data = load_data(write(case, tmp_path), **TASK, **case.options, chunk_rows=chunk_rows)
    assert data.variates == ("a", "b")
    np.testing.assert_allclose(data.values[:, 0], case.values, rtol=1e-12)
    assert data.timestamps is not None
    assert str(data.timestamps[0]) == case.first
    steps = np.diff(data.timestamps)
    assert (steps == steps[0]).all()
    assert data.filled == replace(Filled(), **case.changed)


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_survey_finds_the_option(case: RealTable, tmp_path: Path) -> None:
    found = survey(write(case, tmp_path), **({} if case.named else case.options))
    assert found.readable, found.findings
    assert all(finding.do for finding in found.findings if finding.level == "error")
    if case.named:
        assert found.findings[0].what == case.says.partition(" (")[0]
        load_data(found.path, **TASK, **found.options)


def options_in(message: str) -> dict[str, set[str]]:
    """The options that a message names, with the values after each."""
    found: dict[str, set[str]] = {}
    for name, quoted, bare in re.findall(r"--([a-z-]+)(?: (?:'([^']*)'|([^ )]+)))?", message):
        found.setdefault(name, set()).add(
            quoted or bare.rstrip(";" if name != "csv" else "").removesuffix(",")
        )
        if bare:
            found[name].add(bare)
    return found


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("command", ["compile", "teach", "inspect"])
def test_every_option_in_a_message_is_one_of_the_command(command: str, case: RealTable) -> None:
    assert set(options_in(case.says)) <= options_of(command)


def options_of(command: str) -> set[str]:
    parsed = cli.get_command(click.Context(cli), command)
    assert parsed is not None
    return {word.lstrip("-") for option in parsed.params for word in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_an_update_names_its_own_options(case: RealTable, tmp_path: Path) -> None:
    from tsfmc.compiler.data.reading import AS_IT_IS
    from tsfmc.compiler.driver.update import _read

    try:
        _read(write(case, tmp_path), ("a", "b"), AS_IT_IS, {}, tmp_path)
    except TsfmcError as error:
        assert set(options_in(str(error))) <= options_of("update")


def test_a_table_may_have_everything_at_once(tmp_path: Path) -> None:
    local = berlin(datetime(2024, 10, 25))
    content = table(
        sep=";",
        header="Zeit,a,b",
        time=lambda row: "{2}/{1}/{0} {3}".format(*local(row).replace(" ", "-").split("-")),
        a=lambda row: "" if row in (0, 1, 50) else f"{1000 + row:,}".replace(",", ".") + ",5",
    )
    (tmp_path / "x.csv").write_bytes(content)
    found = survey(tmp_path / "x.csv")
    assert found.options == {
        "csv": "sep=;,decimal=,,thousands=.",
        "missing": "interpolate",
        "zone": "Europe/Berlin",
    }
    assert found.rows == ROWS - 2 and found.filled.trimmed == (2, 0) and found.filled.cells == 1
    assert [finding.level for finding in found.findings][:3] == ["error"] * 3


SIGNS = st.sampled_from([";", ",", "\t", "|", " "])


@given(
    dialect=st.builds(
        Dialect,
        sep=SIGNS,
        decimal=st.just(","),
        thousands=st.sampled_from(["", ".", " ", "'"]),
        dates=st.sampled_from(["", "dd/mm/yyyy", "yy.mm.dd", "yyyymmdd"]),
        encoding=st.sampled_from(["utf-8", "latin-1", "cp1252"]),
        time=st.sampled_from(["", "Zeit", "a,b", "sep"]),
        sheet=st.sampled_from(["", "Blatt 1"]),
    )
)
def test_a_dialect_is_its_text(dialect: Dialect) -> None:
    assert parse_dialect(dialect_text(dialect)) == dialect


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sep=;,decimal=,", PLAIN._replace(sep=";", decimal=",")),
        ("decimal=,,sep=;", PLAIN._replace(sep=";", decimal=",")),
        ("sep=,,decimal=.,thousands=,", PLAIN._replace(sep=",", thousands=",")),
        ("sep=tab,decimal=comma", PLAIN._replace(sep="\t", decimal=",")),
        ("encoding=UTF-8-SIG", PLAIN),
        ("encoding=ISO-8859-1", PLAIN._replace(encoding="latin-1")),
    ],
)
def test_texts_of_dialects(text: str, expected: Dialect) -> None:
    assert parse_dialect(text) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"csv": "colour=red"}, "--csv 'colour=red': expected one of sep=, decimal=,"),
        ({"csv": "sep=;;"}, "--csv sep=';;': expected one character"),
        ({"csv": "decimal=;"}, "--csv decimal=';': expected . or ,"),
        ({"csv": "decimal=,,thousands=,"}, "expected another sign than decimal=,"),
        ({"csv": "sep=;,sep=,"}, "--csv sep= occurs twice"),
        ({"csv": "dates=dd/dd/yyyy"}, "expected an order of dd, mm and yyyy"),
        ({"csv": "encoding=klingon"}, "--csv encoding='klingon': expected one of utf-8"),
        ({"zone": "Europe/Atlantis"}, "--zone: unknown time zone 'Europe/Atlantis'"),
        ({"zone": "../etc/passwd"}, "--zone: unknown time zone"),
        ({"duplicates": "last"}, "unknown policy for duplicates 'last'"),
        ({"csv": "time=when"}, "unknown column of x.csv 'when'"),
    ],
)
def test_options_that_are_not_understood(options: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(table())
    with pytest.raises(UsageError) as caught:
        load_data(tmp_path / "x.csv", **TASK, **options)
    assert message in str(caught.value)


def test_a_policy_must_have_something_to_act_on(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(table(header="step,a,b", time=str))
    with pytest.raises(UsageError, match=r"--sort with x.csv, which has no column with the time"):
        load_data(tmp_path / "x.csv", **TASK, sort=True)
    (tmp_path / "z.csv").write_bytes(table(time=lambda row: berlin(datetime(2024, 1, 1))(row) + ":00+01:00"))
    with pytest.raises(DataError, match="say their offset from UTC themselves"):
        load_data(tmp_path / "z.csv", **TASK, zone="Europe/Berlin")


def test_a_time_that_the_clock_skips(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(table(time=lambda row: f"2024-03-31 {row % 24:02d}:00", rows=24))
    with pytest.raises(
        DataError, match="row 4 has the timestamp 2024-03-31 02:00:00, an hour that the clock of"
    ):
        load_data(tmp_path / "x.csv", **TASK, zone="Europe/Berlin")


def test_days_know_no_hour(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(table(time=lambda row: f"{np.datetime64('2024-01-01') + row}"))
    assert load_data(tmp_path / "x.csv", **TASK, zone="Europe/Berlin").frequency == "D"


@pytest.mark.parametrize("cell", ["12.34", "1.23.456", "0.123,5", "1,234.5", "12.345.67,8", "1e", ""])
def test_digits_that_are_not_grouped_by_three_are_no_number(cell: str) -> None:
    assert plain_number(cell, parse_dialect("decimal=,,thousands=.")) is None


def test_rows_far_out_of_order_are_merged_and_sorted_in_small_blocks(tmp_path: Path) -> None:
    content = shuffled(table())
    header, *lines = content.decode().splitlines()
    twice = [line.replace(",", ",9", 1) for line in lines[:50]]
    (tmp_path / "x.csv").write_text("\n".join([header, *lines, *twice, ""]))
    data = load_data(tmp_path / "x.csv", **TASK, sort=True, duplicates="first", chunk_rows=11)
    assert data.values[:, 1].tolist() == list(range(ROWS))
    np.testing.assert_array_equal(data.values[:, 0], REAL["shuffled"].values)
    assert data.filled.merged == 50


def test_a_late_start_of_many_rows_must_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(table(a=lambda row: "" if row < 150 else str(row)))
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "x.csv", **TASK, missing="ffill")
    assert str(caught.value) == (
        "x.csv: variate 'a' begins 150 rows after the first: 50% of the rows would be trimmed, "
        "at most 25% are "
        "(leave the variate out with --variates, or allow more with --max-filled 0.5)"
    )
    data = load_data(tmp_path / "x.csv", **TASK, missing="ffill", max_filled=0.5)
    assert data.rows == 150
    assert data.notes == ("50% of the rows were trimmed, where a variate has not begun or all are empty",)
