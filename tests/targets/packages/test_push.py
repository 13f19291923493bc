"""``tsfmc push`` against a real server on this machine, which then holds the very bytes, or got none."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import make_artifact
from huggingface_hub import constants

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import Hub, serving

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import (
    LicenceError,
    MissingError,
    TsfmcError,
    UsageError,
    VerificationError,
)
from tsfmc.targets.packages.push import check_shareable

OPEN = {"licence": {"spdx": "Apache-2.0", "commercial": True}, "teacher": {"name": "ttm-r2"}}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made") / "onnx"
    make_artifact(place, **OPEN)
    return place


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of its own, with plain HTTP uploads, which every server of the Hub's protocol has."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    with serving(Hub()) as found:
        yield found


def test_the_hub_holds_the_very_bytes_and_they_verify_there(artifact: Path, hub: Hub, tmp_path: Path) -> None:
    pushed = api.push(artifact, "plant/load-96", endpoint=hub.url)
    assert pushed.url is not None and pushed.url.startswith(hub.url)
    assert {name: len(data) for name, data in hub.files.items()} == pushed.files
    for path in filter(Path.is_file, artifact.rglob("*")):
        assert hub.files[f"artifact/{path.relative_to(artifact)}"] == path.read_bytes()
    assert list(hub.large.values()) == [(artifact / "model.onnx").read_bytes()]
    assert hub.tokens == {"Bearer hf_of_the_test", None}  # none beside an address that is signed
    assert "visibility" not in hub.repos["plant/load-96"]
    for name, data in hub.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert "self-test" in api.verify(tmp_path / "artifact")[-1]


def test_what_a_former_artifact_left_is_removed(artifact: Path, hub: Hub) -> None:
    hub.repos["plant/load"] = {}
    hub.files = {"artifact/old.bin": b"x", ".gitattributes": b"*.onnx filter=lfs"}
    api.push(artifact, "plant/load", endpoint=hub.url)
    assert "artifact/old.bin" not in hub.files
    assert ".gitattributes" in hub.files
    assert len(hub.commits) == 1


def test_a_dry_run_checks_and_sends_nothing(artifact: Path, hub: Hub) -> None:
    pushed = api.push(artifact, "plant/load", endpoint=hub.url, dry_run=True)
    assert pushed.url is None
    assert "artifact/model.onnx" in pushed.files and "README.md" in pushed.files
    assert hub.tokens == set()


def test_nothing_is_uploaded_that_verify_refuses(artifact: Path, hub: Hub, tmp_path: Path) -> None:
    edited = shutil.copytree(artifact, tmp_path / "onnx")
    vectors = edited / "selftest" / "forecast.npy"
    relist(edited, vectors, lambda: np.save(vectors, np.load(vectors) + 1.0))
    with pytest.raises(VerificationError, match="self-test differs"):
        api.push(edited, "plant/load", endpoint=hub.url)
    (edited / "model.onnx").write_bytes(b"x")
    with pytest.raises(VerificationError, match=r"model\.onnx"):
        api.push(edited, "plant/load", endpoint=hub.url)
    assert hub.tokens == set()


def test_what_may_not_be_shared_is_not_published(hub: Hub, tmp_path: Path) -> None:
    unknown = {"licence": {"spdx": "an unknown licence", "commercial": False}}
    make_artifact(tmp_path / "onnx", **{**OPEN, **unknown})
    with pytest.raises(LicenceError, match=r"weights of ttm-r2 are under .*--private") as caught:
        api.push(tmp_path / "onnx", "plant/load", endpoint=hub.url)
    assert caught.value.exit_code == 6
    assert hub.tokens == set()
    api.push(tmp_path / "onnx", "plant/load", endpoint=hub.url, private=True)
    assert hub.repos["plant/load"]["visibility"] == "private"
    assert b"license: other" in hub.files["README.md"]


@pytest.mark.parametrize("licence", ["CC-BY-NC-ND-4.0", "proprietary", "", "MITx", "other"])
def test_a_licence_that_is_not_known_to_allow_sharing(licence: str, artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(LicenceError):
        check_shareable(under(licence, artifact, tmp_path), private=False)
    check_shareable(tmp_path, private=True)


@pytest.mark.parametrize("licence", ["apache-2.0", "MIT", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "BSD-3-Clause"])
def test_a_licence_that_allows_sharing(licence: str, artifact: Path, tmp_path: Path) -> None:
    check_shareable(under(licence, artifact, tmp_path), private=False)


def under(licence: str, artifact: Path, folder: Path) -> Path:
    """A manifest as a teacher's licence makes it."""
    fields = json.loads((artifact / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**fields, "licence": {"spdx": licence}}))
    return folder


def relist(artifact: Path, file: Path, change: Callable[[], None]) -> None:
    """Changes a file, and then whatever holds its hash: all is intact, and says something else."""
    before = sha256(file.read_bytes()).hexdigest()
    change()
    manifest, listing = artifact / "manifest.json", artifact / "SHA256SUMS"
    old = sha256(manifest.read_bytes()).hexdigest()
    for holder in (manifest, listing):
        after = sha256(file.read_bytes()).hexdigest()
        holder.write_text(holder.read_text().replace(before, after))
    listing.write_text(listing.read_text().replace(old, sha256(manifest.read_bytes()).hexdigest()))


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (401, MissingError, r"does not know who this is \(HTTP 401.*hf auth login, or set HF_TOKEN"),
        (403, UsageError, r"does not let this login write to plant/load"),
        (404, UsageError, r"has no plant/load for this login \(HTTP 404"),
        (500, MissingError, r"fails \(HTTP 500"),
        (400, UsageError, r"refuses plant/load \(HTTP 400: as the test wants it"),
    ],
)
def test_a_refusal_is_one_line(
    status: int, error: type[TsfmcError], says: str, artifact: Path, hub: Hub
) -> None:
    hub.refuse = status
    with pytest.raises(error, match=says) as caught:
        api.push(artifact, "plant/load", endpoint=hub.url)
    assert "\n" not in str(caught.value)


def test_no_network_is_one_line(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MissingError, match=r"could not be reached.*Connection refused"):
            api.push(artifact, "plant/load", endpoint=endpoint)


@pytest.mark.parametrize(
    "repo", ["load", "plant/load/x", "plant/", "/load", "plant/lo ad", "-plant/load", "a/b--c"]
)
def test_a_name_that_is_none_is_refused(repo: str, artifact: Path) -> None:
    with pytest.raises(UsageError, match="expected owner/name"):
        api.push(artifact, repo)


def test_the_command_takes_endpoint_and_token_from_the_environment(artifact: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
    environment.pop("HF_TOKEN", None)
    with serving(Hub()) as hub:
        environment["HF_ENDPOINT"] = hub.url
        anonymous = push(artifact, environment)
        assert (anonymous.returncode, hub.files) == (3, {})
        assert "does not know who this is (HTTP 401" in anonymous.stderr.splitlines()[-1]
        (tmp_path / "token").write_text("hf_stored")  # where hf auth login keeps it
        done = push(artifact, environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{hub.url}/plant/load/commit/{'c' * 40}\n"
        assert hub.tokens == {None, "Bearer hf_stored"}


def push(artifact: Path, environment: dict[str, str]) -> Any:
    command = [sys.executable, "-m", "tsfmc", "push", str(artifact), "plant/load"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
