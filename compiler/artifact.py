"""The artifact: a directory (or a ``.tsfmc`` file of it) that a device can run and verify by itself.

    manifest.json     what it is, where it comes from, what was measured; written after everything it lists
    SHA256SUMS        sha256 of every other file, as ``sha256sum -c`` reads it
    run.py            the runner, one file
    selftest/*.npy    a few windows and the original PyTorch model's forecasts, units of the data, float64
    recipe.lock.toml  the recipe, where the driver wrote one
    the payload       whatever the target lowered to

Invariants, each with its reason: nothing is pickled (loading must not execute anything); no links and no
names that leave the directory (unpacking must not write elsewhere); a zip stores and never compresses (no
file can unpack to more than it is); JSON has sorted keys and no NaN (equal compiles give equal bytes).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import UsageError, VerificationError

SCHEMA = 1
MANIFEST, SUMS, RUNNER, RECIPE, REPORT = (
    "manifest.json",
    "SHA256SUMS",
    "run.py",
    "recipe.lock.toml",
    "report.html",
)
NOT_PAYLOAD = (MANIFEST, SUMS, RECIPE, REPORT)
"""Files that carry times, measurements and provenance, which differ between two equal compiles."""
MAX_ZIP_BYTES = 8 << 30


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class TargetPart(_Part):
    """``entry`` is the file the engine loads; ``batch`` a fixed batch size or ``"dynamic"``."""

    kind: str
    entry: str
    batch: int | str = "dynamic"


class TaskPart(_Part):
    """What is forecast.  ``step_seconds`` is None where a step has no fixed length (months)."""

    lookback: int = Field(ge=1)
    horizon: int = Field(ge=1)
    variates: tuple[str, ...] = Field(min_length=1)
    frequency: str | None = None
    step_seconds: float | None = Field(default=None, gt=0)


class InputPart(_Part):
    """Scaling, one number a variate: the engine sees ``(past - mean) / std``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class SelftestPart(_Part):
    """``tolerance`` as in ``targets/parity.py``."""

    tolerance: float = Field(gt=0, lt=1)


class FilePart(_Part):
    """Size and hash of one file."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class LicencePart(_Part):
    """What follows from the teacher's licence; ``commercial`` is None when unknown."""

    spdx: str
    commercial: bool | None = None
    warning: str | None = None


class Manifest(BaseModel):
    """``manifest.json``.  A field that was not measured is absent, never zero."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    schema_number: int = Field(default=SCHEMA, alias="schema")
    tsfmc: str | None = None
    target: TargetPart
    task: TaskPart
    input: InputPart
    level: str
    selftest: SelftestPart
    files: dict[str, FilePart] = Field(default_factory=dict)
    size: dict[str, int] = Field(default_factory=dict)
    teacher: dict[str, Any] | None = None
    student: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    passes: list[dict[str, Any]] | None = None
    parity: dict[str, Any] | None = None
    accuracy: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    cold_start: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    licence: LicencePart | None = None

    def to_json(self) -> str:
        """Stable text: sorted keys, no NaN, fields that are None left out."""
        plain = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return json.dumps(plain, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


# --- writing -----------------------------------------------------------------------------------------


def write_artifact(final: Path, build: Callable[[Path], Mapping[str, Any]]) -> Manifest:
    """Builds an artifact in a temporary sibling of ``final`` and puts it in place in one step.

    Args:
        final: the artifact directory; an artifact that is there is kept until the new one is complete.
        build: writes the files into the directory it is given and returns the manifest's fields;
            ``files`` and ``size`` are filled in here.

    Raises:
        UsageError: ``final`` is something else than an artifact or an empty directory.
    """
    if final.is_symlink() or final.exists():
        _refuse_foreign(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    _tidy(final)
    directory = final.parent / f".{final.name}.{os.getpid()}.{uuid4().hex[:8]}.new"
    directory.mkdir()
    try:
        manifest = seal(directory, build(directory))
        _replace(directory, final)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return manifest


def seal(directory: Path, fields: Mapping[str, Any]) -> Manifest:
    """Writes ``manifest.json`` and then ``SHA256SUMS`` for the files in ``directory``.

    May be called again after files or fields changed.

    Raises:
        VerificationError: a field of the manifest is missing, of a wrong type, or not a finite number.
    """
    from ..targets.device.run import is_safe_name

    for name in (MANIFEST, SUMS):
        (directory / name).unlink(missing_ok=True)
    files = {name: _describe(directory / name) for name in _names(directory)}
    unsafe = [name for name in files if not is_safe_name(name)]
    if unsafe:
        raise ValueError(f"an artifact cannot hold a file named {unsafe[0]!r}")
    payload = sum(int(entry["bytes"]) for name, entry in files.items() if name not in NOT_PAYLOAD)
    size = {"payload_bytes": payload, **fields.get("size", {})}
    manifest = _validate({"schema": SCHEMA, **_plain(fields), "files": files, "size": size})
    (directory / MANIFEST).write_text(_dump(manifest), encoding="utf-8")
    digests = {name: str(entry["sha256"]) for name, entry in files.items()}
    digests[MANIFEST] = _sha256(directory / MANIFEST)
    (directory / SUMS).write_text(
        "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)), encoding="utf-8"
    )
    return manifest


def write_selftest(directory: Path, past: np.ndarray, forecast: np.ndarray) -> None:
    """Writes the self-test vectors, in the units of the data.

    Args:
        past: ``[N, D, L]``, a few real windows.
        forecast: ``[N, D, H]``, the original PyTorch model's forecasts of them.
    """
    (directory / "selftest").mkdir(exist_ok=True)
    for name, values in (("past", past), ("forecast", forecast)):
        np.save(
            directory / "selftest" / f"{name}.npy",
            np.ascontiguousarray(values, np.float64),
            allow_pickle=False,
        )


def payload_sha256(directory: Path) -> str:
    """One hash over what a device executes and checks itself with: two equal compiles give the same."""
    digest = hashlib.sha256()
    for name in _names(directory):
        if name not in NOT_PAYLOAD:
            digest.update(f"{name} {_sha256(directory / name)}\n".encode())
    return digest.hexdigest()


def _replace(directory: Path, final: Path) -> None:
    old = final.parent / directory.name.replace(".new", ".old")
    if final.exists():
        final.rename(old)
    try:
        directory.rename(final)
    except BaseException:
        if old.exists():
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _tidy(final: Path) -> None:
    """Removes what killed processes left beside ``final``; puts an old artifact back that lost its place."""
    for left in sorted(final.parent.glob(f".{final.name}.*.*.*")):
        *_, pid, _, kind = left.name.split(".")
        if kind not in ("new", "old") or not pid.isdigit() or _is_alive(int(pid)):
            continue
        if kind == "old" and not final.exists():
            left.rename(final)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    import psutil  # type: ignore[import-untyped]

    return bool(psutil.pid_exists(pid))


def _refuse_foreign(final: Path) -> None:
    hint = "choose another output directory"
    if final.is_symlink() or not final.is_dir():
        raise UsageError(f"{final} exists and is not a directory", hint=hint)
    if any(final.iterdir()) and not (final / MANIFEST).is_file():
        raise UsageError(
            f"{final} holds files but no {MANIFEST}: it is not an artifact to replace", hint=hint
        )


def _names(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def _describe(path: Path) -> dict[str, int | str]:
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """numpy numbers, tuples and paths of names as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value


