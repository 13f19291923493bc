"""Each layout by the consumer that it is made for, or by its schema."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from artifacts import SHAPE, make_artifact, make_model, make_windows, raw, reference
from google.protobuf import text_format
from huggingface_hub import ModelCard
from tritonclient.grpc import model_config_pb2

sys.path.insert(0, str(Path(__file__).parent))
from node_tools import runtime

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import UsageError, VerificationError
from tsfmc.targets.artifact.device.files import ArtifactFiles
from tsfmc.targets.packages import LAYOUTS
from tsfmc.targets.packages.layout import Packed
from tsfmc.targets.packages.raw_units import fixed_batch
from tsfmc.targets.packages.triton import config

ACCURACY = {
    "test": {
        "student": {"mse": 0.25, "mae": 0.31, "windows": 100},
        "teacher": {"mse": 0.26, "mae": 0.32, "windows": 100},
    }
}
TEACHER = {
    "name": "ttm-r2",
    "source": "hub:ibm-granite/granite-timeseries-ttm-r2@main (d6a7)",
    "licence": "Apache-2.0",
}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    place = tmp_path_factory.mktemp("made") / "onnx"
    make_artifact(
        place,
        accuracy=ACCURACY,
        teacher=TEACHER,
        data={"name": "plant </script> | {{x}}"},
        student={"name": "dlinear"},
        licence={"spdx": "Apache-2.0", "commercial": True},
    )
    return place


@pytest.fixture(scope="module")
def expected():
    past = make_windows(5)
    return raw(past), raw(reference(make_model(), past))


def close(forecast, expected, past):
    scale = np.abs(past).max(axis=(1, 2)) + np.abs(expected).max(axis=(1, 2))
    return (np.abs(forecast - expected).max(axis=(1, 2)) <= 1e-5 * scale).all()


def test_triton_serves_raw_units_under_a_valid_configuration(artifact, expected, tmp_path):
    place = api.package(artifact, layout="triton", out=tmp_path / "models", name="plant") / "plant"
    served = text_format.Parse((place / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    session = onnxruntime.InferenceSession(place / "1" / "model.onnx")
    past, forecast = expected
    (given,) = session.run([served.output[0].name], {served.input[0].name: past.astype(np.float32)})
    assert close(given, forecast, past)
    assert served.name == place.name == "plant"
    assert served.max_batch_size == 64
    assert list(served.input[0].dims) == list(session.get_inputs()[0].shape[1:])
    assert list(served.output[0].dims) == list(session.get_outputs()[0].shape[1:])
    assert api.verify(place / "artifact")


def test_a_fixed_batch_is_a_part_of_tritons_shape():
    value = onnx.helper.make_tensor_value_info("past", 1, [1, 3, 32])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [value], [value]))
    manifest = {
        "task": {"lookback": 32, "horizon": 8, "variates": ["a", "b", "c"]},
        "target": {"kind": "onnx"},
    }
    text = config(Packed(ArtifactFiles(Path()), manifest, "plant"), fixed_batch(model))
    parsed = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (parsed.max_batch_size, list(parsed.input[0].dims)) == (0, [1, 3, 32])
    assert not parsed.HasField("dynamic_batching")


def test_kserve_names_a_service_and_the_storage_it_pulls(artifact, tmp_path):
    out = api.package(artifact, layout="kserve", out=tmp_path / "package", name="Plant_1")
    service = yaml.safe_load((out / "inferenceservice.yaml").read_text())
    model = service["spec"]["predictor"]["model"]
    assert service["metadata"]["name"] == "plant-1"  # a DNS label
    assert (model["modelFormat"]["name"], model["protocolVersion"]) == ("onnx", "v2")
    assert (out / "models" / "Plant_1" / "config.pbtxt").is_file()


def test_mlflow_loads_and_scores_it_without_a_pickle(artifact, expected, tmp_path):
    out = api.package(artifact, layout="mlflow", out=tmp_path / "model")
    past, forecast = expected
    model = mlflow.pyfunc.load_model(str(out))
    assert close(model.predict(past), forecast, past)
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, SHAPE.variates, SHAPE.lookback)
    assert not [path for path in out.rglob("*") if path.suffix in (".pkl", ".pickle", ".pyc")]
    with pytest.raises(mlflow.exceptions.MlflowException, match="shape"):
        model.predict(past[:, :, 1:])


def test_mlflow_refuses_an_edited_artifact(artifact, tmp_path):
    out = api.package(artifact, layout="mlflow", out=tmp_path / "model")
    with (out / "artifact" / "model.onnx").open("ab") as file:
        file.write(b"x")
    script = f"import mlflow; mlflow.pyfunc.load_model({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "model.onnx" in done.stderr.splitlines()[-1]


def test_the_hub_reads_the_card(artifact, tmp_path):
    out = api.package(artifact, layout="hf", out=tmp_path / "repository", name="plant")
    text = (out / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.pipeline_tag == "time-series-forecasting"
    assert card.data.base_model == "ibm-granite/granite-timeseries-ttm-r2"
    assert card.data.license == "apache-2.0"
    assert [(each.metric_type, each.metric_value) for each in card.data.eval_results] == [
        ("mse", 0.25),
        ("mae", 0.31),
    ]
    assert "</script>" not in card.text
    assert "plant \\<" in card.text
    assert "| teacher | 0.2600 | 0.3200 |" in card.text
    assert api.verify(out / "artifact")


def test_one_file_is_taken_in_place_of_a_directory(artifact, expected, tmp_path):
    out = api.package(artifact, out=tmp_path / "plant.tsfmc")
    past, forecast = expected
    assert close(api.load(out).forecast(past), forecast, past)
    again = api.package(out, layout="triton", out=tmp_path / "models")
    assert (again / "forecaster" / "1" / "model.onnx").is_file()


@pytest.mark.parametrize("layout", [name for name in LAYOUTS.builtin if name != "bench"])  # not of onnx
def test_two_packages_of_one_artifact_are_byte_equal(artifact, tmp_path, layout):
    given = {"runtime": runtime()} if layout == "web" else {}
    first, second = (
        digest(api.package(artifact, layout=layout, out=tmp_path / name, **given))
        for name in ("first", "second")
    )
    assert first == second


@pytest.mark.parametrize("layout", LAYOUTS.builtin)
def test_a_broken_artifact_is_not_packaged_and_nothing_is_left(artifact, tmp_path, layout):
    broken = tmp_path / "broken"
    api.package(artifact, out=tmp_path / "whole.tsfmc")
    make_artifact(broken)
    (broken / "model.onnx").write_bytes(b"x" * 10)
    before = set(tmp_path.iterdir())
    with pytest.raises(VerificationError, match=r"model\.onnx"):
        api.package(broken, layout=layout, out=tmp_path / "package")
    assert set(tmp_path.iterdir()) == before


def test_what_exists_is_not_replaced(artifact, tmp_path):
    (tmp_path / "package").mkdir()
    with pytest.raises(UsageError, match="exists"):
        api.package(artifact, layout="triton", out=tmp_path / "package")


def test_a_users_rows_stay_at_home(artifact, tmp_path):
    own = tmp_path / "own"
    make_artifact(own)
    (own / "secret.csv").write_text("date,load\n")
    out = api.package(own, layout="hf", out=tmp_path / "repository")
    packed = api.package(own, out=tmp_path / "one.tsfmc")
    assert not list(out.rglob("*.csv"))
    assert b"secret" not in packed.read_bytes()


@pytest.mark.parametrize("name", ["", "../up", "a b", "-x", "x" * 65, 'x"\n'])
def test_a_name_that_is_no_name_is_refused(artifact, tmp_path, name):
    with pytest.raises(UsageError, match="model name"):
        api.package(artifact, layout="triton", out=tmp_path / "package", name=name)


def test_a_server_of_onnx_is_not_given_another_target(artifact, tmp_path):
    other = tmp_path / "other"
    fields = json.loads((artifact / "manifest.json").read_text())
    make_artifact(other, target={**fields["target"], "kind": "tvm"})
    with pytest.raises(UsageError, match=r"layout triton takes artifacts for onnx.*is for tvm"):
        api.package(other, layout="triton", out=tmp_path / "package")


@pytest.mark.parametrize("layout", ["triton", "kserve", "mlflow", "edge-impulse", "web"])
def test_a_server_of_windows_is_not_given_what_needs_more_than_a_window(layout, artifact, tmp_path):
    fields = json.loads((artifact / "manifest.json").read_text())
    calendar = {"kind": "calendar", "name": "hour", "harmonics": 1, "scale": 1.0, "width": 2}
    other = tmp_path / "other"
    make_artifact(other, task={**fields["task"], "inputs": [calendar]})
    with pytest.raises(UsageError, match=f"layout {layout} does not know inputs"):
        api.package(other, layout=layout, out=tmp_path / "package")


def digest(path):
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }
