"""A package that adds a teacher, a student, a pass and a target, installed as pip installs it, end to end.

The package is the worked example of the pages in docs/.  Every compile runs in a process of its own, because
entry points and code are read once a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from factory import write_series

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "plugin"
PASS = Path("tsfmc_sample_plugin", "round_weights.py")
COMPILE = [
    *("--teacher", "cycle-24", "--student", "last_value", "--target", "matrix"),
    *("--lookback", "48", "--horizon", "12", "--set", "passes.distill.epochs=1"),
    *("--set", "measure.duration_s=0.2", "--set", "measure.min_queries=64"),
]
STEPS = ("record_teacher", "build_student", "weight_horizons", "distill", "round_weights", "fold_affine")
WITH_THE_PASS = ["--set", f"pipeline={json.dumps(STEPS)}"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample package installed in it."""
    folder = tmp_path_factory.mktemp("plugin")
    copytree(EXAMPLE, folder / "source")  # an install leaves a build folder in the source
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*pip, "--no-build-isolation", "--target", folder / "site", folder / "source"],
        check=True,
        timeout=120,
    )
    return folder / "site"


def tsfmc(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line with the package on the path."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "tsfmc", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def compiled(site: Path, data: Path, out: Path, *more: str) -> dict[str, Any]:
    """The manifest of a compile with everything from the package."""
    done = tsfmc(site, "compile", "--data", data, "-o", out, *COMPILE, *more, "--json")
    assert done.returncode == 0, done.stderr
    manifest: dict[str, Any] = json.loads(done.stdout)["manifests"]["matrix"]
    return manifest


def test_what_it_adds_keeps_the_contracts(site: Path) -> None:
    """The test file of the example itself, as its author runs it."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE / "tests"],
        env={**os.environ, "PYTHONPATH": path},
        cwd=site,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout


def test_end_to_end(site: Path, tmp_path: Path) -> None:
    data = write_series(tmp_path / "series.csv", rows=500)
    first = compiled(site, data, tmp_path / "first", *WITH_THE_PASS)
    assert first["teacher"]["family"] == "cycle" and first["student"]["name"] == "last_value"
    assert first["level"] == "executed" and first["parity"]["passed"]
    assert first["student"]["config"]["kind"] == "affine"  # it was folded as it declares
    # The baseline is the pipeline without what needs the teacher, so it is rounded too.
    assert {"student", "supervised", "teacher"} <= set(first["accuracy"]["test"])
    weights = np.load(tmp_path / "first" / "matrix" / "matrix.npy")
    grid = weights[:, :, :-2] * 2**10  # the last step's column holds the folded last value
    assert np.array_equal(grid, grid.round())

    # Nothing has changed: distill and the plugin's pass come from the cache, and the bytes are the same.
    again = compiled(site, data, tmp_path / "again", *WITH_THE_PASS)
    assert {entry["name"] for entry in again["passes"] if entry["cached"]} == {"distill", "round_weights"}
    assert np.array_equal(np.load(tmp_path / "again" / "matrix" / "matrix.npy"), weights)

    # One constant of the pass is edited: its old result is not served, in the student nor in the baseline.
    source = site / PASS
    text = source.read_text()
    assert text.count("BITS = 10") == 1
    try:
        source.write_text(text.replace("BITS = 10", "BITS = 2"))
        edited = compiled(site, data, tmp_path / "edited", *WITH_THE_PASS)
    finally:
        source.write_text(text)
    step = next(entry for entry in edited["passes"] if entry["name"] == "round_weights")
    assert not step["cached"] and step["metrics"]["bits"] == 2
    rows = {name: row["mse"] for name, row in edited["accuracy"]["test"].items()}
    before = {name: row["mse"] for name, row in first["accuracy"]["test"].items()}
    assert rows["student"] != before["student"] and rows["supervised"] != before["supervised"]
    assert rows["teacher"] == before["teacher"]

    # What it made runs without the package and without the compiler.
    runner = tmp_path / "first" / "matrix" / "run.py"
    done = subprocess.run([sys.executable, runner, "verify"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_it_is_listed_and_its_preset_is_used(site: Path) -> None:
    listed = tsfmc(site, "students", "--json")
    assert listed.returncode == 0 and '"last_value"' in listed.stdout and not listed.stderr
    done = tsfmc(site, "compile", "--student", "last_value", "--dry-run", "--json")
    recipe = json.loads(done.stdout)["recipe"]
    assert recipe["passes"]["distill"]["epochs"] == 4 and "distill" in recipe["pipeline"]


def test_a_broken_package_costs_a_line_and_its_own_use(tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "half_done-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "half_done.py").write_text("import nowhere_to_be_found\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-done\nVersion: 1.0\n")
    points = "[tsfmc.students]\nhalf = half_done:Half\ndlinear = half_done:DLinear\n"
    (info / "entry_points.txt").write_text(points)

    listed = tsfmc(site, "students", "--json")
    assert listed.returncode == 0 and {row["student"] for row in json.loads(listed.stdout)} >= {"dlinear"}
    lines = sorted(listed.stderr.splitlines())
    assert len(lines) == 2 and all(line.startswith("warning: student ") for line in lines), listed.stderr
    assert "'dlinear' of package half-done is left out: the name belongs to tsfmc" in lines[0]
    assert "'half' of package half-done cannot be imported" in lines[1]

    planned = tsfmc(site, "compile", "--dry-run")  # the built-in of the name that it wanted
    assert planned.returncode == 0 and "solve_affine" in planned.stdout
    used = tsfmc(site, "compile", "--student", "half", "--dry-run")
    assert used.returncode == 3
    error = used.stderr.splitlines()[-1]
    assert error.startswith("error: student 'half' of package half-done cannot be imported: ModuleNotFound")
