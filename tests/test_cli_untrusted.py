"""The command line before what nobody vouches for: said to be so, one line, and no terminal obeys it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from artifacts import make_artifact, write_history
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tsfmc.compiler.cli import main
from tsfmc.targets.artifact.open import read_manifest
from tsfmc.targets.artifact.write import seal

ESCAPE = "\x1b[2J\x1b]0;owned\x07\u202e"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    make_artifact(folder / "art")
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "key.pub").write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    write_history(folder / "past.csv")
    return folder


@pytest.fixture
def art(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return Path(shutil.copytree(place / "art", tmp_path / "art"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["tsfmc", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        for text in (out, err):
            assert all(line.isprintable() for line in text.splitlines()), text
        return int(ended.value.code or 0), out, err

    return call


def test_inspect_says_how_far_its_manifest_can_be_believed(art: Path, run: Any) -> None:
    code, out, _ = run("inspect", art)
    assert code == 0 and out.splitlines()[0] == "files      5 files match SHA256SUMS; not signed"
    (art / "model.onnx").write_bytes(b"x")
    code, out, _ = run("inspect", art)
    first, second = out.splitlines()[:2]
    assert code == 0 and first.startswith("files      NOT INTACT, 1 problem: model.onnx was changed")
    assert second.endswith("what its manifest claims, and nothing vouches for it")
    code, out, _ = run("inspect", art, "--json")
    assert code == 0 and json.loads(out)["standing"]["problems"]


ODD: list[dict[str, Any]] = [
    {"level": ESCAPE},
    {"teacher": {"name": ESCAPE}, "student": {"name": ESCAPE}},
    {"accuracy": {"test": 3}},
    {"passes": [{"name": [ESCAPE]}]},
    {"latency": {"speedup": "fast"}, "data": {"windows": None}},
    {"licence": {"spdx": ESCAPE, "warning": ESCAPE}},
    {"environment": {"\ud800": "\udfff"}},
]


@pytest.mark.parametrize("fields", ODD, ids=lambda fields: next(iter(fields)))
def test_inspect_survives_odd_manifests(fields: dict[str, Any], art: Path, run: Any) -> None:
    manifest = json.loads((art / "manifest.json").read_text()) | fields
    (art / "manifest.json").write_text(json.dumps(manifest))
    for options in ([], ["--json"]):
        code, out, err = run("inspect", art, *options)
        assert code == 0 and ("NOT INTACT" in out or json.loads(out)["standing"]["problems"]), err


@pytest.mark.parametrize("command", [["verify"], ["inspect"], ["sign", "--key", "key.pem"]])
def test_error_lines_obey_no_terminal(command: list[str], art: Path, run: Any) -> None:
    code, out, err = run(command[0], f"nowhere{ESCAPE}", *command[1:])
    assert code == 3 and out == "" and r"nowhere\x1b[2J" in err
    edited = json.loads((art / "manifest.json").read_text())
    edited["target"]["kind"] = ESCAPE
    (art / "manifest.json").write_text(json.dumps(edited))
    run(command[0], art, *command[1:])
    code, _, err = run("inspect", "art", f"--{ESCAPE}")
    assert code == 2 and r"\x1b" in err


def test_what_is_demanded_to_be_signed_is_refused_until_it_is(art: Path, run: Any) -> None:
    for command in (["verify"], ["inspect"], ["forecast", "--input", "past.csv"]):
        code, out, err = run(command[0], art, *command[1:], "--trust", "key.pub")
        assert (code, out) == (5, "") and "not signed" in err and err.count("\n") == 1
    code, out, _ = run("sign", art, "--key", "key.pem", "--json")
    fingerprint = json.loads(out)["key_sha256"]
    code, out, _ = run("verify", art, "--trust", "key.pub", "--no-execute")
    assert code == 0 and out == f"5 files match SHA256SUMS; signed by the key {fingerprint[:16]}...\n"
    code, out, _ = run("verify", art, "--trust", "key.pub")
    assert code == 0 and "self-test" in out
    assert run("forecast", art, "--input", "past.csv", "--trust", "key.pub")[0] == 0


def test_verify_without_execution_loads_no_program(
    art: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    (art / "model.onnx").write_bytes(b"no model at all")
    seal(art, read_manifest(art))
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("it was loaded"))
    assert run("verify", art, "--no-execute")[:2] == (0, "5 files match SHA256SUMS; not signed\n")
    assert run("inspect", art)[0] == 0
