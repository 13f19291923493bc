"""Signature: ``model.sig`` in the OpenSSF Model Signing format, by the method of bare keys (ECDSA).

    model.sig    a Sigstore bundle ("Sigstore Bundle Format" 0.3) without certificate or log entry
      envelope   "DSSE: Dead Simple Signing Envelope", protocol 1.0: the signature is over PAE(type, payload)
        payload  "in-toto Attestation Framework" Statement v1, whose predicate lists file, sha256 of the model

The list has every file of ``SHA256SUMS`` and that file itself, no more and no less.  A key is trusted because
the caller brings it; whatever the bundle says of its own key is a hint, and a wrong one is refused.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from pathlib import Path
from typing import Any

from .check import SIGNATURE, SUMS
from .errors import ArtifactError, EngineError, InputError
from .files import ArtifactFiles, read_bytes
from .strict import parse_json

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
HASH_OF_CURVE = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
MAX_SIGNATURE_BYTES = 4 << 20
MAX_KEY_BYTES = 64 << 10


def check_signature(files: ArtifactFiles, key_file: Path) -> str:
    """Checks that the owner of the public key signed exactly these files; returns the key's fingerprint.

    Raises:
        ArtifactError: unsigned, signed by another key, or signed for other files.
        InputError: ``key_file`` is no public key that can be used.
        EngineError: the package ``cryptography`` is not installed.
    """
    key = load_public_key(key_file)
    if not files.has(SIGNATURE):
        raise ArtifactError(
            f"{files.directory}: there is no {SIGNATURE}: the artifact is not signed, as was asked for"
        )
    try:
        bundle = parse_json(read_bytes(files.directory, SIGNATURE, MAX_SIGNATURE_BYTES), SIGNATURE)
        payload = signed_payload(bundle, key)
        signed = signed_digests(parse_json(payload, f"{SIGNATURE}: its payload"))
    except ArtifactError as error:
        raise ArtifactError(f"{files.directory}: {error}") from None
    expected = {**(files.sums or {}), SUMS: files.sums_sha256}
    for name in sorted(set(signed) | set(expected)):
        if signed.get(name) != expected.get(name):
            what = (
                "is signed with another content" if name in signed and name in expected else "is not signed"
            )
            if name not in expected:
                what = "is signed and not there"
            raise ArtifactError(
                f"{files.directory}: {name[:80]} {what}: the artifact is not the one that was signed"
            )
    return key_fingerprint(key)


def load_public_key(path: Path) -> Any:
    """An elliptic-curve public key of a PEM file.

    Raises:
        InputError: it cannot be read, or is of another kind.
        EngineError: the package ``cryptography`` is not installed.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise EngineError("signatures need the package cryptography: pip install cryptography") from None
    try:
        if path.stat().st_size > MAX_KEY_BYTES:
            raise InputError(f"{path} is too large for a key")
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        reason = error.strerror if isinstance(error, OSError) else "expected a public key in PEM"
        raise InputError(f"{path} cannot be read as a public key: {reason}") from None
    check_curve(key, path)
    return key


def check_curve(key: Any, path: Path) -> None:
    """Raises InputError for a key that the key method of the format has no algorithm for."""
    name = getattr(getattr(key, "curve", None), "name", type(key).__name__)
    if name not in HASH_OF_CURVE:
        raise InputError(
            f"{path}: expected a key on one of the curves P-256, P-384 and P-521, got {name}; "
            "make one with: openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
        )


def key_fingerprint(key: Any) -> str:
    """Hex sha256 of the public key's PEM, by which the format names a key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def ecdsa_of(key: Any) -> Any:
    """The algorithm of a key: ECDSA with the hash of its curve's size."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    return ECDSA(getattr(hashes, HASH_OF_CURVE[key.curve.name])())


def pre_authentication(payload: bytes) -> bytes:
    """What is signed: DSSE's ``PAE(type, payload)``."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def signed_payload(bundle: Any, key: Any) -> bytes:
    """The payload of a bundle, once its signature holds.

    Raises:
        ArtifactError: another format, another key, or a signature that does not hold.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        envelope, material = bundle["dsseEnvelope"], bundle["verificationMaterial"]
        (entry,) = envelope["signatures"]
        types = (bundle["mediaType"], envelope["payloadType"])
        payload, signature = (b64decode(text, validate=True) for text in (envelope["payload"], entry["sig"]))
        hint = material["publicKey"].get("hint")
    except (AttributeError, KeyError, TypeError, ValueError):
        types, payload, signature, hint = ("", ""), b"", b"", None
    if types != (BUNDLE_TYPE, PAYLOAD_TYPE):
        raise ArtifactError(f"{SIGNATURE} is not a signature by a key in the OpenSSF Model Signing format")
    if hint and hint != key_fingerprint(key):
        raise ArtifactError(
            f"{SIGNATURE} is by another key: {str(hint)[:16]!r}..., expected {key_fingerprint(key)[:16]}..."
        )
    try:
        key.verify(signature, pre_authentication(payload), ecdsa_of(key))
    except InvalidSignature:
        raise ArtifactError(f"{SIGNATURE} does not hold: it is by another key, or was changed") from None
    return payload


def signed_digests(statement: Any) -> dict[str, str]:
    """name -> hex sha256 of a statement.

    Raises:
        ArtifactError: another kind of statement, or one that contradicts itself.
    """
    try:
        types = (statement["_type"], statement["predicateType"])
        (subject,) = statement["subject"]
        whole = subject["digest"]["sha256"]
        method = statement["predicate"]["serialization"]["method"]
        listed = [
            (each["name"], each["algorithm"], each["digest"]) for each in statement["predicate"]["resources"]
        ]
        joined = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, _, digest in listed)).hexdigest()
        digests = {str(name): digest for name, _, digest in listed}
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(f"{SIGNATURE} holds a statement of another kind") from None
    if types != (STATEMENT_TYPE, PREDICATE_TYPE) or method != "files":
        raise ArtifactError(f"{SIGNATURE} holds a statement of another kind: {types[1]!r}, {method!r}")
    if {algorithm for _, algorithm, _ in listed} != {"sha256"}:
        raise ArtifactError(f"{SIGNATURE} lists other hashes than sha256")
    if joined != whole or len(digests) != len(listed):
        raise ArtifactError(f"{SIGNATURE} contradicts itself")
    return digests
