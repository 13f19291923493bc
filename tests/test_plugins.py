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
from safetensors.numpy import save_file

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "plugin"
STEPS = ("record_teacher", "build_student", "weight_horizons", "distill", "round_weights", "fold_affine")
COMPILE = [
    *("--student", "last_value", "--target", "matrix"),
    *("--lookback", "48", "--horizon", "12", "--set", "passes.distill.epochs=1"),
    *("--set", "measure.duration_s=0.2", "--set", "measure.teacher_forms=['eager']"),
    *("--set", f"pipeline={json.dumps(STEPS)}"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture
def site(installed: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may edit."""
    return Path(copytree(installed, tmp_path / "site"))


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


def compiled(site: Path, folder: Path, name: str) -> dict[str, Any]:
    """The manifest of a compile with all that the package adds, of what lies in ``folder``."""
    files = ("--teacher", folder / "teacher", "--data", folder / "series.csv", "-o", folder / name)
    done = tsfmc(site, "compile", *files, *COMPILE, "--json")
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
    write_series(tmp_path / "series.csv", rows=500)
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text('{"model_type": "cycle", "period": 24}')
    save_file({"weights": np.array([1, 0], np.float32)}, tmp_path / "teacher" / "model.safetensors")

    first = compiled(site, tmp_path, "first")
    assert first["teacher"]["family"] == "cycle" and first["student"]["name"] == "last_value"
    assert first["level"] == "executed" and first["parity"]["passed"]
    assert first["student"]["config"]["kind"] == "affine"  # it was folded as it declares
    # The baseline is the pipeline without what needs the teacher, so it is rounded too.
    assert {"student", "supervised", "teacher"} <= set(first["accuracy"]["test"])
    weights = np.load(tmp_path / "first" / "matrix" / "matrix.npy")
    grid = weights[:, :, :-2] * 2**10  # the last step's column holds the folded last value
    assert np.array_equal(grid, grid.round())

    # Nothing has changed: distill and the plugin's pass come from the cache, and the bytes are the same.
    again = compiled(site, tmp_path, "again")
    assert {entry["name"] for entry in again["passes"] if entry["cached"]} == {"distill", "round_weights"}
    assert np.array_equal(np.load(tmp_path / "again" / "matrix" / "matrix.npy"), weights)

    # A constant of the pass and one of the teacher are edited: no old result is served, neither in the
    # student nor in the baseline, nor from the store of the teacher's outputs.
    edits = {"round_weights.py": ("BITS = 10", "BITS = 2"), "cycle.py": ("+ levels[", "+ 2 * levels[")}
    for name, (old, new) in edits.items():
        source = site / "tsfmc_sample_plugin" / name
        assert source.read_text().count(old) == 1
        source.write_text(source.read_text().replace(old, new))
    edited = compiled(site, tmp_path, "edited")
    step = next(entry for entry in edited["passes"] if entry["name"] == "round_weights")
    assert not step["cached"] and step["metrics"]["bits"] == 2
    rows = {name: row["mse"] for name, row in edited["accuracy"]["test"].items()}
    before = {name: row["mse"] for name, row in first["accuracy"]["test"].items()}
    for row in ("student", "supervised", "teacher"):
        assert rows[row] != before[row], row

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
