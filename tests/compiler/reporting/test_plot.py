"""A forecast as a picture and as sparklines."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tsfmc.compiler.api import load
from tsfmc.compiler.base.errors import UsageError
from tsfmc.compiler.reporting import plot
from tsfmc.compiler.reporting.palette import LIGHT
from tsfmc.compiler.reporting.plot import panel, save_plot
from tsfmc.compiler.reporting.sparkline import BLOCKS, FLAT, printable, sparkline, sparkline_rows
from tsfmc.targets.artifact.device.output import Forecast
from tsfmc.targets.artifact.tables import read_history


@pytest.fixture(scope="module")
def forecast(compiled: Path) -> Forecast:
    model = load(compiled / "out/good/onnx")
    history = read_history(compiled / "series.csv", model.manifest)
    return Forecast(history, model.forecast(history.values), model.manifest["task"])


def test_past_and_forecast_follow_each_other_in_time(forecast: Forecast) -> None:
    rows = panel(forecast, 1, LIGHT)["data"]["values"]
    past = [row for row in rows if row["part"] == "past"]
    ahead = [row for row in rows if row["part"] == "forecast"]
    assert len(past) == 24 and len(ahead) == 13
    assert ahead[0] == {**past[-1], "part": "forecast"}  # the lines touch
    assert [row["x"] for row in ahead[1:]] == [time.isoformat() for time in forecast.times]
    stamps = [np.datetime64(row["x"]) for row in (*past, *ahead[1:])]
    assert set(np.diff(stamps)) == {np.timedelta64(3600, "s")}
    np.testing.assert_array_equal([row["y"] for row in past], forecast.history.values[1][-24:])
    np.testing.assert_array_equal([row["y"] for row in ahead[1:]], forecast.values[1])


def test_each_kind_of_file(
    forecast: Forecast, tmp_path: Path, hostile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("png", "svg", "html"):
        assert save_plot(forecast, tmp_path / f"p.{kind}", "series") == ""
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    for name in ("p.svg", "p.html"):
        text = (tmp_path / name).read_text()
        assert hostile not in text and "&lt;/script&gt;&lt;img" in text and "v2" in text
    scripts = _Scripts()
    scripts.feed((tmp_path / "p.html").read_text())
    assert set(json.loads(scripts.first)) == {"v0", "v1", "v2"}
    monkeypatch.setattr(plot, "MAX_PANELS", 2)
    assert "first 2 variates, 1 more" in save_plot(forecast, tmp_path / "p.svg", "series")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html", "p.png", "p.svg"]


class _Scripts(HTMLParser):
    first, inside = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script" and not self.first

    def handle_data(self, data: str) -> None:
        self.first += data if self.inside else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def test_another_kind_is_refused(forecast: Forecast, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.html"):
        save_plot(forecast, tmp_path / "p.gif", "series")


def test_a_sparkline_goes_from_the_lowest_to_the_highest_block() -> None:
    assert sparkline(np.arange(8.0), 0.0, 7.0) == BLOCKS
    assert sparkline(np.array([3.0, 3.0]), 3.0, 3.0) == FLAT * 2
    assert len(sparkline(np.arange(1000.0), 0.0, 999.0)) == 24


def test_past_and_forecast_share_a_scale(forecast: Forecast) -> None:
    rows = sparkline_rows(forecast)
    for row, past, ahead in zip(rows, forecast.history.values, forecast.values, strict=True):
        low, high = min(past[-24:].min(), ahead.min()), max(past[-24:].max(), ahead.max())
        assert row[3] == sparkline(ahead, low, high)
        assert row[2] == past[-1] and row[5] == ahead[-1] and (row[6], row[7]) == (ahead.min(), ahead.max())


def test_a_name_does_not_command_the_terminal() -> None:
    assert printable("a\x1b[31m\nb") == "a\\x1b[31m\\nb"


def test_sparklines_on_a_terminal(compiled: Path) -> None:
    """Rows as CSV everywhere else: see ``test_cli.py``."""
    command = [sys.executable, "-m", "tsfmc", "forecast", str(compiled / "out/good/onnx")]
    command += ["--input", str(compiled / "series.csv")]
    parent, child = pty.openpty()
    shown = ""
    with subprocess.Popen(command, stdout=child, stderr=subprocess.DEVNULL) as process:
        os.close(child)
        try:
            while block := os.read(parent, 1 << 16):
                shown += block.decode()
        except OSError:  # Linux says so when the other end is closed
            pass
        assert process.wait() == 0
    os.close(parent)
    assert "lowest" in shown and any(block in shown for block in BLOCKS) and len(shown.splitlines()) == 5