# --- reading -----------------------------------------------------------------------------------------


def read_manifest(directory: Path) -> Manifest:
    """The manifest of an artifact; hashes are ``verify_artifact``'s business.

    Raises:
        VerificationError: names the field.
    """
    from ..targets.device import compiler_errors, run

    with compiler_errors():
        return _validate(run.read_manifest(directory))


def verify_artifact(path: Path, threads: int = 1) -> list[str]:
    """What is wrong with an artifact, one line each: files and hashes, then the self-test where it runs here.

    Raises:
        MissingError: the target's runtime is not installed.
    """
    from ..targets.device import open_artifact

    try:
        forecaster = open_artifact(path, threads)
        findings = forecaster.verify()
        result = forecaster.selftest()
    except VerificationError as error:
        from ..targets.device import run

        every = list(run.find_problems(path)) if path.is_dir() else []
        return every or [str(error)]
    if not result["passed"]:
        findings.append(
            f"the self-test differs by {result['max_rel']:.3g} of the window's scale, "
            f"allowed {result['tolerance']:.3g}"
        )
    return findings


def _validate(fields: Mapping[str, Any]) -> Manifest:
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise VerificationError(
            f"{MANIFEST} field {where}: {first['msg']}, got {str(first['input'])[:60]!r}"
        ) from None


def _dump(manifest: Manifest) -> str:
    try:
        return manifest.to_json()
    except (ValueError, TypeError) as error:
        raise VerificationError(f"{MANIFEST} cannot be written: {error}") from None


# --- one file ----------------------------------------------------------------------------------------


def pack_zip(directory: Path, path: Path) -> None:
    """Writes the artifact as one ``.tsfmc`` file; equal artifacts give equal bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name in _names(directory):
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                entry.create_system = 3
                entry.file_size = (directory / name).stat().st_size
                with (directory / name).open("rb") as source, archive.open(entry, "w") as sink:
                    shutil.copyfileobj(source, sink)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def unpack_zip(path: Path, directory: Path) -> None:
    """Unpacks a ``.tsfmc`` file into the empty ``directory``; every entry is checked before any is written.

    Raises:
        VerificationError: names the entry that is compressed, encrypted, a link, a duplicate, or would
            leave the directory.
    """
    from ..targets.device.run import MAX_FILES

    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES:
                raise VerificationError(f"{path} has {len(entries)} entries, expected at most {MAX_FILES}")
            seen: set[str] = set()
            for entry in entries:
                _check_entry(path, entry, seen)
            total = sum(entry.file_size for entry in entries)
            if total > min(path.stat().st_size, MAX_ZIP_BYTES):
                raise VerificationError(f"{path} declares {total} bytes of content, more than the file holds")
            for entry in entries:
                target = directory / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise VerificationError(f"{path} is not a readable .tsfmc file: {error}") from None


def _check_entry(path: Path, entry: zipfile.ZipInfo, seen: set[str]) -> None:
    from ..targets.device.run import is_safe_name

    mode = entry.external_attr >> 16
    reason = None
    if not is_safe_name(entry.filename):
        reason = "has a name that is not allowed"
    elif entry.filename in seen:
        reason = "occurs twice"
    elif entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        reason = "is compressed, expected stored"
    elif entry.flag_bits & 0x1:
        reason = "is encrypted"
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        reason = "is not a plain file"
    if reason:
        raise VerificationError(f"{path}: entry {entry.filename[:80]!r} {reason}")
    seen.add(entry.filename)
