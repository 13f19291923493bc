"""The ``edge-impulse`` layout: flat rows in and out, in the units of the data, every shape fixed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from artifacts import SHAPE, VARIATES, make_artifact, make_model, make_windows, raw, reference
from onnx import TensorProto, helper

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import UsageError

INPUTS, OUTPUTS = SHAPE.variates * SHAPE.lookback, SHAPE.variates * SHAPE.horizon


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made")
    make_artifact(place / "onnx")
    return api.package(place / "onnx", layout="edge-impulse", out=place / "upload", name="plant")


def test_rows_as_a_device_reads_them_give_the_rows_that_follow(package: Path) -> None:
    session = onnxruntime.InferenceSession(package / "model.onnx")
    for window, expected in zip(
        raw(make_windows(3)), raw(reference(make_model(), make_windows(3))), strict=True
    ):
        features = np.concatenate(list(window.T))[None].astype(np.float32)  # a row after another
        (got,) = session.run(None, {"features": features})
        forecast = got.reshape(SHAPE.horizon, SHAPE.variates).T
        assert np.abs(forecast - expected).max() <= 1e-5 * (np.abs(window).max() + np.abs(expected).max())


def test_every_shape_is_fixed_and_the_output_has_two_dimensions(package: Path) -> None:
    session = onnxruntime.InferenceSession(package / "model.onnx")
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.shape, made.shape) == ([1, INPUTS], [1, OUTPUTS])
    model = onnx.shape_inference.infer_shapes(onnx.load(package / "model.onnx"), strict_mode=True)
    shapes = {each.name: each.type.tensor_type.shape.dim for each in model.graph.value_info}
    assert shapes
    assert all(dim.HasField("dim_value") for dims in shapes.values() for dim in dims)
    assert not {node.op_type for node in model.graph.node} & {"Shape", "Expand", "Concat"}


def test_representative_windows_are_the_self_tests(package: Path) -> None:
    windows = np.load(package / "representative.npy")
    assert (windows.dtype, windows.shape) == (np.float32, (3, INPUTS))
    assert np.array_equal(windows[0].reshape(SHAPE.lookback, -1).T, raw(make_windows())[0].astype(np.float32))


def test_the_readme_says_what_goes_in_and_out(package: Path) -> None:
    text = (package / "README.md").read_text()
    assert f"takes {INPUTS} numbers, the last {SHAPE.lookback} rows" in text
    assert f"gives {OUTPUTS} numbers, the next {SHAPE.horizon} rows" in text
    assert ", ".join(f"`{name}`" for name in VARIATES) in text
    assert api.verify(package / "artifact")


def test_a_program_of_another_batch_is_refused(tmp_path: Path) -> None:
    make_artifact(tmp_path / "onnx")
    # Not through a compile: the fields are those of one with --set targets.onnx.batch=4.
    shapes = [[4, SHAPE.variates, steps] for steps in (SHAPE.lookback, SHAPE.horizon)]
    past, forecast = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("past", "forecast"), shapes, strict=True)
    )
    starts = [onnx.numpy_helper.from_array(np.array(each, np.int64), name) for name, each in
              (("from", [0]), ("to", [SHAPE.horizon]), ("axis", [2]))]  # fmt: skip
    node = helper.make_node("Slice", ["past", "from", "to", "axis"], ["forecast"])
    graph = helper.make_graph([node], "first_steps", [past], [forecast], starts)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    swap(tmp_path / "onnx", model.SerializeToString())
    with pytest.raises(UsageError, match="takes one window a call, the program takes 4"):
        api.package(tmp_path / "onnx", layout="edge-impulse", out=tmp_path / "upload")


def swap(artifact: Path, program: bytes) -> None:
    """Another program, with whatever holds its hash."""
    from hashlib import sha256

    def digest(path: Path) -> str:
        return sha256(path.read_bytes()).hexdigest()

    model, manifest, listing = artifact / "model.onnx", artifact / "manifest.json", artifact / "SHA256SUMS"
    old = digest(model), digest(manifest)
    model.write_bytes(program)
    fields = json.loads(manifest.read_text())
    fields["files"]["model.onnx"] = {"bytes": len(program), "sha256": digest(model)}
    manifest.write_text(json.dumps(fields))
    listing.write_text(listing.read_text().replace(old[0], digest(model)).replace(old[1], digest(manifest)))
