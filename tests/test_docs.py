"""The documentation says what is there, and its example runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from tsfmc.compiler.cli import cli
from tsfmc.passes import PASSES

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
EXAMPLE = ROOT / "docs" / "examples" / "plugin"


def test_the_quickstart_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "examples" / "quickstart.py", tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert "passes: record_teacher -> " in done.stdout and "forecast of EWR_temp: [" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    snippets = re.findall(r'^--8<-- "([^"]+)"$', text, re.MULTILINE)
    assert len(snippets) == text.count("--8") and (snippets or not page.name.startswith("add-"))
    for snippet in snippets:
        assert (ROOT / snippet).is_file(), snippet
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).is_file(), link
    for place in re.findall(r"`((?:compiler|passes|targets|tests|docs|benchmarks)/[\w./-]*)`", text):
        assert (ROOT / place).exists(), place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_have_their_options(page: Path) -> None:
    """Every ``tsfmc`` line is parsed by the command itself, without running it."""
    for line in re.sub(r"\\\n\s*", "", page.read_text()).splitlines():
        if not line.startswith("    tsfmc "):
            continue
        _, name, *arguments = shlex.split(line, comments=True)
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, line
        command.make_context(name, arguments)


def test_code_of_the_pages_is_that_of_the_example() -> None:
    """What the pages show beside whole files: the test file and the entry points."""
    tests = (EXAMPLE / "tests" / "test_contracts.py").read_text()
    points = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    for kind, plural in (
        ("teacher", "teachers"),
        ("student", "students"),
        ("pass", "passes"),
        ("target", "targets"),
    ):
        text = (ROOT / "docs" / f"add-a-{kind}.md").read_text()
        shown = re.findall(r"```python\n(from tsfmc.*?)```", text, re.DOTALL)
        (function,) = (code[code.index("def test_") :] for code in shown)
        for line in filter(None, (line.partition("  #")[0].rstrip() for line in function.splitlines())):
            assert line in tests, (kind, line)
        ((name, where),) = points[f"tsfmc.{plural}"].items()
        assert f'{name} = "{where}"' in text or "pyproject.toml" in text


def test_every_pass_is_on_its_pages() -> None:
    design = (ROOT / "docs" / "design.md").read_text()
    reference = (ROOT / "docs" / "reference" / "passes.md").read_text()
    for name in PASSES:
        assert re.search(rf"^    {name}  ", design, re.MULTILINE), name
        assert f"::: tsfmc.passes.{name}\n" in reference, name


def test_commands_of_the_workflow_have_their_options() -> None:
    """The file that users copy: its steps are commands of this package, and one of them is a gate."""
    steps = yaml.safe_load((ROOT / "docs/examples/github-workflow.yml").read_text())["jobs"]["latency"][
        "steps"
    ]
    lines = [step["run"].partition(">")[0] for step in steps if step.get("run", "").startswith("tsfmc ")]
    gates = []
    for line in lines:
        _, name, *arguments = shlex.split(line)
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, line
        gates.append(command.make_context(name, arguments).params.get("min_speedup"))
    assert len(lines) == 3 and any(gates)


def test_the_ci_runs_what_the_workflow_shows() -> None:
    """Every tsfmc line of the project's own CI is parsed too."""
    text = re.sub(r"\\\n\s*", "", (ROOT / ".ci/run").read_text())
    lines = re.findall(r"\.venv/bin/tsfmc (bench|compile) ([^>|\n]*)", text)
    assert {name for name, _ in lines} == {"bench", "compile"}
    for name, arguments in lines:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        command.make_context(name, shlex.split(arguments))
