"""Signing an artifact with a private key: ``model.sig`` among its files, the OpenSSF Model Signing format.

What the format is and how it is checked stands in ``device/signature.py``, which a device has too.  The
signature is deterministic ("Deterministic Usage of DSA and ECDSA", RFC 6979): an artifact that is signed
twice with one key has the same bytes.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Mapping
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...compiler.base.errors import MissingError, UsageError
from .archive import opened, pack_zip
from .device.check import SIGNATURE, SUMS
from .device.signature import (
    BUNDLE_TYPE,
    HASH_OF_CURVE,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    check_curve,
    key_fingerprint,
    pre_authentication,
)
from .open import compiler_errors, intact_files


def sign_artifact(path: Path, key_file: Path, password: str | None = None) -> str:
    """Signs an intact artifact, a directory or a ``.tsfmc`` file, in place of the signature that it has.

    The signature is there as a whole or not at all, whenever the process is killed.

    Args:
        key_file: a private key on P-256, P-384 or P-521, in PEM.
        password: of the key, where it has one.

    Returns:
        The fingerprint of the public key: hex sha256 of its PEM.

    Raises:
        VerificationError: the artifact is not intact: nothing that is broken is signed.
        UsageError: ``key_file`` is no such key, or the signature cannot be written.
        MissingError: there is no such artifact, or the package ``cryptography`` is not installed.
    """
    key = load_private_key(key_file, password)
    with opened(path) as directory:
        files = intact_files(directory)
        digests = {**(files.sums or {}), SUMS: files.sums_sha256}
        name = path.resolve().name.removesuffix(".tsfmc")
        text = json.dumps(bundle(name, digests, key), sort_keys=True) + "\n"
        try:
            if path.is_dir():
                _put(text, path.resolve() / SIGNATURE)
            else:
                (directory / SIGNATURE).write_text(text, encoding="utf-8")
                pack_zip(directory, path)
        except OSError as error:
            raise UsageError(f"{path} cannot be signed in place: {error.strerror or error}") from error
    return key_fingerprint(key.public_key())


def bundle(name: str, digests: Mapping[str, str], key: Any) -> dict[str, Any]:
    """The content of ``model.sig``.

    Args:
        name: what the model is called; no verifier compares it.
        digests: name -> hex sha256 of every file that is signed.
        key: a private key of ``cryptography``.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    listed = sorted(digests.items())
    whole = sha256(b"".join(bytes.fromhex(digest) for _, digest in listed)).hexdigest()
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": whole}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": [{"name": each, "algorithm": "sha256", "digest": digest} for each, digest in listed],
        },
    }
    payload = json.dumps(statement, sort_keys=True).encode()
    algorithm = ECDSA(getattr(hashes, HASH_OF_CURVE[key.curve.name])(), deterministic_signing=True)
    signature = key.sign(pre_authentication(payload), algorithm)
    return {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": key_fingerprint(key.public_key())},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": b64encode(signature).decode(), "keyid": ""}],
        },
    }


def load_private_key(path: Path, password: str | None = None) -> Any:
    """A private key on one of the curves of the format.

    Raises:
        UsageError: it cannot be read, is of another kind, or its password is wrong.
        MissingError: the package ``cryptography`` is not installed.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise MissingError(
            "signing needs the package cryptography", hint="pip install 'tsfmc[sign]'"
        ) from error
    try:
        content = path.read_bytes()
        key = load_pem_private_key(content, password.encode() if password else None)
    except OSError as error:
        raise UsageError(f"{path} cannot be read as a private key: {error.strerror or error}") from error
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, content, password) from error
    with compiler_errors():
        check_curve(key, path)
    return key


def _no_key(path: Path, content: bytes, password: str | None) -> UsageError:
    """Why a file is no private key, without the words of OpenSSL, which speak of its own insides."""
    what, hint = (
        f"{path} is no private key in PEM",
        "openssl ecparam -name prime256v1 -genkey -noout -out key.pem makes one",
    )
    if b"ENCRYPTED" in content:
        problem = "does not fit" if password else "is missing"
        what = f"{path}: the password of this encrypted private key {problem}"
        hint = "it is taken from TSFMC_KEY_PASSWORD"
    elif b"PUBLIC KEY" in content:
        what, hint = (
            f"{path} is a public key, expected the private one",
            "that one verifies: tsfmc verify --trust",
        )
    elif b"PRIVATE KEY" in content and password:
        what = f"{path}: a password is given, and this private key is damaged or has none"
        hint = "unset TSFMC_KEY_PASSWORD, or export the key again"
    elif b"PRIVATE KEY" in content:
        what = f"{path}: this private key in PEM is damaged, or of a kind that is not known"
    return UsageError(what, hint=hint)


def _put(text: str, place: Path) -> None:
    """Writes beside the artifact, not in it, where a stray file would make it invalid; then renames."""
    folder = place.parent
    _sweep(folder)
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.{uuid4().hex[:8]}.new"
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Removes what signers of this artifact left that were killed; those that still run are left alone."""
    for left in folder.parent.glob(f".{escape(folder.name)}.*.new"):
        number = left.name.removesuffix(".new").split(".")[-2]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            left.unlink(missing_ok=True)
        except (OSError, ValueError):
            continue  # another user's, or no file of ours
