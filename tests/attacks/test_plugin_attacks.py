"""Packages of others that are broken: they lose their own use and a line, nobody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = {
    "ends the process": "import sys\nsys.exit('bye')\n",
    "is something else": "Half = Own = Loud = 3\n",
    "breaks when described": (
        "from tsfmc.compiler.students.dlinear import DLinear\n"
        "from tsfmc.targets.onnx import OnnxTarget\n"
        "from tsfmc.compiler.ir.passes import Pass\n"
        "class Half(DLinear):\n    def __init__(self, **options): raise ValueError('no\\nluck')\n"
        "class Own(OnnxTarget):\n    kind = 'own'\n    def probe(self): raise OSError('no luck')\n"
        "OWN = Own()\n"
        "class Loud(Pass):\n    summary = property(lambda self: 1 / 0)\n"
    ),
}


def install(folder: Path, code: str, points: str, name: str | None = "half-done") -> Path:
    """A distribution as pip would leave it, with broken metadata for ``name`` None."""
    site = folder / "site"
    info = site / "half_done-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "half_done.py").write_text(code)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" if name else ""
    (info / "METADATA").write_text(text)
    (info / "entry_points.txt").write_text(points)
    return site


def tsfmc(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "tsfmc", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


EVERYWHERE = "".join(
    f"[tsfmc.{group}]\nhalf = half_done:{attribute}\n"
    for group, attribute in (
        ("teachers", "Half"),
        ("students", "Half"),
        ("passes", "Loud"),
        ("targets", "OWN"),
    )
)


@pytest.mark.parametrize("kind", CODE)
def test_every_other_command_works_and_doctor_names_it(kind: str, tmp_path: Path) -> None:
    """One process asks all commands, one after the other: starting takes longer than answering."""
    site = install(tmp_path, CODE[kind], EVERYWHERE)
    script = (
        "import sys, json\nfrom click.testing import CliRunner\nfrom tsfmc.compiler.cli import cli\n"
        "told = {}\n"
        "for name in ('teachers', 'students', 'passes', 'targets', 'doctor'):\n"
        "    done = CliRunner().invoke(cli, [name, '--json'], standalone_mode=False)\n"
        "    told[name] = [repr(done.exception), done.stdout]\n"
        "done = CliRunner().invoke(cli, ['compile', '--dry-run'], standalone_mode=False)\n"
        "told['compile'] = [repr(done.exception), done.stdout]\n"
        "print('TOLD' + json.dumps(told))"
    )
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.split("TOLD")[1])
    assert {name: problem for name, (problem, _) in told.items()} == dict.fromkeys(told, "None")
    listed = json.loads(told["doctor"][1])["plugins"]
    assert [each["name"] for each in listed] == ["half"] * 4
    assert {each["package"] for each in listed} == {"half-done"}
    if kind != "breaks when described":
        assert all("of package half-done" in each["problem"] for each in listed)
    assert "solve_affine" in told["compile"][1]


def test_a_broken_target_costs_its_own_use_only(tmp_path: Path) -> None:
    site = install(tmp_path, CODE["ends the process"], "[tsfmc.targets]\nhalf = half_done:OWN\n")
    used = tsfmc(site, "compile", "--target", "half", "--dry-run")
    assert used.returncode == 3 and "Traceback" not in used.stderr
    assert used.stderr.splitlines()[-1].startswith(
        "error: target 'half' of package half-done cannot be imported"
    )


def test_names_that_it_cannot_have_are_said_even_when_the_built_in_is_used(tmp_path: Path) -> None:
    wanted = {
        "dlinear": "the name belongs to tsfmc",
        "ITransformer": "the name belongs to tsfmc",
        "none": "the name cannot be used",
        "../up": "the name cannot be used",
        "two words": "the name cannot be used",
    }
    points = "".join(f"{name} = half_done:Half\n" for name in wanted)
    site = install(tmp_path, "Half = 3\n", f"[tsfmc.students]\n{points}")
    done = tsfmc(site, "compile", "--student", "dlinear", "--dry-run")
    assert done.returncode == 0, done.stderr
    for name, what in wanted.items():
        assert f"warning: student {name!r} of package half-done is left out: {what}" in done.stderr


def test_a_distribution_without_a_name(tmp_path: Path) -> None:
    site = install(tmp_path, "Half = 3\n", "[tsfmc.students]\nhalf = half_done:Half\n", name=None)
    done = tsfmc(site, "students")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
