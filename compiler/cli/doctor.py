"""``tsfmc doctor``."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

import click

from .output import as_json, print_json, print_table, say

PACKAGES = ("tsfmc", "torch", "onnx", "onnxruntime", "onnxscript", "accelerate", "huggingface_hub", "pandas")


@click.command()
@as_json
def command(as_json: bool) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    from ...passes import PASSES
    from ...targets import TARGETS
    from ..base.content import cache_root
    from ..base.engines import EXECUTORS
    from ..frontends import FRONTENDS
    from ..students import STUDENTS

    found = [("python", platform.python_version())]
    for package in PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            found.append((package, "missing: pip install tsfmc"))
    found.append(("cache", str(cache_root())))
    targets = dict(TARGETS.each(lambda target: target.probe()))
    plugins = [each for kinds in (FRONTENDS, STUDENTS, PASSES, TARGETS, EXECUTORS) for each in kinds.report()]
    if as_json:
        report = {
            kind: {
                "can_lower": t.can_lower,
                "can_run": t.can_run,
                "facts": dict(t.facts),
                "problems": t.problems,
            }
            for kind, t in targets.items()
        }
        print_json(
            {
                "environment": dict(found),
                "targets": report,
                "plugins": [asdict(plugin) for plugin in plugins],
            }
        )
        return
    print_table(("part", "found"), found)
    say()
    for kind, here in targets.items():
        state = (
            "ready"
            if here.can_lower and not here.problems
            else "limited"
            if here.can_lower
            else "unavailable"
        )
        facts = "  ".join(f"{name} {value}" for name, value in here.facts.items())
        say(f"{kind}: {state}  {facts}".rstrip())
        for problem in here.problems:
            say(f"    {problem}")
    if plugins:
        say()
        print_table(
            ("plugin", "name", "package", "state"),
            [(each.kind, each.name, each.package, each.problem or "ready") for each in plugins],
        )
