"""Signatures: what they cover, whose are believed, and that they are those of the format."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from artifacts import make_artifact
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tsfmc.compiler.base.errors import DataError, UsageError, VerificationError
from tsfmc.targets.artifact.archive import pack_zip
from tsfmc.targets.artifact.device.check import read_sums
from tsfmc.targets.artifact.device.cli import main
from tsfmc.targets.artifact.device.errors import ArtifactError
from tsfmc.targets.artifact.device.files import ArtifactFiles
from tsfmc.targets.artifact.device.signature import check_signature, load_public_key
from tsfmc.targets.artifact.hashes import payload_sha256, sha256_file
from tsfmc.targets.artifact.open import open_artifact, read_manifest, verify_artifact
from tsfmc.targets.artifact.sign import bundle, load_private_key, sign_artifact
from tsfmc.targets.artifact.write import seal

OMS = Path(__file__).parent / "oms"


def write_keys(folder: Path, name: str, key: Any, password: str | None = None) -> tuple[Path, Path]:
    """A pair of PEM files, private and public."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    cipher = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_keys(tmp_path_factory.mktemp("keys"), "key", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Path:
    path = tmp_path_factory.mktemp("signed") / "art"
    make_artifact(path, accuracy={"test": {"student": {"mse": 0.5}}})
    sign_artifact(path, keys[0])
    return path


@pytest.fixture
def art(signed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(signed, tmp_path / "art"))


@pytest.mark.parametrize("curve", ["p256", "p384"])
def test_we_read_what_the_reference_writes(curve: str, tmp_path: Path) -> None:
    model = Path(shutil.copytree(OMS / "model", tmp_path / "model"))
    shutil.copyfile(OMS / f"{curve}.sig", model / "model.sig")

    def files() -> ArtifactFiles:
        return ArtifactFiles(model, read_sums(model), sha256_file(model / "SHA256SUMS"))

    assert len(check_signature(files(), OMS / f"{curve}.pub")) == 64
    other = "p384" if curve == "p256" else "p256"
    with pytest.raises(ArtifactError, match="is by another key"):
        check_signature(files(), OMS / f"{other}.pub")
    (model / "SHA256SUMS").write_text((model / "SHA256SUMS").read_text() + f"{'0' * 64}  more\n")
    with pytest.raises(ArtifactError, match="SHA256SUMS is signed with another content"):
        check_signature(files(), OMS / f"{curve}.pub")


def test_the_reference_reads_what_we_write(art: Path, keys: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(art)]
    command += ["--signature", str(art / "model.sig"), "--public_key", str(keys[1])]
    subprocess.run(command, check=True, capture_output=True)


