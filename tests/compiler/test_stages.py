"""Export and the stages of a target: effects, order, clean-up, and one program for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tsfmc.compiler.base.errors import LoweringError, PassError, VerificationError
from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.driver.build import Build, Job
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.driver.pipeline import run_steps, target_job, target_steps
from tsfmc.compiler.driver.recipe import Recipe, make_recipe
from tsfmc.compiler.driver.stages import Check, Export, Lower, calibration, forecast_of, target_stages
from tsfmc.compiler.driver.summary import metadata_lines
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.program import Program, Shape, export_program
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.students.dlinear import DLinear
from tsfmc.targets import TARGETS
from tsfmc.targets.artifact.contract import contract_sha256
from tsfmc.targets.onnx import OnnxTarget
from tsfmc.targets.onnx_graph.metadata import read_metadata

QUICK = ["measure.duration_s=0.05", "measure.teacher_forms=['eager']"]


@pytest.fixture
def built(unit: CompileUnit) -> CompileUnit:
    """A unit with a student of random weights."""
    return with_random_student(unit, seed=0)


def with_random_student(unit: CompileUnit, seed: int) -> CompileUnit:
    torch.manual_seed(seed)
    student = DLinear(48, 12, kernel=5).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.normal_(std=0.1)
    return unit.with_(student=student)


def job(final: Path, target: Any = None, **options: Any) -> Job:
    recipe = make_recipe(set=QUICK)
    return Job(target or TARGETS["onnx"], TARGETS["onnx"].Options(**options), recipe, final)


def quick_recipe(*targets: str) -> Recipe:
    return make_recipe(target=targets, lookback=48, horizon=12, set=QUICK)


def test_the_program_computes_what_the_model_does(built: CompileUnit) -> None:
    unit = PassManager([Export()]).run(built, PassContext())
    assert unit.program is not None and unit.program.shape == Shape(3, 48, 12)
    for batch in (1, 2, 7):
        past = calibration(unit)[:batch]
        np.testing.assert_array_equal(unit.program(past), forecast_of(unit, past))


def test_a_program_prints_as_stable_text_that_follows_the_weights(built: CompileUnit) -> None:
    def text(unit: CompileUnit) -> str:
        return str(PassManager([Export()]).run(unit, PassContext()))

    first = text(built)
    assert first == text(built)
    (line,) = [line for line in first.splitlines() if line.startswith("  program")]
    assert "past [batch, 3, 48] -> forecast [batch, 3, 12] operators=" in line and "sha256=" in line
    assert line not in text(with_random_student(built, seed=1))
    assert "program" not in str(built)


class TwiceTheLast(nn.Module):
    def forward(self, past: torch.Tensor) -> torch.Tensor:
        return 2 * past[..., -1:].expand(past.shape[0], past.shape[1], 12)


def test_a_program_at_one_batch_size_takes_that_size_alone(built: CompileUnit) -> None:
    past = calibration(built)
    program = export_program(TwiceTheLast(), Shape(3, 48, 12), past)
    fixed = program.at(4).module()
    assert fixed(torch.from_numpy(past[:4])).shape == (4, 3, 12)
    with pytest.raises(AssertionError):
        fixed(torch.from_numpy(past[:5]))
    assert program.at(None) is program.exported


def test_stages_are_a_printable_list_with_the_rewrites_by_name(tmp_path: Path) -> None:
    recipe = make_recipe(
        target=["onnx", "tvm", "trt"], set=["target_options.trt.precision=fp16", "target_options.tvm.batch=2"]
    )
    names = [step.name for step in target_steps(recipe, tmp_path)]
    assert names == [
        "keep_statistics", "evaluate_references", "export",
        "onnx.to_onnx", "onnx.lower", "onnx.check", "onnx.measure", "onnx.keep", "onnx.pack",
        "tvm.rewrite_operators", "tvm.lower", "tvm.check", "tvm.measure", "tvm.keep", "tvm.pack",
        "trt.to_onnx", "trt.to_fp16", "trt.lower", "trt.check", "trt.measure", "trt.keep", "trt.pack",
    ]  # fmt: skip
    assert all(step.summary for step in target_steps(recipe, tmp_path))


def test_one_export_serves_every_target_and_the_artifacts_are_in_place(
    built: CompileUnit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[Program] = []
    true_export = export_program

    def counting(model: nn.Module, shape: Shape, windows: np.ndarray) -> Program:
        exported.append(true_export(model, shape, windows))
        return exported[-1]

    monkeypatch.setattr("tsfmc.compiler.driver.stages.export_program", counting)
    recipe = quick_recipe("onnx", "trt")
    out = tmp_path / "out"
    unit = run_steps(recipe, target_steps(recipe, out), unit=built, progress=Silent())
    assert len(exported) == 1 and unit.program is exported[0]
    assert sorted(unit.artifacts) == ["onnx", "trt"] and unit.build is None
    assert sorted(path.name for path in out.iterdir()) == [
        "onnx",
        "onnx.evaluation.json",
        "trt",
        "trt.evaluation.json",
    ]
    assert unit.artifacts["onnx"]["level"] == "executed"
    assert set(unit.artifacts["onnx"]["accuracy"]["test"]) == {"student", "teacher", "seasonal_naive"}
    assert unit.record == (), "the record, which goes into the manifest, is of passes"
    assert unit.teacher_info is not None
    for kind, manifest in unit.artifacts.items():
        said = read_metadata(onnx.load(out / kind / "model.onnx"))
        assert said["tsfmc.contract_sha256"] == contract_sha256(manifest)
        assert said["tsfmc.licence"] == unit.teacher_info.licence
        shown = " ".join(line.strip() for line in metadata_lines(manifest))
        assert f"tsfmc.contract_sha256 {contract_sha256(manifest)}" in shown


@dataclass
class Broken(OnnxTarget):
    """An onnx target whose ``lower`` or whose file is wrong."""

    how: str

    def lower(self, program: Program, graph: Any, directory: Path, **others: Any) -> Any:
        if self.how == "refuses":
            (directory / "half.bin").write_bytes(b"x")
            raise LoweringError("no such operator")
        weight = next(tensor for tensor in graph.graph.initializer if len(tensor.dims) == 2)
        wrong = onnx.numpy_helper.to_array(weight) + 0.5
        weight.CopyFrom(onnx.numpy_helper.from_array(wrong, weight.name))
        return super().lower(program, graph, directory, **others)


@pytest.mark.parametrize(
    ("how", "error", "where"),
    [
        ("refuses", LoweringError, r"no such operator \(in onnx.lower\)"),
        ("wrong", VerificationError, r"departs from the model.* \(in onnx.check\)"),
    ],
)
def test_a_failing_stage_is_named_and_leaves_the_old_artifact_alone(
    built: CompileUnit, tmp_path: Path, how: str, error: type[Exception], where: str
) -> None:
    recipe = quick_recipe("onnx")
    run_steps(recipe, target_steps(recipe, tmp_path / "out"), unit=built, progress=Silent())
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    steps = [Export(), *target_stages(job(tmp_path / "out/onnx", Broken(how)))]
    with pytest.raises(error, match=where):
        run_steps(recipe, steps, unit=built, progress=Silent())
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["onnx", "onnx.evaluation.json"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Lower], "no program.*export comes first"),
        ([Export, Check], "no artifact is being made.*lower comes first"),
    ],
)
def test_a_stage_out_of_order_says_what_is_missing(
    built: CompileUnit, tmp_path: Path, steps: Sequence[Any], message: str
) -> None:
    chosen = [step() if step is Export else step(job(tmp_path / "onnx")) for step in steps]
    with pytest.raises(PassError, match=message):
        PassManager(chosen).run(built, PassContext())
    assert not list(tmp_path.glob("*.new")) and not list(tmp_path.glob(".*"))


def test_stop_after_lower_shows_the_payload_and_removes_it(built: CompileUnit, tmp_path: Path) -> None:
    recipe = quick_recipe("onnx")
    unit = run_steps(
        recipe,
        target_steps(recipe, tmp_path / "out"),
        unit=built,
        dump=tmp_path / "dump",
        dump_after=["onnx.lower"],
        stop_after="onnx.lower",
        progress=Silent(),
    )
    assert isinstance(unit.build, Build) and unit.build.payload is not None
    assert not list((tmp_path / "out").iterdir())
    (text,) = (path.read_text() for path in (tmp_path / "dump").iterdir())
    assert "target onnx" in text and "model.onnx bytes=" in text


def test_fixed_batch_and_options_of_a_target_reach_its_rewrites(built: CompileUnit, tmp_path: Path) -> None:
    unit = PassManager([Export(), target_stages(job(tmp_path / "onnx", batch=4))[0]]).run(
        built, PassContext()
    )
    assert isinstance(unit.build, Build)
    assert unit.build.graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


def test_options_that_a_target_does_not_have_name_the_field(tmp_path: Path) -> None:
    recipe = make_recipe(set=["target_options.onnx.bach=4"])
    with pytest.raises(Exception, match=r"target_options\.onnx\.bach"):
        target_job(recipe, "onnx", tmp_path)
