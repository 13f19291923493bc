"""Effects as data: what a pass declares is enforced, keyed, cached, and decides the supervised baseline."""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from importlib import import_module, reload
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tsfmc.compiler.base import content
from tsfmc.compiler.base.errors import PassError, RecipeError
from tsfmc.compiler.driver.baseline import TrainBaseline
from tsfmc.compiler.driver.cache import PassCache
from tsfmc.compiler.driver.instruments import Instrument
from tsfmc.compiler.driver.manager import PassManager, random_stream
from tsfmc.compiler.driver.pipeline import build_passes
from tsfmc.compiler.driver.recipe import Recipe, make_recipe
from tsfmc.compiler.ir.passes import Pass, PassContext, PassResult
from tsfmc.compiler.ir.unit import CompileUnit, PassRecord, fingerprint
from tsfmc.passes import PASSES
from tsfmc.passes.align_temporal import AlignTemporal
from tsfmc.passes.build_student import BuildStudent, Supervised
from tsfmc.passes.distill import Distill
from tsfmc.passes.weight_horizons import WeightHorizons


class Records(Instrument):
    def __init__(self) -> None:
        self.all: list[PassRecord] = []

    def after(self, number: int, step: Pass, unit: CompileUnit, record: PassRecord) -> None:
        self.all.append(record)


class Scribble(Pass):
    """Writes into the student that it was given."""

    name = "scribble"
    summary = ""
    writes = frozenset({"student"})

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert unit.student is not None
        with torch.no_grad():
            next(unit.student.parameters()).add_(1)
        return PassResult(unit, False)


class ScribbleUnseen(Scribble):
    name = "scribble_unseen"

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert unit.student is not None
        next(unit.student.parameters()).data.add_(1)
        return PassResult(unit, False)


class Undeclared(Pass):
    name = "undeclared"
    summary = ""

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        return PassResult(unit.with_(student=copy.deepcopy(unit.student)), True)


class Boast(Pass):
    name = "boast"
    summary = ""

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        return PassResult(unit, True)


class Reweigh(Pass):
    """Cacheable, and changes the objective alone."""

    name = "reweigh"
    summary = ""
    reads = frozenset({"objective"})
    writes = frozenset({"objective"})
    cacheable = True

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        return PassResult(unit.with_(objective=unit.objective.put(7.0, Supervised())), True)


class Idle(Pass):
    name = "idle"
    summary = ""
    reads = frozenset({"student"})
    writes = frozenset({"student"})
    cacheable = True

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        return PassResult(unit, False, {"seen": 1})


@pytest.fixture
def built(taught: CompileUnit) -> CompileUnit:
    return PassManager([BuildStudent(kind="dlinear", config={"embedding": 8})]).run(taught, PassContext())


@pytest.mark.parametrize(
    ("step", "thorough", "message"),
    [
        (Scribble(), False, "changed weights of the unit that it was given"),
        (ScribbleUnseen(), True, "changed weights of the unit that it was given"),
        (Undeclared(), False, "undeclared changed student, and declares to write nothing"),
        (Boast(), False, "says that it changed something, but returned the same unit"),
    ],
)
def test_an_undeclared_effect_is_refused(
    built: CompileUnit, step: Pass, thorough: bool, message: str
) -> None:
    with pytest.raises(PassError, match=message):
        PassManager([step], check_purity=thorough).run(built, PassContext())


def test_a_hit_gives_back_the_objective_and_whether_anything_changed(
    built: CompileUnit, tmp_path: Path
) -> None:
    cache = PassCache(tmp_path)
    steps: list[Pass] = [WeightHorizons(), AlignTemporal(factors=4), Reweigh(), Idle()]
    runs = []
    for _ in range(2):
        records = Records()
        runs.append((PassManager(steps, [records], cache).run(built, PassContext()), records.all))
    (first, _), (again, records_again) = runs
    assert [record.cached for record in records_again] == [False, False, True, True]
    assert [record.modified for record in records_again] == [True, True, True, False]
    assert again.objective.lines() == first.objective.lines()
    assert again.objective.weight("supervised") == 7.0
    for (_, one), (_, two) in zip(first.objective, again.objective, strict=True):
        assert type(one) is type(two) and fingerprint(one) == fingerprint(two)


def test_a_key_holds_what_a_pass_works_on(built: CompileUnit, tmp_path: Path) -> None:
    """With and without the teacher's term, the same passes, options and seed are two results."""
    cache, records = PassCache(tmp_path), Records()
    taught = PassManager([Distill(epochs=1)], [records], cache).run(built, PassContext())
    plain = built.with_(objective=type(built.objective)().put(1.0, Supervised()))
    alone = PassManager([Distill(epochs=1)], [records], cache).run(plain, PassContext())
    assert [record.cached for record in records.all] == [False, False]
    assert fingerprint(taught.model) != fingerprint(alone.model)


