"""The command line, end to end on small real parts: a compile, what follows from it, and every refusal."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from factory import write_series, write_teacher

import tsfmc
from tsfmc.compiler.cli import cli, main
from tsfmc.targets.artifact.hashes import payload_sha256

PIPELINE = ["record_teacher", "build_student", "weight_horizons", "align_temporal", "distill", "fold_affine"]
# The exact solution of the default pipeline searches a grid; one epoch of distillation is quick.
SMALL = [
    "--lookback", "48", "--horizon", "12", "--set", f"pipeline={json.dumps(PIPELINE)}",
    "--set", "student.embedding=16", "--set", "passes.distill.epochs=1",
    "--set", "measure.duration_s=0.2", "--set", "measure.teacher_forms=['eager']",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a series, a teacher, a cache, and one compiled artifact in ``out/onnx``."""
    folder = tmp_path_factory.mktemp("cli")
    write_series(folder / "series.csv")
    write_teacher(folder / "teacher")
    done = tsfmc_process(folder, "compile", "--teacher", "teacher", "--data", "series.csv", *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    (folder / "compile.json").write_text(done.stdout)
    (folder / "compile.log").write_text(done.stderr)
    return folder


def tsfmc_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TSFMC_CACHE": str(folder / "cache"), "TSFMC_DATA": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", "tsfmc", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """In this process: quicker than a new one.  Returns exit code, stdout, stderr."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("TSFMC_CACHE", str(place / "cache"))
    monkeypatch.setenv("TSFMC_DATA", str(place))
    monkeypatch.setattr(sys, "argv", ["tsfmc", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def test_compile_json(place: Path) -> None:
    result = json.loads((place / "compile.json").read_text())
    assert result["artifacts"] == {"onnx": "out/onnx"}
    manifest = result["manifests"]["onnx"]
    assert manifest == json.loads((place / "out/onnx/manifest.json").read_text())
    assert manifest["level"] == "executed" and manifest["parity"]["passed"]
    assert (manifest["task"]["step_seconds"], manifest["task"]["missing"]) == (3600, "error")
    assert set(manifest["accuracy"]["test"]) == {"student", "supervised", "teacher", "seasonal_naive"}
    assert manifest["data"]["windows"]["test"] == manifest["accuracy"]["test"]["student"]["windows"]
    scenarios = manifest["latency"]["scenarios"]
    assert list(scenarios) == ["interval", "stream"] and manifest["latency"]["host"]["cores"]
    for record in scenarios.values():
        assert record["speedup"] > 0 and [row["name"] for row in record["teachers"]] == ["eager"]
        assert "interleaved" in record["method"] and record["teacher"]["cpu_median_us"] > 0
    assert [entry["name"] for entry in manifest["passes"]] == PIPELINE
    assert manifest["student"]["parameters"] == 48 * 12
    assert "distill" in (place / "compile.log").read_text()


def test_nothing_of_this_machine_is_in_the_artifact(place: Path) -> None:
    for file in (place / "out").rglob("*"):
        if file.is_file():
            assert str(place).encode() not in file.read_bytes(), file


def test_equal_compiles_give_equal_payload_bytes(place: Path) -> None:
    again = ["compile", "--teacher", "teacher", "--data", "series.csv", *SMALL, "--no-baseline", "--no-cache"]
    assert tsfmc_process(place, *again, "-o", "again").returncode == 0
    assert payload_sha256(place / "out/onnx") == payload_sha256(place / "again/onnx")


def test_lock_compiles_to_the_same_payload(place: Path) -> None:
    done = tsfmc_process(place, "compile", "--recipe", "out/recipe.lock.toml", "-o", "locked")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["locked/onnx"]
    assert "from the cache" in done.stderr
    assert payload_sha256(place / "out/onnx") == payload_sha256(place / "locked/onnx")


def test_forecast_equals_the_python_face(place: Path, monkeypatch: Any, capsys: Any) -> None:
    code, out, _ = run(place, monkeypatch, capsys, "forecast", "out/onnx", "--input", "series.csv")
    assert code == 0
    (place / "forecast.csv").write_text(out)
    found = pd.read_csv(place / "forecast.csv", parse_dates=["date"])
    series = pd.read_csv(place / "series.csv", parse_dates=["date"])
    assert len(found) == 12
    assert found["date"][0] - series["date"].iloc[-1] == pd.Timedelta(hours=1)
    past = series[["v0", "v1", "v2"]].to_numpy()[-48:].T
    forecast = tsfmc.load(place / "out/onnx").forecast(past)
    assert forecast.shape == (3, 12)
    assert abs(found[["v0", "v1", "v2"]].to_numpy().T - forecast).max() < 1e-9


def test_verify_inspect_bench(place: Path, monkeypatch: Any, capsys: Any) -> None:
    code, out, _ = run(place, monkeypatch, capsys, "verify", "out/onnx")
    assert code == 0 and "self-test" in out
    code, out, _ = run(place, monkeypatch, capsys, "inspect", "out/onnx")
    assert code == 0 and "test accuracy" in out and "speed-up" in out
    against = ["bench", "out/onnx", "--against", "teacher", "--teacher", "teacher", "--forms", "eager"]
    against += ["--duration", "0.2"]
    code, out, _ = run(place, monkeypatch, capsys, *against, "--format", "gha")
    entries = json.loads(out)
    assert code == 0 and all({"name", "unit", "value", "range", "extra"} == set(entry) for entry in entries)
    code, _, err = run(place, monkeypatch, capsys, *against, "--min-speedup", "1e9")
    assert code == 4 and "speed-up" in err and "its lower end must be at least 1e+09x" in err
    code, out, _ = run(place, monkeypatch, capsys, *against, "--format", "json", "--scenario", "interval")
    assert code == 0 and list(json.loads(out)[0]["scenarios"]) == ["interval"]
    (place / "baseline.json").write_text(
        out.replace('"speedup_interval": [', '"speedup_interval": [1e9, 2e9, ')
    )
    baseline = [*against, "--scenario", "interval", "--allow-noisy", "--fail-on-regression", "baseline.json"]
    code, _, err = run(place, monkeypatch, capsys, *baseline)
    assert code == 2 and "the baseline has none of these artifacts" in err, "three ends are no interval"
    (place / "baseline.json").write_text(out)
    code, out, err = run(place, monkeypatch, capsys, *baseline, "--format", "md")
    assert code == 0 and out.startswith("| artifact | scenario |"), err


def test_the_teacher_travels_and_a_device_measures_both(place: Path, monkeypatch: Any, capsys: Any) -> None:
    """The whole loop: compile --with-teacher, run.py bench --record, bench --record."""
    arguments = [
        "compile",
        "--recipe",
        "out/recipe.lock.toml",
        "--with-teacher",
        "--no-baseline",
        "-o",
        "both",
    ]
    code, _, err = run(place, monkeypatch, capsys, *arguments)
    assert code == 0, err
    plain = [
        line for line in (place / "out/onnx/SHA256SUMS").read_text().splitlines() if "model.onnx" in line
    ]
    listed = (place / "both/onnx/SHA256SUMS").read_text()
    assert plain[0] in listed and "teacher/model.onnx" in listed
    sizes = [json.loads((place / out / "onnx/manifest.json").read_text())["size"] for out in ("out", "both")]
    assert sizes[0] == sizes[1], "what is measured is no part of what is shipped"
    command = [
        sys.executable,
        "-I",
        "both/onnx/run.py",
        "bench",
        "--duration",
        "0.1",
        "--record",
        "latency.json",
    ]
    subprocess.run(command, cwd=place, check=True, capture_output=True)
    code, out, err = run(place, monkeypatch, capsys, "bench", "both/onnx", "--record", "latency.json")
    assert code == 0 and "teacher, onnx" in out and "measured   on" in out, err
    (device,) = json.loads((place / "both/onnx/manifest.json").read_text())["latency"]["devices"]
    assert device["scenarios"]["interval"]["speedup"] > 0
    assert run(place, monkeypatch, capsys, "verify", "both/onnx")[0] == 0
    against = ["bench", "both/onnx", "--against", "teacher", "--forms", "onnx", "--duration", "0.1"]
    assert run(place, monkeypatch, capsys, *against)[0] == 0, "without the teacher's weights"
    code, _, err = run(place, monkeypatch, capsys, "bench", "out/onnx", "--record", "latency.json")
    assert code == 5 and "measured on another artifact" in err


def test_an_edited_artifact_is_refused(place: Path, monkeypatch: Any, capsys: Any) -> None:
    shutil.copytree(place / "out/onnx", place / "edited", dirs_exist_ok=True)
    with (place / "edited/model.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"x")
    for command in (["verify", "edited"], ["forecast", "edited", "--input", "series.csv"]):
        code, out, err = run(place, monkeypatch, capsys, *command)
        assert code == 5 and "model.onnx" in err and out == "" and "Traceback" not in err


def test_missed_budget_keeps_the_artifact(place: Path, monkeypatch: Any, capsys: Any) -> None:
    arguments = [
        "compile",
        "--recipe",
        "out/recipe.lock.toml",
        "-o",
        "gated",
        "--budget",
        "max_payload_bytes=10",
    ]
    code, out, err = run(place, monkeypatch, capsys, *arguments)
    assert code == 4 and "payload" in err and "budget 10" in err
    assert (place / "gated/onnx/manifest.json").is_file()
    # What was made and measured is told all the same, and the miss last.
    assert out == "gated/onnx\n" and err.index("test accuracy") < err.index("budget 10")


def test_stop_after_writes_no_artifact(place: Path, monkeypatch: Any, capsys: Any) -> None:
    arguments = ["compile", "--teacher", "teacher", "--data", "series.csv", *SMALL, "-o", "stopped"]
    code, out, _ = run(
        place, monkeypatch, capsys, *arguments, "--stop-after", "build_student", "--dump-after", "all"
    )
    assert code == 0 and out == ""
    assert sorted(path.name for path in (place / "stopped").rglob("*.txt")) == [
        "001_import.txt",
        "002_record_teacher.txt",
        "003_build_student.txt",
    ]
    assert not (place / "stopped/onnx").exists()


def test_stages_are_dumped_and_stopped_after_like_passes(place: Path, monkeypatch: Any, capsys: Any) -> None:
    """After ``lower`` the dump has the payload's files and hashes, and nothing of it stays."""
    arguments = ["compile", "--teacher", "teacher", "--data", "series.csv", *SMALL, "--no-baseline"]
    arguments += ["-o", "lowered", "--stop-after", "onnx.lower", "--dump-after", "onnx.lower", "--json"]
    texts = []
    for _ in range(2):
        code, out, _ = run(place, monkeypatch, capsys, *arguments)
        assert code == 0 and json.loads(out)["artifacts"] == {}
        assert [path.name for path in (place / "lowered").iterdir()] == ["dump"]
        (dump,) = (place / "lowered/dump").iterdir()
        assert dump.name.endswith("_onnx.lower.txt")
        texts.append(dump.read_text())
    assert texts[0] == texts[1]
    digest = hashlib.sha256((place / "out/onnx/model.onnx").read_bytes()).hexdigest()
    assert (
        f"model.onnx bytes={(place / 'out/onnx/model.onnx').stat().st_size} sha256={digest[:16]}" in texts[0]
    )
    assert "program   past [batch, 3, 48] -> forecast [batch, 3, 12]" in texts[0]


def test_teacher_store_needs_no_teacher(place: Path, monkeypatch: Any, capsys: Any) -> None:
    teach = ["teach", "--teacher", "teacher", "--data", "series.csv", "--lookback", "48", "--horizon", "12"]
    code, out, _ = run(place, monkeypatch, capsys, *teach, "-o", "store", "--set", "measure.duration_s=0.2")
    assert code == 0 and out.strip() == "store"
    arguments = ["compile", "--teacher-store", "store", "--data", "series.csv", *SMALL, "-o", "from-store"]
    code, out, err = run(place, monkeypatch, capsys, *arguments, "--teacher", "no-such-teacher")
    assert code == 0, err
    # Half-precision states and float32 forecasts are what a direct compile stores too.
    assert payload_sha256(place / "from-store/onnx") == payload_sha256(place / "out/onnx")


def test_cross_compiled_for_a_raspberry_pi(place: Path, monkeypatch: Any, capsys: Any) -> None:
    arguments = [
        "compile",
        "--teacher",
        "teacher",
        "--data",
        "series.csv",
        *SMALL,
        "--no-baseline",
        "-o",
        "pi",
    ]
    code, out, err = run(
        place, monkeypatch, capsys, *arguments, "--target", "tvm", "--device", "raspberry-pi-4"
    )
    assert code == 0 and out.split() == ["pi/tvm"], err
    manifest = json.loads((place / "pi/tvm/manifest.json").read_text())
    assert manifest["level"] == "emulated" and manifest.get("latency") is None
    assert "student" not in manifest["accuracy"]["test"] and "model" in manifest["accuracy"]["test"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["compil"], 2, "did you mean 'compile'"),
        (["compile", "--target", "onxx"], 2, "did you mean 'onnx'"),
        (["compile", "--student", "dlinea"], 2, "did you mean 'dlinear'"),
        (["compile", "--teacher", "ttm-r9"], 2, "did you mean 'ttm-r"),
        (["compile", "--teacher", "teacher", "--data", "EETh1"], 2, "did you mean 'ETTh1'"),
        (["compile", "--teacher", "teacher", "--data", "series.csv", "--lookback", "50"], 2, "50"),
        (["compile", "--teacher", "teacher", "--data", "series.csv", *SMALL, "--variates", "v9"], 2, "v9"),
        (["compile", "--teacher", "teacher", "--data", "series.csv", *SMALL, "--split", "9,9,9"], 2, "split"),
        (["compile", "--recipe", "absent.toml"], 2, "absent.toml"),
        (["compile", *SMALL, "--set", "passes.distill.epochs=x"], 2, "passes.distill.epochs"),
        (["compile", "--lookback", "many"], 2, "many"),
        (["compile", "--teacher-store", "nowhere"], 3, "nowhere"),
        (["inspect", "nowhere"], 3, "nowhere"),
        (
            ["teach", "--teacher", "t", "--data", "d", "-o", "s", "--train-windows", "-1"],
            2,
            "--train-windows",
        ),
        (["compile", "--device", "raspberry-pi-4"], 2, "target onnx has no devices"),
        (["compile", "--stop-after", "onnx.lowr"], 2, "did you mean 'onnx.lower'"),
        (["compile", "--dump-after", "tvm.lower"], 2, "unknown step of this pipeline 'tvm.lower'"),
        (["forecast", "out/onnx", "--input", "absent.csv"], 2, "absent.csv"),
    ],
)
def test_refusals_are_one_line(
    place: Path, monkeypatch: Any, capsys: Any, arguments: list[str], code: int, message: str
) -> None:
    before = sorted(place.iterdir())
    found, out, err = run(place, monkeypatch, capsys, *arguments)
    assert found == code, err
    assert out == "" and message in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if line.lower().startswith("error")]) == 1
    assert sorted(place.iterdir()) == before


def test_commercial_policy(place: Path, monkeypatch: Any, capsys: Any) -> None:
    config = json.loads((place / "teacher/config.json").read_text())
    shutil.copytree(place / "teacher", place / "closed", dirs_exist_ok=True)
    config.setdefault("tsfmc", {}).setdefault("origin", {}).update(
        {"licence": "CC-BY-NC-4.0", "commercial": False}
    )
    (place / "closed/config.json").write_text(json.dumps(config))
    arguments = [
        "compile",
        "--teacher",
        "closed",
        "--data",
        "series.csv",
        *SMALL,
        "--stop-after",
        "build_student",
    ]
    code, _, err = run(place, monkeypatch, capsys, *arguments, "--licence-policy", "commercial")
    assert code == 6 and "CC-BY-NC-4.0" in err
    code, _, err = run(place, monkeypatch, capsys, *arguments)
    assert code == 0 and "warning" in err and "CC-BY-NC-4.0" in err


def test_interrupt_leaves_nothing_half_written(place: Path) -> None:
    """SIGINT in the middle of a compile: exit code 130, no artifact, and the next run completes."""
    arguments = ["compile", "--teacher", "teacher", "--data", "series.csv", *SMALL[:8], "-o", "broken"]
    arguments += ["--set", "passes.distill.epochs=500", "--set", "passes.distill.patience=500"]
    environment = {**os.environ, "TSFMC_CACHE": str(place / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tsfmc", *arguments],
        cwd=place,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that started the tests in the background has them ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 2" in line:
            break
    process.send_signal(signal.SIGINT)
    tail = process.stderr.read()
    assert process.wait(60) == 130, tail
    assert "interrupted" in tail and "Traceback" not in tail
    assert not (place / "broken").exists()
    assert list((place / "cache/work").rglob("training.safetensors"))


@pytest.mark.parametrize("name", ["passes", "students", "targets", "teachers", "doctor"])
def test_lists(place: Path, monkeypatch: Any, capsys: Any, name: str) -> None:
    code, out, _ = run(place, monkeypatch, capsys, name)
    assert code == 0 and out
    code, out, _ = run(place, monkeypatch, capsys, name, "--json")
    assert code == 0 and json.loads(out)


def test_dry_run_prints_the_method(place: Path, monkeypatch: Any, capsys: Any) -> None:
    code, out, _ = run(place, monkeypatch, capsys, "compile", "--dry-run")
    assert code == 0
    steps = [line.split()[0] for line in out.splitlines()[1:]]
    assert steps == [
        "import", "record_teacher", "build_student", "weight_horizons", "gather_statistics", "add_prior",
        "solve_affine", "fold_affine", "train_baseline", "keep_statistics", "evaluate_references", "export",
        "onnx.to_onnx", "onnx.lower", "onnx.check", "onnx.measure", "onnx.keep", "onnx.pack",
    ]  # fmt: skip


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time; started = time.perf_counter()\n"
        "from tsfmc.compiler.cli import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'pandas', 'numpy', 'tvm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compile" in done.stdout


def test_every_command_has_help() -> None:
    for name in cli.list_commands(None):  # type: ignore[arg-type]
        assert cli.get_command(None, name) is not None  # type: ignore[arg-type]


def test_the_python_face_is_complete(place: Path) -> None:
    for name in tsfmc.__all__:
        assert getattr(tsfmc, name) is not None
    report = tsfmc.bench(place / "out/onnx", duration_s=0.2, scenario="stream")
    assert report.to_dict()[0]["scenarios"]["stream"]["artifact"]["p50_us"] > 0


def test_a_dry_run_refuses_a_step_that_is_none(place: Path, monkeypatch: Any, capsys: Any) -> None:
    arguments = ("compile", "--dry-run", "--stop-after", "solve_afine")
    code, _, err = run(place, monkeypatch, capsys, *arguments)
    assert code == 2 and "did you mean 'solve_affine'" in err
