"""``run.py`` as a user of the device meets it: one file, numpy and onnxruntime, nothing else."""

from __future__ import annotations

import ast
import csv
import importlib.util
import io
import json
import os
import shutil
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from artifacts import MEAN, STD, VARIATES, make_artifact, make_model, raw, reference, write_history

from tsfmc.compiler.base.errors import DataError
from tsfmc.targets import TARGETS
from tsfmc.targets.artifact.device.check import find_problems
from tsfmc.targets.artifact.open import open_artifact
from tsfmc.targets.artifact.runner import DEVICE, PARTS, engine_class, render_runner
from tsfmc.targets.onnx import TARGET

RUNTIME = ("numpy", "numpy.libs", "onnxruntime", "flatbuffers", "google", "packaging")
"""numpy, onnxruntime and what onnxruntime itself requires."""


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment that holds numpy and onnxruntime only."""
    root = tmp_path_factory.mktemp("device")
    venv.create(root / "env", symlinks=True, with_pip=False)
    site = next((root / "env/lib").glob("python*/site-packages"))
    numpy_spec = importlib.util.find_spec("numpy")
    assert numpy_spec is not None and numpy_spec.origin is not None
    installed = Path(numpy_spec.origin).parent.parent
    for name in RUNTIME:
        if (installed / name).exists():
            (site / name).symlink_to(installed / name)
    return root / "env/bin/python"


@pytest.fixture(scope="module")
def art(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "art"
    make_artifact(path)
    return path


def run(device: Path, art: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``python run.py ...`` in the artifact's folder, with nothing of this process's environment."""
    return subprocess.run(
        [str(device), "run.py", *map(str, arguments)],
        cwd=art,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_device_has_neither_torch_nor_tsfmc(device: Path) -> None:
    code = (
        "import numpy, onnxruntime, importlib.util as u;"
        "print([u.find_spec(n) for n in ('torch', 'tsfmc', 'onnx')])"
    )
    done = subprocess.run(
        [str(device), "-c", code], capture_output=True, text=True, check=True, cwd="/", env={}
    )
    assert done.stdout.strip() == "[None, None, None]"


def test_forecast_from_csv_to_csv(device: Path, art: Path, tmp_path: Path) -> None:
    past = write_history(tmp_path / "past.csv", rows=40)
    done = run(device, art, "forecast", tmp_path / "past.csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows[0] == ["date", *VARIATES]
    assert [row[0] for row in rows[1:3]] == ["2024-01-02 16:00:00", "2024-01-02 17:00:00"]
    got = np.array([[float(cell) for cell in row[1:]] for row in rows[1:]]).T
    scaled = ((past - MEAN[:, None]) / STD[:, None]).astype(np.float32)
    expected = raw(reference(make_model(), scaled[None])[0])
    np.testing.assert_allclose((got - expected) / STD[:, None], 0, atol=1e-5)
    again = run(device, art, "forecast", tmp_path / "past.csv", "-o", tmp_path / "out.csv")
    assert again.returncode == 0 and again.stdout == ""
    assert (tmp_path / "out.csv").read_text() == done.stdout


def test_verify_selftest_and_bench(device: Path, art: Path) -> None:
    verified = run(device, art, "verify")
    assert (verified.returncode, verified.stdout) == (0, "ok: 5 files match SHA256SUMS\n")
    tested = run(device, art, "selftest")
    assert tested.returncode == 0 and json.loads(tested.stdout)["passed"]
    measured = run(device, art, "bench", "--queries", "64", "--duration", "0.2")
    result = json.loads(measured.stdout)
    assert list(result["scenarios"]) == ["interval", "stream"]
    cold = result["scenarios"]["interval"]["artifact"]
    assert cold["n"] >= 64 and cold["p90_us"] >= cold["p50_us"] > 0
    assert result["load_ms"] > result["first_call_ms"] > 0 and result["peak_rss_mb"] > 20


def test_as_a_module_it_leaves_the_artifact_intact(device: Path, art: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(art, tmp_path / "art"))
    code = (
        "import numpy as np; from run import Forecaster; f = Forecaster();"
        "print(f.forecast(np.ones((2, 3, 32))).shape, f.verify(), f.selftest()['passed'])"
    )
    for _ in range(2):
        done = subprocess.run(
            [str(device), "-c", code],
            cwd=copy,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "(2, 3, 8) [] True"
    assert not (copy / "__pycache__").exists(), "code without a hash"


def test_a_users_csv_may_lie_beside_it_and_nothing_else(device: Path, art: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(art, tmp_path / "art"))
    write_history(copy / "past.csv")
    assert run(device, copy, "forecast", "past.csv", "-o", "out.csv").returncode == 0
    assert run(device, copy, "verify").returncode == 0
    (copy / "onnxruntime.py").write_text("raise SystemExit('owned')")
    refused = run(device, copy, "forecast", "past.csv")
    assert refused.returncode == 5 and "onnxruntime.py is not listed" in refused.stderr


@pytest.mark.parametrize("name", ["__future__", "json", "argparse", "numpy", "os", "base64", "cryptography"])
def test_nothing_beside_it_is_imported(name: str, device: Path, art: Path, tmp_path: Path) -> None:
    """Not even before the first check: the folder leaves the path before anything is looked up on it."""
    copy = Path(shutil.copytree(art, tmp_path / "art"))
    (copy / f"{name}.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    for options, script, folder in (
        ([], "run.py", copy),
        ([], str(copy / "run.py"), tmp_path),
        (["-I"], "run.py", copy),
        (["-P"], "run.py", copy),
        (["-S"], "run.py", copy),
    ):
        done = subprocess.run(
            [str(device), *options, script, "verify"], cwd=folder, env={}, capture_output=True, text=True
        )
        assert not (tmp_path / "owned").exists(), (options, script)
        assert done.returncode == (1 if "-S" in options else 5), done.stderr  # -S: without numpy
    assert f"{name}.py is not listed" in done.stderr or "numpy" in done.stderr


def test_a_signature_is_checked_on_the_device(device: Path, art: Path, tmp_path: Path) -> None:
    """Where the device has cryptography; else one line says what to install."""
    (tmp_path / "key.pub").write_text("no key")
    for command in (["verify"], ["selftest"], ["bench"], ["forecast", "past.csv"]):
        done = run(device, art, *command, "--trust", tmp_path / "key.pub")
        assert done.returncode == 3 and done.stdout == ""
        assert done.stderr == "error: signatures need the package cryptography: pip install cryptography\n"


def test_annotations_are_strings_that_no_python_evaluates() -> None:
    tree = ast.parse(render_runner(TARGET.engine_source()))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.returns is None or isinstance(node.returns, ast.Constant), node.name
            for argument in (*node.args.args, *node.args.kwonlyargs):
                assert argument.annotation is None or isinstance(argument.annotation, ast.Constant), node.name


def test_an_edited_artifact_is_refused_in_one_line(device: Path, art: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(art, tmp_path / "art"))
    write_history(tmp_path / "past.csv")
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes()[:-1])
    for command in (("forecast", tmp_path / "past.csv"), ("verify",), ("selftest",), ("bench",)):
        done = run(device, copy, *command)
        assert done.returncode == 5 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and "model.onnx was changed" in done.stderr


def test_a_missing_runtime_says_what_to_install(art: Path, device: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", symlinks=True, with_pip=False)
    site = next((tmp_path / "env/lib").glob("python*/site-packages"))
    full = next((device.parent.parent / "lib").glob("python*/site-packages"))
    for name in ("numpy", "numpy.libs"):
        if (full / name).exists():
            (site / name).symlink_to((full / name).resolve())
    done = run(tmp_path / "env/bin/python", art, "selftest")
    assert done.returncode == 3
    assert "No module named 'onnxruntime'" in done.stderr and "needs numpy, onnxruntime>=1.23" in done.stderr


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("line", "column", "cell", "says"),
    [
        (40, 1, "abc", "line 41, column 'wind': expected a number, got 'abc'"),
        (40, 1, "", "line 41, column 'wind': expected a number, got ''"),
        (40, 3, "nan", "line 41, column 'load': expected a number, got 'nan'"),
        (39, 0, "2030-01-01", "line 40: timestamp"),
        (
            39,
            0,
            "yesterday",
            "line 40, column 'date': expected a time in the notation of",
        ),
        (0, 1, "win", "column 'wind' occurs 0 times in the header"),
        (0, 2, "wind", "column 'wind' occurs 2 times in the header"),
    ],
)
def test_bad_cells_name_file_line_and_column(
    line: int, column: int, cell: str, says: str, device: Path, art: Path, tmp_path: Path
) -> None:
    path = tmp_path / "past.csv"
    write_history(path, rows=40)
    rows = [row.split(",") for row in path.read_text().splitlines()]
    rows[line][column] = cell
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    assert_bad(run(device, art, "forecast", path), str(path), says)


def assert_bad(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1
    for part in says:
        assert part in done.stderr


def test_bad_files(device: Path, art: Path, tmp_path: Path) -> None:
    path = tmp_path / "past.csv"
    write_history(path, rows=31)
    assert_bad(run(device, art, "forecast", path), "has 31 rows, expected at least 32")
    write_history(path, rows=33)
    edit(path, "2024-01-02 05:00:00", "2024-01-02 04:00:00")
    assert_bad(
        run(device, art, "forecast", path), "timestamp 2024-01-02 04:00:00 is 0 s after the row before"
    )
    write_history(path, rows=33)
    edit(path, "2024-01-02 05:00:00", "2024-01-02 05:00:00,surplus")
    assert_bad(run(device, art, "forecast", path), "has 6 fields, expected 5")
    path.write_bytes(b"\x00\xff\xfe")
    assert_bad(run(device, art, "forecast", path), "cannot be read as CSV")
    path.write_text("")
    assert_bad(run(device, art, "forecast", path), "column 'load' occurs 0 times")
    assert_bad(run(device, art, "forecast", tmp_path / "none.csv"), "none.csv cannot be read as CSV")
    write_history(path)
    assert_bad(run(device, art, "forecast", path, "-o", tmp_path / "no/where.csv"), "cannot be written")
    assert_bad(run(device, art, "--threads", "0", "forecast", path), "threads: expected at least 1")


def test_without_timestamps_or_step_the_rows_are_numbered(device: Path, tmp_path: Path) -> None:
    task = {"lookback": 32, "horizon": 8, "variates": list(VARIATES), "frequency": None, "step_seconds": None}
    make_artifact(tmp_path / "unknown", task=task)
    write_history(tmp_path / "past.csv")
    done = run(device, tmp_path / "unknown", "forecast", tmp_path / "past.csv")
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["step", *map(str, range(1, 9))]


def test_the_packed_file_is_one_readable_python_3_8_file(art: Path) -> None:
    text = (art / "run.py").read_text()
    tree = ast.parse(text, feature_version=(3, 8))
    assert text == render_runner(TARGET.engine_source())
    modules = {
        (node.module or "").split(".")[0]
        if isinstance(node, ast.ImportFrom)
        else node.names[0].name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert "tsfmc" not in modules and "torch" not in modules
    assert [node.name for node in tree.body if isinstance(node, ast.ClassDef)].count("Engine") == 1
    assert max(map(len, text.splitlines())) <= 120


def test_an_engine_that_redefines_the_runner_is_refused(tmp_path: Path) -> None:
    (tmp_path / "engine.py").write_text("SCHEMA = 7\nclass Engine: ...\n")
    with pytest.raises(ValueError, match=r"engine\.py redefines SCHEMA"):
        render_runner(tmp_path / "engine.py")


def test_an_engine_that_imports_something_else_by_a_name_of_the_runner_is_refused(tmp_path: Path) -> None:
    (tmp_path / "engine.py").write_text("from os import stat\nclass Engine: ...\n")
    with pytest.raises(ValueError, match=r"redefines stat of|redefines stat"):
        render_runner(tmp_path / "engine.py")


def test_a_part_imports_the_names_of_another_as_they_are(tmp_path: Path) -> None:
    for line in ("from . import files", "from .files import read_text as read"):
        (tmp_path / "engine.py").write_text(f"{line}\nclass Engine: ...\n")
        with pytest.raises(ValueError, match=r"engine.py line 1: import the names of a part as they are"):
            render_runner(tmp_path / "engine.py")


def test_every_part_is_pasted_once_and_imports_come_first(art: Path) -> None:
    text = (art / "run.py").read_text()
    assert {path.parent.name for path in PARTS} == {"base", "device", "data"}
    assert {path.stem for path in DEVICE.glob("*.py")} - {"__init__"} <= {path.stem for path in PARTS}
    body = ast.parse(text).body
    imports = [ast.unparse(node) for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert imports[:3] == ["import sys", "import time", "import os"], "built in, or loaded by Python's start"
    assert "__future__" not in text.replace("``from __future__", ""), "it would come from the script's folder"
    assert (
        text.count("\ndef fill_run(") == text.count("\nclass Scaling") == text.count("\nimport json\n") == 1
    )


@pytest.mark.parametrize("kind", sorted(TARGETS))
def test_every_target_packs_into_one_file(kind: str) -> None:
    tree = ast.parse(render_runner(TARGETS[kind].engine_source()), feature_version=(3, 8))
    engine = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Engine")
    assert {"__init__", "__call__"} <= {
        node.name for node in engine.body if isinstance(node, ast.FunctionDef)
    }


def test_the_engine_class_is_the_targets_own() -> None:
    assert engine_class(TARGET.engine_source()) is engine_class(TARGET.engine_source())
    assert engine_class(TARGET.engine_source()).__name__ == "Engine"


@pytest.mark.parametrize("shape", [(0, len(VARIATES), 64), (2, len(VARIATES), 5), (len(VARIATES),)])
def test_windows_of_another_shape_are_refused(art: Path, shape: tuple[int, ...]) -> None:
    forecaster = open_artifact(art)
    if shape[-1] == 64:
        shape = (*shape[:-1], forecaster.lookback)
    with pytest.raises(DataError, match=r"past has shape .* expected \[D, L\]"):
        forecaster.forecast(np.zeros(shape))
    assert forecaster.forecast(np.zeros((1, len(VARIATES), forecaster.lookback))).shape[0] == 1


def test_a_manifest_that_is_none_is_a_problem_and_no_crash(art: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(art, tmp_path / "art"))
    (broken / "manifest.json").write_text("[]")
    (broken / "engine.plan").write_bytes(b"built here")
    problems = list(find_problems(broken))
    assert any("manifest.json" in line for line in problems) and any(
        "engine.plan" in line for line in problems
    )
