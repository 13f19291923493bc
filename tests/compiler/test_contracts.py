"""Everything built in keeps the contracts, and a contract catches what breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factory import make_panel_unit, make_unit
from required import absent
from tiny_teachers import TINY, WHOLE
from torch import Tensor

from tsfmc.compiler import contracts
from tsfmc.compiler.base.errors import VerificationError
from tsfmc.compiler.contracts import passes, students, targets
from tsfmc.compiler.contracts.samples import unit as sample_unit
from tsfmc.compiler.frontends import FRONTENDS
from tsfmc.compiler.ir.forecaster import Forecaster
from tsfmc.compiler.ir.passes import Pass, PassContext, PassResult
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.students import STUDENTS
from tsfmc.compiler.students.dlinear import DLinear
from tsfmc.passes import PASSES
from tsfmc.targets import TARGETS
from tsfmc.targets.base import Payload
from tsfmc.targets.onnx import OnnxTarget

# Where a name needs more than its defaults to be small, or to have something to work on.
STUDENT_OPTIONS: Mapping[str, list[dict[str, Any]]] = {
    "dlinear": [{}, {"embedding": 8}, {"maps": "per-variate"}, {"maps": "low-rank", "rank": 3}],
    "itransformer": [{"width": 16, "heads": 2, "ffn": 16}],
}


def small_unit(folder: Path) -> CompileUnit:
    """With a teacher of a registered family, which passes can rebuild."""
    return make_unit(folder, rows=330)


LEVELS = (0.1, 0.5, 0.9)


def quantile_unit(folder: Path) -> CompileUnit:
    """Its task has levels, as that of a recipe with quantiles."""
    unit = sample_unit(folder)
    return unit.with_(task=replace(unit.task, quantile_levels=LEVELS))


_TEACHER: dict[str, Any] = {"make_unit": small_unit, "before": ()}
PASS_OPTIONS: Mapping[str, dict[str, Any]] = {
    "align_temporal": {"student": {"kind": "dlinear", "embedding": 8}},
    "refit_affine": {"until": "all"},
    "distill": {"before": ("record_teacher", "build_student"), "epochs": 1},
    "drop_dead_weights": _TEACHER,
    "finetune": {**_TEACHER, "epochs": 1},
    "add_quantiles": {
        "levels": LEVELS,
        "make_unit": quantile_unit,
    },
    "solve_fleet": {"make_unit": make_panel_unit, "before": ("build_student",)},
    "prune_channels": {**_TEACHER, "epochs": 1, "floor": 1, "round_to": 1},
}


@pytest.mark.parametrize(
    ("kind", "options"), [(kind, options) for kind in STUDENTS for options in STUDENT_OPTIONS.get(kind, [{}])]
)
def test_students(kind: str, options: dict[str, Any]) -> None:
    contracts.check_student(kind, **options)


@pytest.mark.parametrize("family", FRONTENDS)
def test_teachers(family: str) -> None:
    known = {**TINY, **WHOLE}
    if family in known:
        config, lookback, horizon = known[family]
        contracts.check_teacher(family, config, lookback=lookback, horizon=horizon)
    else:
        contracts.check_teacher(family, lookback=60, horizon=8, variates=1)


@pytest.mark.parametrize("name", PASSES)
def test_passes(name: str) -> None:
    contracts.check_pass(name, **PASS_OPTIONS.get(name, {}))


@pytest.mark.parametrize("kind", TARGETS)
def test_targets(kind: str) -> None:
    if not TARGETS[kind].probe().can_lower:
        absent(f"what target {kind} lowers with")
    contracts.check_target(kind)


# A contract that never fails proves nothing: each of these breaks one rule, and that rule says so.


class Silent(DLinear):
    """Has a parameter that the forecast does not depend on."""

    def __init__(self, lookback: int, horizon: int) -> None:
        super().__init__(lookback, horizon)
        self.unused = torch.nn.Parameter(torch.zeros(1))


class Peeking(DLinear):
    """Normalises over the batch."""

    def forward(self, past: Tensor) -> Tensor:
        return super().forward(past) + past.mean()


class Writing(DLinear):
    """Scales the window in place."""

    def forward(self, past: Tensor) -> Tensor:
        forecast = super().forward(past)
        past.mul_(2)
        return forecast


class Forgetful(DLinear):
    """Its config loses an option."""

    def __init__(self, lookback: int, horizon: int, kernel: int = 5) -> None:
        super().__init__(lookback, horizon, kernel=kernel)
        del self.config["kernel"]


class Inexact(DLinear):
    """Folds into another function."""

    def fold(self) -> Forecaster:
        folded = super().fold()
        with torch.no_grad():
            next(folded.parameters()).mul_(1.001)
        return folded


class Undeclared(DLinear):
    """Does not say what it folds into."""

    @classmethod
    def folded_forms(cls) -> Mapping[str, type[Forecaster]]:
        return {}


class Fixed(DLinear):
    """Exports for one batch only."""

    def forward(self, past: Tensor) -> Tensor:
        return super().forward(past).reshape(int(past.shape[0]), past.shape[1], -1).clone() + (
            0.0 if len(past) % 2 else 0.1
        )


class Presumptuous(DLinear):
    """Brings a preset with an option that it does not have."""

    @classmethod
    def preset(cls, kind: str) -> Mapping[str, Any]:
        return {"student": {"kind": "dlinear", "width": 3}}


@pytest.mark.parametrize(
    ("student", "rule"),
    [
        (Silent, "learns"),
        (Peeking, "batch_is_free"),
        (Writing, "deterministic_and_pure"),
        (Forgetful, "config_round_trip"),
        (Inexact, "folds_exactly"),
        (Undeclared, "folds_exactly"),
        (Fixed, "exports"),
        (Presumptuous, "preset_resolves"),
    ],
)
def test_a_broken_student_is_caught(monkeypatch: pytest.MonkeyPatch, student: type, rule: str) -> None:
    monkeypatch.setitem(STUDENTS._builtin, "dlinear", _point(student))
    subject = students.Subject("dlinear", {"kernel": 9} if student is Forgetful else {})
    assert _breach(contracts.STUDENT, rule, subject)


class Step(Pass):
    """A harmless pass: scales the student by its option."""

    name = "fold_affine"
    summary = "scale the student"
    reads = frozenset({"student"})
    writes = frozenset({"student"})
    cacheable = True

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        student = copy.deepcopy(unit.student)
        assert student is not None
        with torch.no_grad():
            next(student.parameters()).add_(self.shift(unit))
        return PassResult(unit.with_(student=student), True)

    def shift(self, unit: CompileUnit) -> float:
        return 0.5


class Curious(Step):
    """Reads the teacher without saying so."""

    def shift(self, unit: CompileUnit) -> float:
        return float(unit.teacher_store is not None)


class Restless(Step):
    """Draws from a stream that no seed reaches."""

    def shift(self, unit: CompileUnit) -> float:
        return float(np.random.default_rng().random())


class Overreaching(Step):
    """Writes a part that it does not declare."""

    writes = frozenset()


class InPlace(Step):
    """Changes the student that it is given."""

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert unit.student is not None
        next(unit.student.parameters()).data.add_(1.0)
        return PassResult(unit, False)


class Crashing(Step):
    """Falls over a unit without a student."""

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        return PassResult(unit.with_(student=unit.student.eval()), False)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("step", "rule"),
    [
        (Curious, "reads_what_it_declares"),
        (Restless, "deterministic"),
        (Overreaching, "writes_what_it_declares"),
        (InPlace, "writes_what_it_declares"),
        (Crashing, "refuses_in_words"),
    ],
)
def test_a_broken_pass_is_caught(monkeypatch: pytest.MonkeyPatch, step: type, rule: str) -> None:
    monkeypatch.setitem(PASSES._builtin, "fold_affine", _point(step))
    subject = passes.Subject("fold_affine", before=("build_student",))
    assert _breach(contracts.PASS, rule, subject)


class Stamped(OnnxTarget):
    """Writes the hour of the day into its payload."""

    count = 0

    def lower(self, *args: Any, **kwargs: Any) -> Payload:
        payload = super().lower(*args, **kwargs)
        Stamped.count += 1
        (args[2] / "stamp").write_text(str(Stamped.count))
        return replace(payload, files=(*payload.files, "stamp"))


class Wrong(OnnxTarget):
    """Runs another program than the model."""

    def load(self, directory: Path, payload: Payload, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        engine = super().load(directory, payload, threads)
        return lambda past: engine(past) * np.float32(1.001)


class Absent(OnnxTarget):
    """Names a file that it does not write."""

    def lower(self, *args: Any, **kwargs: Any) -> Payload:
        payload = super().lower(*args, **kwargs)
        return replace(payload, files=(*payload.files, "weights.bin"))


@pytest.mark.parametrize(
    ("target", "rule"), [(Stamped, "equal_bytes"), (Wrong, "equals_the_model"), (Absent, "lowers")]
)
def test_a_broken_target_is_caught(monkeypatch: pytest.MonkeyPatch, target: type, rule: str) -> None:
    monkeypatch.setitem(TARGETS._builtin, "onnx", _point(target()))
    assert _breach(contracts.TARGET, rule, targets.Subject("onnx"))


def test_a_broken_contract_lists_its_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STUDENTS._builtin, "dlinear", _point(Inexact))
    with pytest.raises(VerificationError) as caught:
        contracts.check_student("dlinear")
    first, *others = str(caught.value).splitlines()
    assert first.startswith("student dlinear breaks 1 of ") and len(others) == 1
    assert others[0].strip().startswith("folds_exactly: the folded form differs by ")


def _point(found: Any) -> Any:
    """An entry point that gives ``found``."""

    class Point:
        @staticmethod
        def load() -> Any:
            return found

    return Point()


def _breach(contract: Any, name: str, subject: Any) -> str | None:
    rules = {rule.name: rule for rule in contract.rules}
    found: str | None = rules[name].breach(subject)
    return found
