"""The ONNX target: interface, dynamic batch, equal bytes, parity, refusals."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from artifacts import SHAPE, LinearForecaster, make_model, make_windows, reference
from pydantic import ValidationError
from torch import Tensor, nn

from tsfmc.compiler.base.errors import LoweringError, MissingError
from tsfmc.compiler.ir.program import export_program
from tsfmc.compiler.students.dlinear import DLinear
from tsfmc.compiler.students.itransformer import ITransformer
from tsfmc.targets import TARGETS
from tsfmc.targets.base import Payload, Shape
from tsfmc.targets.measure.parity import check_parity, hard_windows
from tsfmc.targets.onnx import TARGET

WINDOWS = make_windows()


def lower(model: nn.Module, directory: Path, batch: int | None = None) -> tuple[Payload, onnx.ModelProto]:
    payload = TARGET.lower_model(
        model, SHAPE, directory, options=TARGET.Options(batch=batch), calibration=WINDOWS
    )
    return payload, onnx.load(directory / payload.entry)


def dims(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_interface_is_one_input_and_one_output_with_a_named_batch(tmp_path: Path) -> None:
    payload, proto = lower(make_model(), tmp_path)
    assert [(value.name, dims(value)) for value in proto.graph.input] == [("past", ["batch", 3, 32])]
    assert [(value.name, dims(value)) for value in proto.graph.output] == [("forecast", ["batch", 3, 8])]
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 18)]
    assert payload.level == "exported" and payload.runs_here
    onnx.checker.check_model(str(tmp_path / payload.entry), full_check=True)


@pytest.mark.parametrize(
    "model",
    [
        LinearForecaster(),
        DLinear(32, 8, kernel=5),
        DLinear(32, 8, kernel=5, normalisation="last", embedding=16),
        ITransformer(32, 8),
    ],
    ids=["linear", "dlinear", "dlinear-factored", "itransformer"],
)
def test_every_batch_size_and_hard_window_agrees_with_the_model(model: nn.Module, tmp_path: Path) -> None:
    model = model.eval()
    payload, _ = lower(model, tmp_path)
    engine = TARGET.load(tmp_path, payload, threads=1)
    parity = check_parity(
        engine, lambda past: reference(model, past), hard_windows(WINDOWS), TARGET.tolerance
    )
    assert parity.passed, parity.describe()
    for batch in (1, 2, 3, 64):
        np.testing.assert_allclose(engine(WINDOWS[:batch]), reference(model, WINDOWS[:batch]), atol=1e-5)


def test_parity_is_not_vacuous(tmp_path: Path) -> None:
    """A model whose weights are off by 1 % must not pass, on no kind of window but constant ones."""
    model = make_model()
    payload, _ = lower(model, tmp_path)
    engine = TARGET.load(tmp_path, payload, threads=1)
    with torch.no_grad():
        model.map.weight *= 1.01
    parity = check_parity(
        engine, lambda past: reference(model, past), hard_windows(WINDOWS), TARGET.tolerance
    )
    assert not parity.passed
    for kind in ("real", "huge", "tiny", "ramp"):
        assert parity.per_kind[kind].max_rel > TARGET.tolerance, kind


def test_nan_and_a_wrong_shape_fail_parity() -> None:
    windows = hard_windows(WINDOWS)
    model = make_model()

    def truth(past: np.ndarray) -> np.ndarray:
        return reference(model, past)

    assert not check_parity(lambda past: truth(past) * np.nan, truth, windows, 1e-4).passed
    assert not check_parity(lambda past: truth(past)[..., :-1], truth, windows, 1e-4).passed
    assert check_parity(truth, truth, windows, 1e-4).max_rel == 0.0


def test_hard_windows_are_what_they_say() -> None:
    kinds = hard_windows(WINDOWS)
    assert {values.shape for values in kinds.values()} == {(8, 3, 32)}
    assert {values.dtype for values in kinds.values()} == {np.dtype(np.float32)}
    assert np.ptp(kinds["constant"], axis=-1).max() == 0
    assert 0 < np.ptp(kinds["near_constant"], axis=-1).max() < 1e-4
    np.testing.assert_allclose(kinds["huge"] / 1e5, kinds["real"], rtol=1e-6)
    np.testing.assert_allclose(kinds["tiny"] * 1e5, kinds["real"], rtol=1e-6)
    assert (np.diff(kinds["ramp"], axis=-1) > 0).all()
    assert all(np.array_equal(values, hard_windows(WINDOWS)[name]) for name, values in kinds.items())


def test_a_fixed_batch_still_takes_any_batch(tmp_path: Path) -> None:
    model = make_model()
    payload, proto = lower(model, tmp_path, batch=4)
    assert dims(proto.graph.input[0]) == [4, 3, 32]
    engine = TARGET.load(tmp_path, payload, threads=1)
    for batch in (1, 4, 7, 8):
        np.testing.assert_allclose(engine(WINDOWS[:batch]), reference(model, WINDOWS[:batch]), atol=1e-5)


EXPORT_AND_HASH = """
import sys, hashlib, pathlib, torch
sys.path.insert(0, {tests!r})
from artifacts import SHAPE, make_model, make_windows
from tsfmc.compiler.ir.program import export_program
from tsfmc.targets.onnx_graph.translate import serialised, to_onnx
path = pathlib.Path(sys.argv[1])
path.write_bytes(serialised(to_onnx(export_program(make_model(), SHAPE, make_windows()))))
print(hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_two_exports_in_two_processes_give_equal_bytes(tmp_path: Path) -> None:
    payload, _ = lower(make_model(), tmp_path)
    code = EXPORT_AND_HASH.format(tests=str(Path(__file__).parent.parent))
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "other.onnx")],
        env={"PYTHONHASHSEED": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert other == hashlib.sha256((tmp_path / payload.entry).read_bytes()).hexdigest()


def test_the_file_tells_nothing_about_the_machine(tmp_path: Path) -> None:
    payload, proto = lower(make_model(), tmp_path)
    content = (tmp_path / payload.entry).read_bytes()
    for trace in (b'File "', b".py", str(Path.home()).encode(), b"stack_trace", b"pytorch"):
        assert trace not in content, trace
    assert not proto.metadata_props and not any(node.metadata_props for node in proto.graph.node)
    assert not any(node.doc_string for node in proto.graph.node)
    assert all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer)
    assert [path.name for path in tmp_path.iterdir()] == [payload.entry]


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    class Twice(LinearForecaster):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Linear(SHAPE.lookback, SHAPE.horizon)
            self.again.load_state_dict(self.map.state_dict())

        def forward(self, past: Tensor) -> Tensor:
            return self.map(past) + self.again(past.flip(-1))

    _, proto = lower(Twice().eval(), tmp_path)
    assert sum(list(tensor.dims) == [32, 8] for tensor in proto.graph.initializer) == 1


