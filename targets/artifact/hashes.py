"""Files of an artifact directory, and their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from .device.check import SIGNATURE, SUMS
from .device.files import open_plain, sha256_of
from .device.manifest import MANIFEST

RECIPE, REPORT = "recipe.lock.toml", "report.html"
NOT_PAYLOAD = (MANIFEST, SUMS, SIGNATURE, RECIPE, REPORT)
"""Files that carry times, measurements and provenance, which differ between two equal compiles."""
TEACHER = "teacher/"
"""The folder of a teacher that travels with the artifact."""
TOOLCHAIN = "toolchain/"
"""The folder of what a vendor's tool chain wants to see and no device gets."""


def payload_bytes(files: Mapping[str, Mapping[str, int | str]]) -> int:
    """Bytes of the payload; what came along and no device needs is none of it: teacher, calibration windows.

    Args:
        files: name -> ``describe``.
    """
    kept = (name for name in files if name not in NOT_PAYLOAD and not name.startswith((TEACHER, TOOLCHAIN)))
    return sum(int(files[name]["bytes"]) for name in kept)


def file_names(directory: Path) -> list[str]:
    """Every file below ``directory``, relative, sorted."""
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def sha256_file(path: Path) -> str:
    """Hex sha256 of a plain file."""
    with open_plain(path) as stream:
        return sha256_of(stream)


def describe(path: Path) -> dict[str, int | str]:
    """Size and hash, as the manifest lists them."""
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def payload_sha256(directory: Path) -> str:
    """One hash over what a device executes and checks itself with: two equal compiles give the same."""
    digest = hashlib.sha256()
    for name in file_names(directory):
        if name not in NOT_PAYLOAD:
            digest.update(f"{name} {sha256_file(directory / name)}\n".encode())
    return digest.hexdigest()
