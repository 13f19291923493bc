"""Registries: built-in names, plugins of other packages, and the nearest name for a wrong one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tsfmc.compiler.base.errors import UsageError
from tsfmc.compiler.base.registry import Registry
from tsfmc.compiler.frontends import FRONTENDS
from tsfmc.compiler.students import STUDENTS
from tsfmc.passes import PASSES
from tsfmc.targets import TARGETS


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


def test_a_plugin_of_another_package_joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real distribution on the path, with an entry point, as pip would install it."""
    (tmp_path / "my_passes.py").write_text("class Shout:\n    name = 'shout'\n")
    info = tmp_path / "my_passes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-passes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tsfmc.passes]\nshout = my_passes:Shout\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry("pass", {}, plural="passes")
    assert "shout" in registry and registry["shout"].name == "shout"
    sys.modules.pop("my_passes")


def test_a_wrong_name() -> None:
    with pytest.raises(UsageError, match=r"unknown target 'onxn' \(did you mean 'onnx'\? known: onnx"):
        TARGETS["onxn"]