class Svd(nn.Module):
    def forward(self, past: Tensor) -> Tensor:
        return torch.linalg.svd(past)[2][..., :3, :8]


class Branches(nn.Module):
    def forward(self, past: Tensor) -> Tensor:
        return past[..., :8] if past.sum() > 0 else -past[..., :8]


class FixedBatch(nn.Module):
    def forward(self, past: Tensor) -> Tensor:
        return past.reshape(2, 3, 32)[..., :8]


class WrongHorizon(nn.Module):
    def forward(self, past: Tensor) -> Tensor:
        return past[..., :5]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Svd(), "svd"),
        (Branches(), "Branches cannot be exported"),
        (FixedBatch(), "batch"),
        (WrongHorizon(), r"returns shape \[2, 3, 5\], expected .* \[2, 3, 8\]"),
    ],
    ids=["operator", "branch", "batch", "shape"],
)
def test_a_refusal_names_operator_or_shape_and_leaves_no_file(
    model: nn.Module, says: str, tmp_path: Path
) -> None:
    with pytest.raises(LoweringError, match=says) as caught:
        lower(model.eval(), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_calibration_of_another_shape_is_refused() -> None:
    with pytest.raises(LoweringError, match=r"\[64, 3, 32\], expected .* \[N, 7, 32\]"):
        export_program(make_model(), Shape(7, 32, 8), WINDOWS)


def test_threads_reach_the_session(tmp_path: Path) -> None:
    payload, _ = lower(make_model(), tmp_path)
    engine = TARGET.load(tmp_path, payload, threads=2)
    options = engine._session.get_session_options()  # type: ignore[attr-defined]
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)


def test_a_missing_runtime_is_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payload, _ = lower(make_model(), tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingError, match="onnxruntime"):
        TARGET.load(tmp_path, payload, threads=1)


def test_registry_probe_and_options() -> None:
    assert TARGETS["onnx"] is TARGET
    here = TARGET.probe()
    assert here.can_lower and here.can_run and here.facts["onnxruntime"]
    assert TARGET.describe()["options"] == ["batch", "precision", "static"]
    with pytest.raises(ValidationError):
        TARGET.Options(batch=0)
    with pytest.raises(ValidationError):
        TARGET.Options(opset=12)
