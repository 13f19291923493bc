"""The ``web`` layout in headless Chromium: a person's steps, and what the page says and draws."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import SHAPE, VARIATES, make_artifact, write_history
from selenium.webdriver.support.ui import Select

sys.path.insert(0, str(Path(__file__).parent))
from browser import chromium, served, wait
from node_tools import NODE, runtime

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import MissingError, UsageError
from tsfmc.targets.packages.layout import write_package
from tsfmc.targets.packages.web import Web

STEPS = range(1, SHAPE.horizon + 1)
INTERVAL = {
    "levels": [0.1, 0.9],
    "windows": 60,
    "covered": 0.7812,
    "variates": {
        name: {"low": [-1.0 * step for step in STEPS], "high": [2.0 * step for step in STEPS]}
        for name in VARIATES
    },
}
SEND = """
const [to, done] = arguments;
fetch(to, {mode: 'no-cors'}).then(() => done('sent'), () => done('refused'));
"""
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``onnx``, the artifact; ``with`` and ``without`` an interval, its pages; ``saved``, for downloads."""
    place = tmp_path_factory.mktemp("web")
    make_artifact(place / "onnx")
    (place / "saved").mkdir()
    api.package(place / "onnx", layout="web", out=place / "without", name="plant", runtime=runtime())
    write_package(place / "onnx", Web(runtime(), INTERVAL), place / "with", "plant")
    return place


@pytest.fixture(scope="module")
def browser(folders: Path) -> Iterator[Any]:
    with chromium(folders / "saved") as found:
        yield found


@pytest.fixture
def page(folders: Path, browser: Any) -> Iterator[Open]:
    """Opens a page of ``folders`` and waits until it has checked its artifact."""
    servers = []

    def opened(site: Path, width: int = 1000, scheme: str = "light") -> Any:
        server = served(site)
        servers.append(server)
        address, browser.asked = server.__enter__()
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        browser.get(address)
        wait(browser, lambda found: found.execute_script("return document.body.dataset.ready"))
        return browser

    yield opened
    for server in servers:
        server.__exit__(None, None, None)


def text(browser: Any, name: str) -> str:
    """Of an element as a reader sees it: nothing where it is hidden."""
    found: str = browser.find_element("id", name).text
    return found


def drop(browser: Any, path: Path) -> None:
    """Gives the page a file and waits for what it says."""
    browser.execute_script(
        "delete document.body.dataset.drawn; document.getElementById('error').hidden = true"
    )
    browser.find_element("id", "file").send_keys(str(path))
    wait(browser, answered)


def answered(browser: Any) -> bool:
    return bool(browser.execute_script("return document.body.dataset.drawn")) or bool(text(browser, "error"))


def test_a_dropped_csv_is_forecast_as_run_py_does(page: Open, folders: Path, tmp_path: Path) -> None:
    browser = page(folders / "with")
    assert "5 files match their hashes; self-test: 3 windows" in text(browser, "status")
    write_history(tmp_path / "past.csv")
    drop(browser, tmp_path / "past.csv")
    assert text(browser, "error") == ""
    browser.find_element("id", "save").click()
    saved = folders / "saved" / "forecast.csv"
    wait(browser, lambda _: saved.is_file())
    got, expected = table(saved.read_text()), table(by_run_py(folders / "onnx", tmp_path / "past.csv"))
    assert (got[0], got[1]) == (expected[0], expected[1])
    assert np.abs(got[2] - expected[2]).max() <= 1e-4 * np.abs(expected[2]).max()
    assert browser.get_log("browser") == []


def test_history_forecast_and_interval_are_drawn(page: Open, folders: Path, tmp_path: Path) -> None:
    browser = page(folders / "with")
    write_history(tmp_path / "past.csv")
    drop(browser, tmp_path / "past.csv")
    parts = browser.find_elements("css selector", "#chart path")
    assert [part.get_attribute("class") for part in parts] == ["interval", "past", "forecast"]
    assert "10 % to the 90 % quantile" in text(browser, "interval")
    assert "60 windows of the validation split; on the test split it held 78.1 %" in text(browser, "interval")
    browser.find_element("css selector", "summary").click()
    cells = [row.text.split() for row in browser.find_elements("css selector", "#rows tr")]
    assert len(cells) == SHAPE.horizon
    for step, (_, _, value, low, _, high) in zip(STEPS, cells, strict=True):  # date, hour, value, low to high
        assert float(low) == pytest.approx(float(value) - step, rel=1e-4)
        assert float(high) == pytest.approx(float(value) + 2 * step, rel=1e-4)


