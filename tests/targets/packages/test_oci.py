"""The ``oci`` layout: every descriptor is that of its blob; skopeo, a real consumer, reads and copies it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from artifacts import make_artifact
from required import absent

from tsfmc.compiler import api

ARTIFACT = "application/vnd.tsfmc.artifact.v1"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made") / "onnx"
    make_artifact(place, licence={"spdx": "Apache-2.0", "commercial": True})
    return place


@pytest.fixture(scope="module")
def layout(artifact: Path) -> Path:
    (artifact / "own.csv").write_text("date,load\n")  # a user's own, which stays at home
    return api.package(artifact, layout="oci", out=artifact.parent / "image", name="plant")


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    """What a descriptor points to, once it is what the descriptor says."""
    content = (layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
    assert descriptor["digest"] == f"sha256:{sha256(content).hexdigest()}"
    assert descriptor["size"] == len(content)
    return content


def document(layout: Path, descriptor: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(blob(layout, descriptor))
    assert (found["schemaVersion"], found["mediaType"]) == (2, descriptor["mediaType"])
    return found


def images(layout: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Descriptor and manifest of each platform."""
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "latest"}
    return [(each, document(layout, each)) for each in document(layout, entry)["manifests"]]


def test_every_blob_is_reached_and_is_what_its_descriptor_says(layout: Path) -> None:
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    reached = {entry["digest"]}
    for descriptor, image in images(layout):
        config = json.loads(blob(layout, image["config"]))
        (layer,) = image["layers"]
        blob(layout, layer)
        assert config["rootfs"] == {"type": "layers", "diff_ids": [layer["digest"]]}
        assert {key: config[key] for key in descriptor["platform"]} == descriptor["platform"]
        assert (image["artifactType"], descriptor["artifactType"]) == (ARTIFACT, ARTIFACT)
        reached |= {descriptor["digest"], image["config"]["digest"], layer["digest"]}
    there = {f"sha256:{path.name}" for path in (layout / "blobs" / "sha256").iterdir()}
    assert there == reached


def test_the_layer_is_the_artifact_and_verifies(layout: Path, artifact: Path, tmp_path: Path) -> None:
    image = images(layout)[0][1]
    with tarfile.open(fileobj=io.BytesIO(blob(layout, image["layers"][0]))) as archive:
        assert {(each.mtime, each.uid, each.uname) for each in archive} == {(0, 0, "")}
        archive.extractall(tmp_path, filter="data")
    assert api.verify(tmp_path)[-1].startswith("self-test: ")
    assert not (tmp_path / "own.csv").exists()
    known = image["annotations"]
    assert known["tsfmc.manifest.sha256"] == sha256((artifact / "manifest.json").read_bytes()).hexdigest()
    assert known["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert known["org.opencontainers.image.title"] == "plant"


def test_a_portable_artifact_is_there_for_every_platform(layout: Path) -> None:
    platforms = [descriptor["platform"] for descriptor, _ in images(layout)]
    assert [each["architecture"] for each in platforms] == ["amd64", "arm64", "arm", "riscv64"]
    assert len({image["layers"][0]["digest"] for _, image in images(layout)}) == 1


def test_one_for_a_processor_is_for_that_alone(artifact: Path, tmp_path: Path) -> None:
    target = json.loads((artifact / "manifest.json").read_text())["target"]
    make_artifact(tmp_path / "arm", target={**target, "machine": "armv7l"})
    out = api.package(tmp_path / "arm", layout="oci", out=tmp_path / "image")
    (only,) = [descriptor["platform"] for descriptor, _ in images(out)]
    assert only == {"architecture": "arm", "os": "linux", "variant": "v7"}


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_skopeo_reads_it_and_copies_it(architecture: str, layout: Path, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        absent("skopeo")
    common = ["skopeo", "--insecure-policy", f"--override-arch={architecture}", "--override-os=linux"]
    about = run([*common, "inspect", f"oci:{layout}:latest"])
    assert json.loads(about)["Architecture"] == architecture
    run([*common, "copy", "--preserve-digests", f"oci:{layout}:latest", f"dir:{tmp_path / 'one'}"])
    copied = sha256((tmp_path / "one" / "manifest.json").read_bytes()).hexdigest()
    wanted = next(each for each, _ in images(layout) if each["platform"]["architecture"] == architecture)
    assert wanted["digest"] == f"sha256:{copied}"


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
