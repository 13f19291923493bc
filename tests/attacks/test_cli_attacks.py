"""Mistakes and malice on the command line: one line and a documented exit code, never a traceback.

Every option of every command is given values that no option means, in this process and through ``main``.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from artifacts import make_artifact
from factory import HORIZON, LOOKBACK, write_series

from tsfmc.compiler.base.errors import LINE, DiskError, TsfmcError, UsageError, one_line
from tsfmc.compiler.base.paths import as_disk_error, checked_path
from tsfmc.compiler.cli import COMMANDS, main
from tsfmc.compiler.driver.recipe import resolve

DOCUMENTED = {0, 2, 3, 4, 5, 6}
VALUES = {
    "empty": "",
    "blank": " ",
    "dash": "-",
    "dashes": "--",
    "root": "/",
    "here": ".",
    "null": "/dev/null",
    "full": "/dev/full",
    "folder": "folder",
    "binary": "binary",
    "binary csv": "binary.csv",
    "binary parquet": "binary.parquet",
    "digits": "9" * 400,
    "long": "x" * 10_000,
    "writing turned round": "\u202eü",
    "escape": "\x1b[2J",
    "nul": "a\0b",
    "two lines": "x\ny",
    "beyond floats": "1e400",
    "infinite": "inf",
    "not a number": "nan",
    "negative": "-1",
    "zero": "0",
    "word": "true",
    "open list": "[",
    "open object": '{"a":',
    "assignment": "student=dlinear",
    "deep": f"a={'[' * 2000}",
    "long path": ".".join("a" * 2000) + "=1",
}
BEFORE = {
    "compile": ["--dry-run"],
    "update": ["absent", "--data", "absent.csv"],
    "bench": ["absent"],
    "forecast": ["absent", "--input", "absent.csv"],
    "verify": ["absent"],
    "inspect": ["absent"],
    "teach": ["--teacher", "folder", "--data", "sample", "-o", "store"],
}
"""Arguments that bring a command to a known end; the one under attack is added, or takes its place."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with things that are no input."""
    content = bytes(range(256)) * 64
    for name in ("binary", "binary.csv", "binary.parquet"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    """Exit code and stderr; anything but an exit fails the test."""
    monkeypatch.setattr(sys, "argv", ["tsfmc", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0), capsys.readouterr().err


def attacked() -> Iterator[tuple[str, str]]:
    for command in COMMANDS:
        for parameter in import_module(f"tsfmc.compiler.cli.{command}").command.params:
            if not (isinstance(parameter, click.Option) and parameter.is_flag):
                yield command, parameter.opts[0]


@pytest.mark.parametrize(("command", "option"), attacked())
def test_no_value_of_any_option_is_a_traceback(
    command: str,
    option: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = BEFORE.get(command, [])
    for name, value in VALUES.items():
        given = [*before, option, value] if option.startswith("-") else [value, *before[1:]]
        code, err = run(monkeypatch, capsys, command, *given)
        assert code in DOCUMENTED, (name, err)
        errors = [line for line in err.splitlines() if line.lower().startswith("error:")]
        assert len(errors) == (1 if code else 0), (name, err)
        assert all(len(line) <= LINE + 20 for line in err.splitlines()), name
        assert "\x1b" not in err and "\u202e" not in err, name


RECIPES = {
    "student=dlinear": r"student: got 'dlinear', expected a section \(name its fields, such as student\.kind",
    "student.kind=[1]": "student.kind",
    "student.embedding=-3": "student dlinear cannot be built with .*embedding=-3",
    "student.embedding='x'": "cannot be built",
    "student.kernel=inf": "student.kernel: got inf",
    "student.embedding=999999999": "parameters, expected at most",
    "student=1": "student: got 1",
    "passes=3": "passes: got 3",
    "passes.distill=[1]": "passes.distill",
    "passes.solve_affine.ridge=inf": "passes.solve_affine.ridge: got inf",
    "passes.solve_affine.lambdas=[nan]": "nan is not allowed",
    "seed=nan": "nan is not allowed",
    f"seed={10**30}": "seed",
    f"seed={'9' * 5000}": "more than 64 bits",
    f"task.lookback={10**12}": "task.lookback",
    "task.lookback=inf": "task.lookback",
    "measure.duration_s=inf": "measure.duration_s",
    "measure.duration_s=nan": "nan is not allowed",
    "budget.max_p90_us=inf": "budget.max_p90_us",
    "budget.max_mse_over_teacher='nan%'": "budget.max_mse_over_teacher",
    "threads=100000000": "threads",
    "pipeline=3": "pipeline",
    "targets={}": "targets",
    "target_options=3": "target_options",
    "budget=3": "budget: got 3, expected a section",
    "teacher=''": "an empty name",
    f"teacher='{'9' * 400}'": "at most 255 bytes a name",
    f"data='{'d/' * 4000}'": "4096 in all",
    '"teacher_store"="a\\u0000b"': "teacher_store",
    ".=1": "expected names separated by dots",
    "task..lookback=1": "expected names separated by dots",
    f"a={'[' * 70}{']' * 70}": "nested",
    "task.max_filled=2": "task.max_filled",
}


@pytest.mark.parametrize("setting", RECIPES)
def test_wrong_settings_name_the_field(
    setting: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    code, err = run(monkeypatch, capsys, "compile", "--dry-run", "--set", setting)
    assert code == 2 and re.search(RECIPES[setting], err), err


@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"[" * 100_000,
        b"a = " + b"9" * 10_000,
        b"[a" + b".a" * 5000 + b"]",
        b"\xff\xfe",
        b"a" * (2 << 20),
        b"passes = 3",
        b"[student]\nkind = nan",
        b"version = [1]",
    ],
)
def test_hostile_recipes_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        resolve(file=tmp_path / "recipe.toml")
    assert len(str(caught.value)) <= LINE and "\n" not in str(caught.value)


def test_a_recipe_that_is_a_folder_or_a_device(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(UsageError, match="expected a file"):
            resolve(file=path)


def test_infinity_is_a_weight_where_it_means_the_teacher_alone() -> None:
    recipe = resolve(settings=["passes.build_student.lambda_kd=inf", "passes.solve_affine.lambdas=[inf]"])
    from tsfmc.compiler.driver.pipeline import build_passes

    assert build_passes(recipe)


@pytest.mark.parametrize(
    ("name", "what"), [("", "empty"), ("a\0b", "NUL"), ("9" * 400, "255"), ("d/" * 3000, "4096")]
)
def test_names_that_are_no_paths(name: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        checked_path(name, "--data")


def test_an_error_is_one_line_whatever_is_in_it() -> None:
    error = TsfmcError("no \x1b[31m 'a\nb' \u202e" + "x" * 5000, hint="y " * 5000)
    assert "\n" not in str(error) and "\x1b" not in str(error) and len(str(error)) <= LINE
    assert one_line("as it is: é 字") == "as it is: é 字"


# The disk


def child(
    place: Path, *arguments: str, before: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """A command of its own, after the Python statements ``before``."""
    called = (
        f"import sys\nsys.argv = ['tsfmc', *{list(arguments)!r}]\nfrom tsfmc.compiler.cli import main\nmain()"
    )
    code = f"{before}\n{called}"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("out", "cache", "what"),
    [
        ("/proc/out", "cache", "the out directory /proc/out cannot be written to"),
        ("file", "cache", "--out file is not a directory"),
        ("file/out", "cache", "the out directory file/out cannot be written to"),
        ("out", "/proc/cache", "the cache directory /proc/cache cannot be written to"),
        ("out", "file/cache", "the cache directory"),
    ],
)
def test_no_place_to_write_is_found_before_anything_is_done(
    out: str,
    cache: str,
    what: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (place / "file").write_text("")
    monkeypatch.setenv("TSFMC_CACHE", cache)
    code, err = run(monkeypatch, capsys, "compile", "-o", out)
    assert code in (2, 3) and what in err and "import" not in err, err
    assert not (place / "out").exists()


def test_a_disk_without_room_is_refused_and_nothing_is_left(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from tsfmc.compiler.base.paths import require_room

    nearly = shutil.disk_usage(place)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nearly)
    with pytest.raises(DiskError, match=r"has 0\.0 MB free, about 5\.0 MB are needed"):
        require_room(place / "a" / "b", 5_000_000, "the out directory", "make room")
    assert not (place / "a").exists()


def test_a_disk_that_fills_up_is_one_line_and_keeps_the_old_artifact(place: Path) -> None:
    """A file may have at most so many bytes: what a full disk does, without one."""
    write_series(place / "series.csv", rows=300, variates=1)
    make_artifact(place / "out" / "onnx")
    arguments = [
        *("compile", "--data", "series.csv", "--lookback", str(LOOKBACK), "--horizon", str(HORIZON)),
        *(
            "--no-cache",
            "--no-baseline",
            "--set",
            "pipeline=['build_student']",
            "--set",
            "student.maps='shared'",
        ),
        *("--set", "measure.duration_s=0.1", "--set", "measure.min_queries=64"),
    ]
    old = {path: path.read_bytes() for path in (place / "out").rglob("*") if path.is_file()}
    limit = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
    done = child(place, *arguments, before=limit)
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert {path: path.read_bytes() for path in (place / "out").rglob("*") if path.is_file()} == old


def test_what_libraries_say_of_a_full_disk_is_understood() -> None:
    full = Exception("Error while serializing: IoError(Os { code: 28, kind: StorageFull, ... })")
    for error in (
        full,
        OSError(28, "No space left on device", "x"),
        OSError("1000 requested and 24 written"),
    ):
        found = as_disk_error(error)
        assert found is not None and "the disk is full" in str(found)
    assert as_disk_error(ValueError("else")) is None and as_disk_error(FileNotFoundError(2, "x")) is None


# The hub and licences


@pytest.fixture
def silent_hub() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


FETCH = """
import sys, time
from tsfmc.compiler.frontends import open_teacher
from tsfmc.compiler.base.errors import MissingError
import huggingface_hub
began = time.monotonic()
try:
    open_teacher("moirai-small", lookback=48, horizon=12, variates=1)
except MissingError as error:
    print(f"{time.monotonic() - began:.2f}\\n{error}")
"""


@pytest.mark.parametrize("kind", ["silent", "refusing"])
def test_a_hub_that_does_not_answer_is_given_up_soon(kind: str, silent_hub: str, tmp_path: Path) -> None:
    address = silent_hub if kind == "silent" else "http://127.0.0.1:9"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", FETCH],
        env={**inherited, "HF_HOME": str(tmp_path), "HF_ENDPOINT": address},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    seconds, message = done.stdout.splitlines()
    assert float(seconds) < 6, message  # 3 s of waiting; 40 s and more before
    assert f"{address} gave no answer within 3 s" in message and "or put the two files into" in message


@pytest.mark.parametrize(
    ("teacher", "licence"), [("moirai-small", "CC-BY-NC-4.0"), ("nobody/nothing", "an unknown licence")]
)
def test_a_licence_is_refused_before_anything_is_fetched(
    teacher: str,
    licence: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tsfmc.compiler.frontends import hub

    def fetch(*arguments: object) -> Path:
        raise AssertionError("downloaded")

    monkeypatch.setattr("tsfmc.compiler.frontends.loading.fetch", fetch)
    monkeypatch.setattr(hub, "_is_answering", lambda: False)
    for more in ([], ["--dry-run"]):
        arguments = ["compile", "--teacher", teacher, "--licence-policy", "commercial", *more]
        code, err = run(monkeypatch, capsys, *arguments)
        assert code == 6 and f"the weights of {teacher} are under {licence}" in err, err


# The plan


def test_the_plan_reads_the_data(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(place / "series.csv", rows=300, variates=2)
    task = ["--lookback", str(LOOKBACK), "--horizon", str(HORIZON)]
    began = time.monotonic()
    code, err = run(monkeypatch, capsys, "compile", "--data", "series.csv", *task, "--dry-run")
    assert code == 0 and time.monotonic() - began < 10
    assert "data       series: 300 rows, 2 variates (v0, v1), step h" in err
    assert "time       2024-01-01 00:00:00 to 2024-01-13 11:00:00" in err
    assert "split      train 210 rows, 151 windows; val 30 rows, 19 windows; test 60 rows, 49 windows" in err
    (place / "bad.csv").write_text("date,a\n2024-01-01,x\n2024-01-02,1\n")
    code, err = run(monkeypatch, capsys, "compile", "--data", "bad.csv", *task, "--dry-run")
    assert code == 2 and "bad.csv: row 2, column 'a' is 'x'" in err
    code, err = run(monkeypatch, capsys, "compile", "--data", "series.csv", "--dry-run")
    assert code == 2 and "one window of lookback 512" in err


def test_the_plan_fetches_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tsfmc.compiler.api import make_recipe, plan

    monkeypatch.delenv("TSFMC_DATA", raising=False)
    facts = plan(make_recipe(data="traffic"))["data"]
    assert facts["rows"] == 17544 and facts["fetched_from"].startswith("https://")
    json.dumps(facts)