def test_no_interval_is_invented(page: Open, folders: Path, tmp_path: Path) -> None:
    browser = page(folders / "without")
    write_history(tmp_path / "past.csv")
    drop(browser, tmp_path / "past.csv")
    assert text(browser, "interval").startswith("No interval is drawn: this package carries no errors")
    assert not browser.find_elements("css selector", "#chart .interval")
    assert text(browser, "key-interval") == ""


def test_nothing_leaves_the_page(page: Open, folders: Path, tmp_path: Path) -> None:
    browser = page(folders / "with")
    before = list(browser.asked)
    write_history(tmp_path / "past.csv")
    drop(browser, tmp_path / "past.csv")
    assert browser.asked == before
    assert all(each.startswith("GET ") for each in before)
    with served(tmp_path) as (elsewhere, asked):
        assert browser.execute_async_script(SEND, elsewhere) == "refused"
        assert asked == []
    browser.get_log("browser")  # the refusal stands there, too


def test_what_is_wrong_with_rows_is_said_and_can_be_mended(page: Open, folders: Path, tmp_path: Path) -> None:
    browser = page(folders / "without")
    write_history(tmp_path / "past.csv")
    lines = (tmp_path / "past.csv").read_text().splitlines()
    (tmp_path / "gap.csv").write_text("\n".join(lines[:30] + lines[31:]) + "\n")
    drop(browser, tmp_path / "gap.csv")
    assert "gap.csv line 31: timestamp" in text(browser, "error")
    assert text(browser, "title") == ""  # no old forecast beside the message
    Select(browser.find_element("id", "missing")).select_by_value("ffill")
    wait(browser, answered)
    assert text(browser, "error") == ""
    assert "Filled in: 0 empty cells and 1 missing rows." in text(browser, "title")


def test_a_changed_file_stops_the_page(page: Open, folders: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    write_package(folders / "onnx", Web(runtime()), site)
    with (site / "artifact" / "model.onnx").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff")
    browser = page(site)
    assert text(browser, "error").startswith("This artifact is not used: model.onnx was changed: sha256")
    assert browser.find_element("id", "file").is_enabled() is False
    browser.get_log("browser")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_used_by_everyone_and_on_a_phone(
    scheme: str, page: Open, folders: Path, tmp_path: Path
) -> None:
    browser = page(folders / "with", width=360, scheme=scheme)
    browser.find_element("id", "example").click()
    wait(browser, answered)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    browser.execute_script((NODE / "node_modules" / "axe-core" / "axe.min.js").read_text())
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    assert [(each["id"], each["nodes"][0]["target"]) for each in found["violations"]] == []
    shade = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (shade == "rgb(255, 255, 255)") is (scheme == "light")


def test_another_runtime_is_refused(folders: Path, tmp_path: Path) -> None:
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (tmp_path / name).write_bytes(b"x")
    for given in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match=r"npm install onnxruntime-web@1\.30\.0, then --runtime"):
            api.package(folders / "onnx", layout="web", out=tmp_path / "site", runtime=given)
    assert not (tmp_path / "site").exists()


def test_without_npm_one_line_says_how(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"there is no npm to get it \(npm install onnxruntime-web@"):
        api.package(folders / "onnx", layout="web", out=tmp_path / "site")


def test_only_the_page_has_a_runtime(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="layout hf takes no runtime"):
        api.package(folders / "onnx", layout="hf", out=tmp_path / "out", runtime=tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("zone", "Europe/Berlin"),
        ("sort", True),
        ("duplicates", "mean"),
        ("data_format", {"sep": "semicolon"}),
    ],
)
def test_what_the_page_would_read_otherwise_is_not_packaged(
    field: str, value: object, folders: Path, tmp_path: Path
) -> None:
    task = json.loads((folders / "onnx" / "manifest.json").read_text())["task"]
    make_artifact(tmp_path / "onnx", task={**task, field: value})
    with pytest.raises(UsageError, match=f"layout web does not know {field}, which"):
        api.package(tmp_path / "onnx", layout="web", out=tmp_path / "site", runtime=runtime())
    assert not (tmp_path / "site").exists()


def by_run_py(artifact: Path, past: Path) -> str:
    command = [sys.executable, "-I", str(artifact / "run.py"), "forecast", str(past)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def table(content: str) -> tuple[list[str], list[str], np.ndarray]:
    """Header, stamps, and ``[H, D]`` values."""
    header, *rows = csv.reader(content.splitlines())
    return header, [row[0] for row in rows], np.array([row[1:] for row in rows], dtype=float)


def test_the_page_says_what_it_was_given(folders: Path) -> None:
    facts = json.loads((folders / "with" / "page.json").read_text())
    assert facts == {"name": "plant", "interval": INTERVAL}
