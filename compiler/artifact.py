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
import math
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .base.errors import MissingError, UsageError, VerificationError

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
    """``entry`` is the file the engine loads.

    ``device_files`` are files that a device makes beside the payload (an engine built there); they
    cannot be hashed here, everything else that is not listed is refused.
    """

    kind: str
    entry: str
    device_files: tuple[str, ...] = ()


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
    """``manifest.json``.  A field that was not measured is absent or null, never zero."""

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
    runtime_requirements: tuple[str, ...] = ()


# --- writing -----------------------------------------------------------------------------------------


def write_artifact(
    final: Path,
    build: Callable[[Path], Mapping[str, Any]],
    *,
    engine_source: Path,
    selftest: tuple[np.ndarray, np.ndarray],
    tolerance: float = 1e-4,
    measure_sealed: Callable[[Path], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Builds an artifact in a temporary sibling of ``final`` and puts it in place in one step.

    Args:
        final: the artifact directory; an artifact that is there is kept until the new one is complete.
        build: writes the payload into the directory it is given and returns the manifest's fields;
            ``files``, ``size`` and ``selftest`` are filled in here.
        engine_source: the target's file with ``class Engine``, which becomes part of ``run.py``.
        selftest: windows ``[N, D, L]`` and the original PyTorch model's forecasts ``[N, D, H]``, both in
            the units of the data.
        tolerance: of the self-test, as in ``targets/parity.py``, unless the manifest's target has its own.
        measure_sealed: gives further fields that only a complete artifact has, such as its cold start.

    Returns:
        The manifest as it was written.

    Raises:
        UsageError: ``final`` is something else than an artifact or an empty directory.
        VerificationError: a field of the manifest is missing, of a wrong type, or not a finite number.
    """
    from ..targets.device import render_runner

    if final.is_symlink() or final.exists():
        _refuse_foreign(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    _tidy(final)
    directory = final.parent / f".{final.name}.{os.getpid()}.{uuid4().hex[:8]}.new"
    directory.mkdir()
    try:
        fields = dict(build(directory))
        fields["selftest"] = {"tolerance": fields.get("target", {}).get("tolerance", tolerance)}
        (directory / RUNNER).write_text(render_runner(engine_source), encoding="utf-8")
        write_selftest(directory, *selftest)
        manifest = seal(directory, fields)
        if measure_sealed is not None:
            manifest = seal(directory, {**fields, **measure_sealed(directory)})
        _replace(directory, final)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return manifest


def seal(directory: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
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
    size = {**fields.get("size", {}), "payload_bytes": payload}
    manifest = _validate({"schema": SCHEMA, **_plain(fields), "files": files, "size": size})
    text = json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
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


def _plain(value: Any, where: str = "") -> Any:
    """``value`` as JSON has it: lists for tuples and arrays, Python numbers for those of numpy, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}.{place}") for place, item in enumerate(value)]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist(), where)
    if isinstance(value, float) and not math.isfinite(value):
        raise VerificationError(
            f"{MANIFEST} field {where.lstrip('.')}: expected a finite number, got {value}"
        )
    return value


# --- reading -----------------------------------------------------------------------------------------


def read_manifest(path: Path) -> dict[str, Any]:
    """The checked manifest of an artifact, a directory or a ``.tsfmc`` file; hashes are not looked at.

    Raises:
        VerificationError: names the field.
        MissingError: there is no such path.
    """
    from ..targets.device import compiler_errors, run

    with opened(path) as directory, compiler_errors():
        return _validate(run.read_manifest(directory))


def verify_artifact(path: Path, threads: int = 1) -> list[str]:
    """Checks every file, every hash and the self-test; returns what was checked, one line each.

    Raises:
        VerificationError: names every file that is wrong, or by how much the self-test differs.
        MissingError: the target's runtime is not installed.
    """
    from ..targets.device import open_artifact, run

    with opened(path) as directory:
        problems = list(run.find_problems(directory))
        if problems:
            raise VerificationError(
                f"{path}: {'; '.join(problems)}", hint="get an intact copy of the artifact"
            )
        count = len(run.read_sums(directory))
        try:
            result = open_artifact(directory, threads).selftest()
        except MissingError as error:
            error.hint = f"its {count} files are intact; on its device: python3 run.py selftest"
            raise
    if not result["passed"]:
        raise VerificationError(
            f"{path}: the self-test differs by {result['max_rel']:.3g} of the window's scale, "
            f"expected at most {result['tolerance']:.3g}",
            hint="another version of the runtime may compute something else here",
        )
    return [
        f"{count} files match {SUMS}",
        f"self-test: {result['windows']} windows within {result['max_rel']:.1e} of the original model, "
        f"tolerance {result['tolerance']:.0e}",
    ]


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The directory of an artifact; a ``.tsfmc`` file is unpacked for the time of the block.

    Raises:
        VerificationError: the file cannot be unpacked.
        MissingError: there is no such path.
    """
    if not path.exists():
        raise MissingError(f"there is no artifact at {path}", hint="give a directory or a .tsfmc file")
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tsfmc-") as folder:
        unpack_zip(path, Path(folder))
        yield Path(folder)


def _validate(fields: Mapping[str, Any]) -> dict[str, Any]:
    try:
        manifest = Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise VerificationError(
            f"{MANIFEST} field {where}: {first['msg']}, got {str(first['input'])[:60]!r}"
        ) from None
    return manifest.model_dump(mode="json", by_alias=True, exclude_unset=True)


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
