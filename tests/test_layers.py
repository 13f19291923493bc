"""No circles between modules: imports, lazy and type-checking ones too, and the strings of the registries.

Layers are a contract in pyproject.toml, which ``lint-imports`` holds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

import tsfmc
from tsfmc.compiler.base.engines import EXECUTORS
from tsfmc.compiler.frontends import FRONTENDS
from tsfmc.compiler.students import STUDENTS
from tsfmc.passes import PASSES
from tsfmc.targets import TARGETS
from tsfmc.targets.packages import LAYOUTS

ROOT = Path(tsfmc.__file__).resolve().parent
HOUSE = ("tsfmc.compiler", "tsfmc.passes", "tsfmc.targets")
REGISTRIES = {
    "tsfmc.compiler.base.engines": EXECUTORS,
    "tsfmc.compiler.frontends.families": FRONTENDS,
    "tsfmc.compiler.students": STUDENTS,
    "tsfmc.passes": PASSES,
    "tsfmc.targets": TARGETS,
    "tsfmc.targets.packages": LAYOUTS,
}

Edges = dict[str, set[str]]


@pytest.fixture(scope="module")
def edges() -> Edges:
    """Module -> modules that it imports or names in a registry."""
    graph = grimp.build_graph("tsfmc", cache_dir=None)
    found = {
        module: {other for other in graph.find_modules_directly_imported_by(module) if in_house(other)}
        for module in graph.modules
        if in_house(module)
    }
    for module, registry in REGISTRIES.items():
        found[module] |= {point.module for point in registry.builtin.values()}
    return found


def in_house(module: str) -> bool:
    return module.startswith(HOUSE)


def circles(edges: Edges) -> Iterator[list[str]]:
    """One circle for every group of modules that reach each other."""
    done: set[str] = set()
    for start in sorted(edges):
        if start in done:
            continue
        path = shortest_circle(edges, start)
        if path:
            done |= set(path)
            yield path


def shortest_circle(edges: Edges, start: str) -> list[str]:
    """The shortest way from a module back to itself, empty where there is none."""
    came: dict[str, str] = {}
    front = [start]
    while front:
        following = []
        for module in front:
            for other in sorted(edges.get(module, ())):
                if other == start:
                    way = [module]
                    while way[-1] != start:
                        way.append(came[way[-1]])
                    return [*reversed(way), start]
                if other not in came:
                    came[other] = module
                    following.append(other)
        front = following
    return []


def test_no_module_reaches_itself(edges: Edges) -> None:
    assert not [" -> ".join(path) for path in circles(edges)]


def test_a_circle_would_be_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert list(circles(edges)) == [["a", "b", "c", "a"]]


def test_the_names_of_a_registry_are_edges(edges: Edges) -> None:
    assert "tsfmc.targets.onnx" in edges["tsfmc.targets"]
    assert "tsfmc.passes.distill" in edges["tsfmc.passes"]


def test_every_registry_is_listed_here() -> None:
    """A new registry joins ``REGISTRIES``."""
    found = set()
    for path in ROOT.joinpath("compiler").rglob("*.py"):
        found |= registry_of(path)
    for top in ("passes", "targets"):
        found |= {module for path in (ROOT / top).rglob("*.py") for module in registry_of(path)}
    assert found == set(REGISTRIES)


def registry_of(path: Path) -> set[str]:
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    if not any(isinstance(call.func, ast.Name) and call.func.id == "Registry" for call in calls):
        return set()
    parts = path.relative_to(ROOT).with_suffix("").parts
    return {".".join(("tsfmc", *(part for part in parts if part != "__init__")))}
