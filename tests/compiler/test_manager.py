"""The pass manager: order, declarations enforced, cache, dumps, and errors that name the pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tsfmc.compiler.base.errors import PassError, VerificationError
from tsfmc.compiler.driver.cache import PassCache
from tsfmc.compiler.driver.instruments import DumpInstrument, Instrument
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.ir.passes import Pass, PassContext, PassResult
from tsfmc.compiler.ir.unit import CompileUnit, PassRecord, fingerprint
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.distill import Distill
from tsfmc.passes.fold_affine import FoldAffine
from tsfmc.passes.weight_horizons import WeightHorizons


class Lie(Pass):
    """Declares that it preserves the function, and does not."""

    name = "lie"
    summary = ""
    writes = frozenset({"student"})
    preserves_function = True

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        student = BuildStudent(kind="dlinear").run(unit, context).unit.student
        assert student is not None
        torch.nn.init.ones_(student.trend.weight)  # type: ignore[arg-type, union-attr]
        return PassResult(unit.with_(student=student), True)


class Seen(Instrument):
    def __init__(self) -> None:
        self.records: list[PassRecord] = []

    def after(self, number: int, step: Pass, unit: CompileUnit, record: PassRecord) -> None:
        self.records.append(record)


def pipeline(epochs: int = 1) -> list[Pass]:
    return [BuildStudent(kind="dlinear"), WeightHorizons(), Distill(epochs=epochs), FoldAffine()]


def shifted(unit: CompileUnit) -> CompileUnit:
    """The same task on other data."""
    return unit.with_(data=replace(unit.data, sha256="0" * 64))


def test_declared_properties_are_enforced(taught: CompileUnit, tmp_path: Path) -> None:
    unit = PassManager([BuildStudent(kind="dlinear")]).run(taught, PassContext())
    with pytest.raises(VerificationError, match="lie declares that it preserves the function"):
        PassManager([Lie()]).run(unit, PassContext())


def test_an_error_names_the_pass_and_those_before(taught: CompileUnit) -> None:
    with pytest.raises(PassError, match="in pass fold_affine, after build_student"):
        PassManager([BuildStudent(kind="dlinear"), FoldAffine()]).run(taught, PassContext())


def test_a_result_is_found_again(taught: CompileUnit, tmp_path: Path) -> None:
    cache, seen = PassCache(tmp_path / "cache"), Seen()
    first = PassManager(pipeline(), cache=cache).run(taught, PassContext())
    again = PassManager(pipeline(), [seen], cache=cache).run(taught, PassContext())
    assert [record.name for record in seen.records if record.cached] == ["distill"]
    assert fingerprint(first.model) == fingerprint(again.model)
    assert str(first) == str(again)


@pytest.mark.parametrize("change", ["seed", "options", "input"])
def test_another_seed_option_or_input_is_another_result(
    taught: CompileUnit, tmp_path: Path, change: str
) -> None:
    cache, seen = PassCache(tmp_path / "cache"), Seen()
    PassManager(pipeline(), cache=cache).run(taught, PassContext())
    changed = PassManager(
        pipeline(2 if change == "options" else 1),
        [seen],
        cache=cache,
    )
    other = shifted(taught) if change == "input" else taught
    changed.run(other, PassContext(seed=1 if change == "seed" else 0))
    assert not any(record.cached for record in seen.records)


def test_dumps_are_numbered_and_equal_between_runs(taught: CompileUnit, tmp_path: Path) -> None:
    texts = []
    for run in ("one", "two"):
        dump = DumpInstrument(tmp_path / run, ["all"])
        PassManager(pipeline(), [dump]).run(taught, PassContext(workspace=tmp_path / f"work-{run}"))
        files = sorted((tmp_path / run).iterdir())
        assert [file.name for file in files] == [
            "001_build_student.txt",
            "002_weight_horizons.txt",
            "003_distill.txt",
            "004_fold_affine.txt",
        ]
        texts.append([file.read_text() for file in files])
    assert texts[0] == texts[1]
    assert "1 * kd weighted over the horizon, tau=1" in texts[0][1]
    assert "AffineMap" in texts[0][3]


def test_stop_after(taught: CompileUnit) -> None:
    unit = PassManager(pipeline(), stop_after="weight_horizons").run(taught, PassContext())
    assert [record.name for record in unit.record] == ["build_student", "weight_horizons"]
