"""Registries: built-in names, plugins of other packages whole and broken, the nearest name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tsfmc.compiler.base.errors import PluginError, UsageError
from tsfmc.compiler.base.registry import Registry
from tsfmc.compiler.driver.recipe import PRESETS, resolve
from tsfmc.compiler.frontends import FRONTENDS
from tsfmc.compiler.students import STUDENTS
from tsfmc.passes import PASSES
from tsfmc.targets import TARGETS

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a real distribution with entry points on the path, as pip would install it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules: list[str] = []

    def install(package: str, code: str, entry_points: str) -> None:
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        modules.append(module)

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("registry", "group"),
    [
        (FRONTENDS, "tsfmc.teachers"),
        (STUDENTS, "tsfmc.students"),
        (PASSES, "tsfmc.passes"),
        (TARGETS, "tsfmc.targets"),
    ],
)
def test_everything_listed_can_be_imported(registry: Registry, group: str) -> None:
    assert registry.group == group
    assert all(registry[name] is not None for name in registry)


def test_a_plugin_of_another_package_joins(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("my-passes", "class Shout:\n    name = 'shout'\n", "[tsfmc.passes]\nshout = my_passes:Shout\n")
    registry = Registry("pass", {}, plural="passes")
    assert list(registry) == ["shout"] and registry["shout"].name == "shout"
    assert not warnings_of(caplog)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nowhere\n", "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("class Cry: pass\n", "cannot be imported: AttributeError"),
        ("def broken(:\n", "cannot be imported: SyntaxError"),
        ("class Shout: pass\n", "is my_passes:Shout, which is no Pass"),
    ],
)
def test_a_broken_plugin_breaks_its_own_use_only(
    install: Install, caplog: pytest.LogCaptureFixture, code: str, reason: str
) -> None:
    install("my-passes", code, "[tsfmc.passes]\nshout = my_passes:Shout\n")
    registry = Registry(
        "pass", {"distill": "passes.distill:Distill"}, "passes", contract="compiler.ir.passes:Pass"
    )
    assert registry["distill"].name == "distill" and not warnings_of(caplog)
    assert list(registry) == ["distill"] and len(registry) == 1
    (line,) = warnings_of(caplog)  # once, however often it is listed
    assert line.startswith(f"warning: pass 'shout' of package my-passes {reason}") and "\n" not in line
    with pytest.raises(PluginError, match="of package my-passes"):
        registry["shout"]


def test_a_name_that_is_taken_is_refused(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("my-passes", "class Own:\n    pass\n", "[tsfmc.passes]\ndistill = my_passes:Own\n")
    registry = Registry("pass", {"distill": "passes.distill:Distill"}, "passes")
    assert registry["distill"].__module__ == "tsfmc.passes.distill"
    assert list(registry) == ["distill"]
    (line,) = warnings_of(caplog)
    assert "pass 'distill' of package my-passes is left out: the name belongs to tsfmc" in line


def test_of_two_plugins_of_one_name_the_second_is_refused(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("b-passes", "class Shout:\n    loud = 2\n", "[tsfmc.passes]\nshout = b_passes:Shout\n")
    install("a-passes", "class Shout:\n    loud = 1\n", "[tsfmc.passes]\nshout = a_passes:Shout\n")
    registry = Registry("pass", {}, "passes")
    assert list(registry) == ["shout"] and registry["shout"].loud == 1
    (line,) = warnings_of(caplog)
    assert "pass 'shout' of package b-passes is left out: the name belongs to package a-passes" in line


def test_a_wrong_name() -> None:
    with pytest.raises(UsageError, match=r"unknown target 'onxn' \(did you mean 'onnx'\? known: c, onnx"):
        TARGETS["onxn"]


def test_students_bring_their_presets() -> None:
    """The driver keeps what belongs to no student: the base, and the recipe without a student."""
    kept = {path.stem for path in PRESETS.iterdir()}
    assert {"base", "none"} <= kept and not kept & set(STUDENTS)
    recipe = resolve(named={"student.kind": "itransformer"})
    assert recipe.student.config["width"] == 512 and "distill" in recipe.pipeline
    assert resolve(named={"student.kind": "itransformer", "student.width": 64}).student.config["width"] == 64
    assert resolve().student.kind == "dlinear" and resolve().student.config["maps"] == "auto"
