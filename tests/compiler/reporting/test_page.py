"""The report: its parts are there, each chart can be drawn, nothing is loaded, nothing foreign is obeyed."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from tsfmc.compiler.api import report
from tsfmc.compiler.base.errors import MissingError, VerificationError
from tsfmc.compiler.reporting.collect import Entry, collect
from tsfmc.compiler.reporting.page import json_text, render
from tsfmc.compiler.reporting.sections import on_front
from tsfmc.compiler.reporting.verdict import judge

MAX_BYTES = 3_000_000


def row(median: float, **more: Any) -> dict[str, Any]:
    times = {"median_us": median, "p50_us": median, "p90_us": 2 * median, "cpu_median_us": median}
    return {**times, "n": 1024, "spread": 0.01, "noisy": False, **more}


def scenario(artifact: float, **more: Any) -> dict[str, Any]:
    teachers = [row(900.0, form="fp32, onnxruntime"), row(1800.0, form="fp32, PyTorch eager")]
    speedup = {"speedup": 900 / artifact, "speedup_interval": [850 / artifact, 950 / artifact]}
    histogram = {"edges_us": [artifact, 2 * artifact, 4 * artifact], "counts": [9, 1]}
    mine = row(artifact, histogram=histogram)
    return {
        "artifact": mine, "teacher": teachers[0], "teachers": teachers, **speedup,
        "noisy": False, "method": "single-stream", **more,
    }  # fmt: skip


LATENCY = {
    "scenarios": {"stream": scenario(14.0), "interval": scenario(142.0, noisy=True)},
    "host": {"cpu": "a <b>cpu</b>"},
}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, the text of scripts, all visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.headings: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] == "style":
            self.styles.append(data)
        else:
            self.text.append(data)
            if self.open and self.open[-1] in ("h1", "h2", "h3"):
                self.headings.append(data.strip())

    @property
    def charts(self) -> dict[str, Any]:
        charts: dict[str, Any] = json.loads(self.scripts[0])
        return charts

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def entries(compiled: Path) -> list[Entry]:
    found = collect(compiled / "out")
    return [replace(entry, manifest={**entry.manifest, "latency": LATENCY}) for entry in found]


@pytest.fixture(scope="module")
def html(entries: list[Entry]) -> str:
    return render(entries, "out")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_part_is_there(page: Page) -> None:
    text = " ".join(page.headings)
    for part in (
        "Everything in this folder", "What went in and came out", "Forecasts", "Accuracy on",
        "Where the error comes from", "Latency", "Which lags matter", "Passes: what each cost and bought",
        "How the student was chosen", "Licence and provenance",
    ):  # fmt: skip
        assert part in text
    assert {"good/onnx", "worse/onnx"} <= set(page.headings)


def test_every_chart_has_its_place_and_every_place_its_chart(page: Page) -> None:
    places = {a["id"] for _, a in page.elements if "chart" in (a.get("class") or "").split() and a.get("id")}
    frames = {a["data-frames"] for _, a in page.elements if "data-frames" in a}
    chosen = {a["data-examples"] for a in page.all("select")}
    assert places | frames == set(page.charts) and frames == chosen
    kinds = {name.split("-", 1)[1] for name in page.charts if name.startswith("a0-")}
    assert kinds == {
        "bars", "differences", "horizon", "time", "examples", "lags", "latency-stream", "latency-interval",
        "latency-stream-histogram", "latency-interval-histogram",
    }  # fmt: skip
    assert {"pareto-bytes", "pareto-stream", "pareto-interval"} <= set(page.charts)


def test_every_chart_is_one_that_the_library_draws(page: Page) -> None:
    for name, chart in page.charts.items():
        if name.startswith("a1-"):
            continue  # the same functions as for the first
        spec = chart.get("frame", chart)
        vega = vl_convert.vegalite_to_vega({**spec, "width": 400}, vl_version="6.4")
        assert vega["marks"], name
        assert spec["description"], name


def test_figures_have_a_table_for_those_who_do_not_see_the_chart(page: Page) -> None:
    assert len(page.all("caption")) >= 16
    assert all(image.get("alt") for image in page.all("img"))
    assert page.all("html")[0]["lang"] == "en" and page.all("main") and page.all("h1")


def test_the_naive_line_and_the_teachers_stand_in_the_curves(page: Page) -> None:
    names = {row["name"] for row in page.charts["a0-horizon"]["data"]["values"]}
    assert names == {"artifact", "teacher", "seasonal naive"}
    assert len(page.charts["a0-examples"]["windows"]) == 9
    points = page.charts["a0-latency-stream"]["layer"][1]["data"]["values"]
    assert {point["name"] for point in points} == {
        "artifact",
        "teacher, onnxruntime",
        "teacher, PyTorch eager",
    }


def test_a_noisy_run_is_called_noisy(page: Page) -> None:
    assert " ".join(page.text).count("noisy run") >= 2  # the badge and the tile of that scenario


def test_the_worse_one_is_called_worse(page: Page) -> None:
    statuses = [a["class"] for a in page.all("section") if "verdict" in (a.get("class") or "")]
    assert statuses[0] == "verdict good" and statuses[1] != "verdict good"


def test_nothing_is_loaded(html: str, page: Page) -> None:
    assert len(html.encode()) < MAX_BYTES
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "audio", "video")
        for name in ("src", "href", "srcset", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, name, value)
    style = "".join(page.styles)
    assert "url(" not in style and "@import" not in style
    assert "http" not in page.scripts[0]


def test_the_page_allows_itself_its_own_scripts_alone(page: Page) -> None:
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy and "script-src 'unsafe-inline'" not in policy
    for script in page.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_a_variate_cannot_become_part_of_the_page(html: str, page: Page, hostile: str) -> None:
    assert hostile not in html
    assert len(page.scripts) == 3
    assert not [a for _, a in page.elements for name in a if name.startswith("on")]
    assert all((a["src"] or "").startswith("data:image/png") for a in page.all("img"))
    assert hostile in page.text  # it is shown as what it is


def test_json_in_a_page_ends_nothing() -> None:
    text = json_text({"a": "</script><!--&\u2028"})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"a": "</script><!--&\u2028"}
    with pytest.raises(ValueError):
        json_text(float("nan"))


def test_the_file_lies_where_it_was_asked_for(compiled: Path, tmp_path: Path) -> None:
    assert report(compiled / "out/good", tmp_path / "page.html") == tmp_path / "page.html"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_an_artifact_alone_says_what_is_missing(compiled: Path, tmp_path: Path) -> None:
    shutil.copytree(compiled / "out/good/onnx", tmp_path / "onnx")
    (entry,) = collect(tmp_path / "onnx")
    assert entry.evaluation is None and "onnx.evaluation.json is not beside" in entry.missing
    text = render([entry], "onnx")
    assert "onnx.evaluation.json is not beside" in text and "Which lags matter" not in text
    shutil.copy(compiled / "out/worse/onnx.evaluation.json", tmp_path)
    assert "not the one that the artifact names" in collect(tmp_path)[0].missing


def test_a_folder_without_artifacts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="holds no artifact"):
        collect(tmp_path)
    with pytest.raises(MissingError, match="no such folder"):
        collect(tmp_path / "nowhere")


def test_a_broken_manifest_is_named(compiled: Path, tmp_path: Path) -> None:
    shutil.copytree(compiled / "out/good", tmp_path / "out")
    (tmp_path / "out/onnx/manifest.json").write_text("{}")
    with pytest.raises(VerificationError):
        collect(tmp_path / "out")


@pytest.mark.parametrize(
    ("naive", "alone", "status"),
    [
        ([-0.4, -0.2], None, "good"),
        ([-0.4, -0.2], [-0.1, 0.1], "good"),
        ([-0.4, -0.2], [0.01, 0.1], "mixed"),
        ([-0.1, 0.1], None, "mixed"),
        ([0.1, 0.2], [-0.2, -0.1], "bad"),
        (None, None, "unknown"),
    ],
)
def test_the_headline_is_no_kinder_than_the_figures(
    naive: list[float] | None, alone: list[float] | None, status: str
) -> None:
    comparisons = {"seasonal_naive": {"relative": sum(naive or [0]) / 2, "relative_interval": naive}}
    if alone is not None:
        comparisons["supervised"] = {"relative": sum(alone) / 2, "relative_interval": alone}
    found, headline = judge({"comparisons": comparisons})
    assert found == status and headline
    assert ("do not deploy" in headline) is (status == "bad")


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = [{"mse": mse, "cost": cost} for mse, cost in ((1, 9), (2, 2), (3, 1), (3, 3), (2, 2))]
    assert [point["front"] for point in on_front(points, "cost")] == [True, True, True, False, True]