@pytest.mark.parametrize("damage", ["truncate", "edit", "sign", "other"])
def test_a_damaged_result_is_a_miss(built: CompileUnit, tmp_path: Path, damage: str) -> None:
    cache, records = PassCache(tmp_path), Records()
    first = PassManager([Distill(epochs=1)], [records], cache).run(built, PassContext())
    result = next(tmp_path.rglob("result.json"))
    weights = next(tmp_path.rglob("student.safetensors"))
    if damage == "truncate":
        result.write_bytes(result.read_bytes()[:20])
    elif damage == "edit":
        result.write_text(json.dumps({**json.loads(result.read_text()), "modified": None, "files": 3}))
    elif damage == "sign":
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 0x80
        weights.write_bytes(raw)
    else:
        result.write_text(json.dumps({**json.loads(result.read_text()), "key": "0"}))
    again = PassManager([Distill(epochs=1)], [records], cache).run(built, PassContext())
    assert [record.cached for record in records.all] == [False, False]
    assert fingerprint(first.model) == fingerprint(again.model)


PLUGIN = """
import copy
import torch
from tsfmc.compiler.ir.passes import Pass, PassResult

FACTOR = {factor}

class Scale(Pass):
    name = "scale"
    summary = "multiply the student's first tensor"
    reads = frozenset({{"student"}})
    writes = frozenset({{"student"}})
    cacheable = True

    def run(self, unit, context):
        student = copy.deepcopy(unit.student)
        with torch.no_grad():
            next(student.parameters()).add_(1).mul_(FACTOR)
        return PassResult(unit.with_(student=student), True)
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the plugin's package with a constant and imports it."""
    folder = tmp_path / "site" / "scale_plugin"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(folder.parent))

    def load(factor: float) -> type[Pass]:
        (folder / "__init__.py").write_text(PLUGIN.format(factor=factor))
        content.folder_key.cache_clear()
        known = sys.modules.get("scale_plugin")
        sys.dont_write_bytecode = True
        module = reload(known) if known else import_module("scale_plugin")
        found: type[Pass] = module.Scale
        return found

    yield load
    sys.modules.pop("scale_plugin", None)


def test_a_plugin_edited_in_one_constant_is_not_served_from_the_cache(
    built: CompileUnit, tmp_path: Path, plugin: Any
) -> None:
    cache, records = PassCache(tmp_path / "cache"), Records()
    prints = []
    for factor in (2.0, 2.0, 30.0):
        unit = PassManager([plugin(factor)()], [records], cache).run(built, PassContext())
        prints.append(fingerprint(unit.model))
    assert [record.cached for record in records.all] == [False, True, False]
    assert prints[0] == prints[1] != prints[2]


def supervised(unit: CompileUnit, recipe: Recipe, cache: PassCache | None = None) -> CompileUnit:
    """The baseline that a compile of ``recipe`` trains."""
    step = TrainBaseline(build_passes(recipe), seed=recipe.seed, cache=cache)
    with tempfile.TemporaryDirectory() as folder:
        baseline = PassManager([step]).run(unit, PassContext(workspace=Path(folder))).supervised
    assert baseline is not None
    return baseline


def test_a_pass_of_a_user_stays_in_the_supervised_baseline(
    unit: CompileUnit, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(2.0)
    point = EntryPoint("scale", "scale_plugin:Scale", "tsfmc.passes")
    monkeypatch.setitem(PASSES.plugins, "scale", point)
    recipe = make_recipe(
        set=[
            'pipeline=["record_teacher","build_student","weight_horizons","scale","distill"]',
            "passes.distill.epochs=1",
            "student.embedding=8",
        ]
    )
    baseline = supervised(unit, recipe)
    assert [record.name for record in baseline.record] == ["build_student", "scale", "distill"]
    assert baseline.teacher is None and baseline.teacher_store is None


def test_supervised_row_and_distilled_student_differ_with_a_store(
    taught: CompileUnit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cache, a teacher store, a pipeline that both compiles share: two students."""
    recipe = make_recipe(set=['pipeline=["build_student","distill","fold_affine"]', "student.embedding=8"])
    cache, unit = PassCache(tmp_path / "cache"), taught.with_(teacher=None)
    distilled = PassManager(build_passes(recipe), cache=cache).run(unit, PassContext())
    baseline = supervised(unit, recipe, cache)
    assert not any(record.cached for record in baseline.record)
    assert fingerprint(distilled.model) != fingerprint(baseline.model)


@pytest.mark.parametrize("name", ["finetune", "distil"])
def test_options_of_an_absent_pass_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f"passes.{name}"):
        build_passes(make_recipe(set=[f"passes.{name}.epochs=1"]))


def test_every_pass_draws_from_a_stream_of_its_own(built: CompileUnit) -> None:
    assert len({random_stream(0, name, n) for name in PASSES for n in range(3)}) == 3 * len(PASSES)
    unit = PassManager([AlignTemporal(factors=8)]).run(built, PassContext())
    assert unit.student is not None
    student = dict(unit.student.named_parameters())["trend.weight"].detach().numpy().ravel()
    for _, term in unit.objective:
        for parameter in term.parameters():
            drawn = parameter.detach().numpy().ravel()
            count = min(len(drawn), len(student))
            assert abs(np.corrcoef(drawn[:count], student[:count])[0, 1]) < 0.9