def test_signing_twice_gives_the_same_bytes_and_no_other_payload(
    art: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    before, payload = (art / "model.sig").read_bytes(), payload_sha256(art)
    sign_artifact(art, keys[0])
    assert (art / "model.sig").read_bytes() == before
    (art / "model.sig").unlink()
    assert payload_sha256(art) == payload
    assert [path.name for path in tmp_path.iterdir()] == ["art"], "no temporary file is left"


def test_verify_says_who_signed_before_anything_is_executed(
    art: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "model.sig not checked" in verify_artifact(art, execute=False)[0]
    (files,) = verify_artifact(art, trust=keys[1], execute=False)
    assert files.startswith("5 files match SHA256SUMS; signed by the key ")
    assert len(verify_artifact(art, trust=keys[1])) == 2
    assert open_artifact(art, trust=keys[1]).selftest()["passed"]
    assert main(["--artifact", str(art), "verify", "--trust", str(keys[1])]) == 0
    assert "ok: signed by the key" in capsys.readouterr().out


def test_an_archive_is_signed_in_place(art: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    (art / "model.sig").unlink()
    pack_zip(art, tmp_path / "a.tsfmc")
    with pytest.raises(VerificationError, match="not signed"):
        verify_artifact(tmp_path / "a.tsfmc", trust=keys[1])
    sign_artifact(tmp_path / "a.tsfmc", keys[0])
    assert "signed by" in verify_artifact(tmp_path / "a.tsfmc", trust=keys[1], execute=False)[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tsfmc", "art"]


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "accuracy": lambda m: m["accuracy"]["test"]["student"].update(mse=0.1),
    "licence": lambda m: m.update(licence={"spdx": "Apache-2.0", "commercial": True}),
    "tolerance": lambda m: m["selftest"].update(tolerance=0.5),
    "speed-up": lambda m: m.update(latency={"speedup": 1000.0}),
    "scaling": lambda m: m["input"].update(mean=[0.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS.keys())
def test_an_edit_with_hashes_redone_shows(
    change: Callable[[dict[str, Any]], object], art: Path, keys: tuple[Path, Path]
) -> None:
    """Without a key such an edit is an artifact like any other; with one it is refused."""
    signature = (art / "model.sig").read_bytes()
    fields = read_manifest(art)
    change(fields)
    seal(art, fields)
    assert not (art / "model.sig").exists(), "a signature over what was there before"
    (art / "model.sig").write_bytes(signature)
    assert verify_artifact(art, execute=False)
    for attempt in (
        lambda: verify_artifact(art, trust=keys[1]),
        lambda: open_artifact(art, trust=keys[1]),
    ):
        with pytest.raises(VerificationError, match="the artifact is not the one that was signed") as caught:
            attempt()
        assert caught.value.exit_code == 5
    assert main(["--artifact", str(art), "verify", "--trust", str(keys[1])]) == 5


def test_a_refused_signature_executes_nothing(
    art: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    (art / "model.sig").unlink()
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(VerificationError, match="not signed"):
        open_artifact(art, trust=keys[1])
    with pytest.raises(VerificationError, match="not signed"):
        verify_artifact(art, trust=keys[1])
    assert verify_artifact(art, execute=False)


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        found = json.loads(content)
        change(found)
        return json.dumps(found).encode()

    return apply


def statement(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def apply(found: dict[str, Any]) -> None:
        inner = json.loads(base64.b64decode(found["dsseEnvelope"]["payload"]))
        change(inner)
        found["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(inner).encode()).decode()

    return edited(apply)


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "not valid JSON"),
    "truncated": (lambda content: content[:100], "not valid JSON"),
    "list": (lambda _: b"[]", "is not a signature by a key"),
    "deep": (lambda _: b"[" * 100_000, "nests deeper"),
    "no envelope": (edited(lambda f: f.pop("dsseEnvelope")), "is not a signature by a key"),
    "no signature": (
        edited(lambda f: f["dsseEnvelope"].update(signatures=[])),
        "is not a signature by a key",
    ),
    "two signatures": (
        edited(lambda f: f["dsseEnvelope"]["signatures"].append({"sig": ""})),
        "is not a signature by a key",
    ),
    "other type": (edited(lambda f: f.update(mediaType="x")), "is not a signature by a key"),
    "other payload type": (
        edited(lambda f: f["dsseEnvelope"].update(payloadType="x")),
        "is not a signature by a key",
    ),
    "certificate": (
        edited(lambda f: f.update(verificationMaterial={"x509CertificateChain": {}})),
        "is not a signature by a key",
    ),
    "not base64": (
        edited(lambda f: f["dsseEnvelope"]["signatures"][0].update(sig="%")),
        "is not a signature",
    ),
    "empty signature": (edited(lambda f: f["dsseEnvelope"]["signatures"][0].update(sig="")), "does not hold"),
    "other hint": (
        edited(lambda f: f["verificationMaterial"]["publicKey"].update(hint="0" * 64)),
        "is by another key",
    ),
    "predicate": (statement(lambda s: s.update(predicateType="https://example.com/v1")), "does not hold"),
    "digest": (statement(lambda s: s["predicate"]["resources"][0].update(digest="0" * 64)), "does not hold"),
    "nothing listed": (statement(lambda s: s["predicate"].update(resources=[])), "does not hold"),
}


@pytest.mark.parametrize(("change", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_signatures(
    change: Callable[[bytes], bytes], says: str, art: Path, keys: tuple[Path, Path]
) -> None:
    (art / "model.sig").write_bytes(change((art / "model.sig").read_bytes()))
    with pytest.raises(VerificationError, match=says) as caught:
        verify_artifact(art, trust=keys[1])
    assert "\n" not in str(caught.value)


SIGNED_BUT_ODD: dict[str, tuple[Callable[[dict[str, str]], object], str]] = {
    "a file left out": (lambda digests: digests.pop("run.py"), "run.py is not signed"),
    "a file too many": (lambda digests: digests.update(more="0" * 64), "more is signed and not there"),
    "another content": (
        lambda digests: digests.update({"run.py": "0" * 64}),
        "run.py is signed with another",
    ),
    "only the listing": (
        lambda digests: [digests.pop(name) for name in [*digests] if name != "SHA256SUMS"],
        "is not signed",
    ),
    "no listing": (lambda digests: digests.pop("SHA256SUMS"), "SHA256SUMS is not signed"),
}


@pytest.mark.parametrize(("change", "says"), SIGNED_BUT_ODD.values(), ids=SIGNED_BUT_ODD.keys())
def test_a_true_signature_covers_exactly_the_files(
    change: Callable[[dict[str, str]], object], says: str, art: Path, keys: tuple[Path, Path]
) -> None:
    digests = {**read_sums(art), "SHA256SUMS": sha256_file(art / "SHA256SUMS")}
    change(digests)
    (art / "model.sig").write_text(json.dumps(bundle("art", digests, load_private_key(keys[0]))))
    with pytest.raises(VerificationError, match=says):
        verify_artifact(art, trust=keys[1])


def test_another_key_is_refused_even_without_a_hint(
    art: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    _, other = write_keys(tmp_path, "other", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(VerificationError, match="is by another key"):
        verify_artifact(art, trust=other)
    change = edited(lambda found: found["verificationMaterial"].update(publicKey={"rawBytes": "AA=="}))
    (art / "model.sig").write_bytes(change((art / "model.sig").read_bytes()))
    with pytest.raises(VerificationError, match="does not hold"):
        verify_artifact(art, trust=other)
    assert verify_artifact(art, trust=keys[1], execute=False)


def test_nothing_broken_is_signed(art: Path, keys: tuple[Path, Path]) -> None:
    before = (art / "model.sig").read_bytes()
    (art / "model.onnx").write_bytes(b"another")
    with pytest.raises(VerificationError, match=r"model\.onnx was changed"):
        sign_artifact(art, keys[0])
    assert (art / "model.sig").read_bytes() == before


def test_keys_that_do_not_fit(art: Path, tmp_path: Path) -> None:
    kinds = {
        "ed": ed25519.Ed25519PrivateKey.generate(),
        "rsa": rsa.generate_private_key(65537, 2048),
        "k1": ec.generate_private_key(ec.SECP256K1()),
    }
    for name, key in kinds.items():
        private, public = write_keys(tmp_path, name, key)
        with pytest.raises(UsageError, match="expected a key on one of the curves P-256"):
            sign_artifact(art, private)
        with pytest.raises(DataError, match="expected a key on one of the curves P-256"):
            verify_artifact(art, trust=public)
    private, public = write_keys(tmp_path, "locked", ec.generate_private_key(ec.SECP521R1()), "secret")
    for password in (None, "wrong"):
        with pytest.raises(UsageError, match="TSFMC_KEY_PASSWORD"):
            sign_artifact(art, private, password)
    sign_artifact(art, private, "secret")
    assert verify_artifact(art, trust=public, execute=False)
    with pytest.raises(UsageError, match=r"none\.pem cannot be read"):
        sign_artifact(art, tmp_path / "none.pem")
    with pytest.raises(DataError, match="cannot be read as a public key"):
        verify_artifact(art, trust=private)


def test_what_is_no_private_key_is_said_without_openssls_words(
    art: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    private, public = keys
    locked, _ = write_keys(tmp_path, "locked", ec.generate_private_key(ec.SECP256R1()), "secret")
    files = {
        "words.pem": (b"hello", None, "no private key in PEM"),
        "key.der": (bytes(range(256)), None, "no private key in PEM"),
        "empty.pem": (b"", None, "no private key in PEM"),
        "half.pem": (private.read_bytes()[:120], None, "damaged"),
        "public.pem": (public.read_bytes(), None, "a public key, expected the private one"),
        "locked.pem": (locked.read_bytes(), None, "the password of this encrypted private key is missing"),
        "wrong.pem": (
            locked.read_bytes(),
            "wrong",
            "the password of this encrypted private key does not fit",
        ),
        "open.pem": (private.read_bytes(), "secret", "a password is given"),
    }
    for name, (content, password, says) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=says) as caught:
            sign_artifact(art, tmp_path / name, password)
        assert "http" not in str(caught.value)
        assert str(caught.value).startswith(f"{tmp_path / name}")


def test_without_cryptography_one_line_says_what_to_install(
    keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tsfmc.targets.artifact.device.errors import EngineError

    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(EngineError, match="pip install cryptography"):
        load_public_key(keys[1])


def test_what_a_killed_signer_left_goes_and_what_others_write_stays(
    art: Path, keys: tuple[Path, Path]
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = art.parent / f".{art.name}.{ended.pid}.12345678.new"
    alive = art.parent / f".{art.name}.{os.getpid()}.12345678.new"
    for path in (dead, alive):
        path.write_text("half")
    sign_artifact(art, keys[0])
    assert not dead.exists()
    assert alive.exists()
