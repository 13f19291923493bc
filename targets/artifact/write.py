"""Writing an artifact: in a temporary sibling, renamed into place at the end, the manifest last."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from ...compiler.base.errors import UsageError
from .device.check import SIGNATURE, SUMS, read_sums
from .device.files import is_safe_name
from .device.manifest import MANIFEST, SCHEMA
from .hashes import describe, file_names, payload_bytes, sha256_file
from .manifest import plain, validate
from .runner import render_runner

RUNNER = "run.py"


def write_artifact(
    final: Path, build: Callable[[Path], Mapping[str, Any]], **completion: Any
) -> dict[str, Any]:
    """Builds an artifact in a temporary sibling of ``final`` and puts it in place in one step.

    Args:
        final: the artifact directory.
        build: writes the payload into the directory it is given and returns the manifest's fields.
        completion: the other arguments of ``finish``.

    Returns, raises: as ``draft`` and ``finish``.
    """
    with draft(final) as directory:
        return finish(directory, final, build(directory), **completion)


@contextmanager
def draft(final: Path) -> Iterator[Path]:
    """A temporary sibling of ``final`` to build an artifact in; what is still there at the end is removed.

    An artifact at ``final`` is kept until ``finish`` has a complete new one.

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
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def finish(
    directory: Path,
    final: Path,
    fields: Mapping[str, Any],
    *,
    engine_source: Path,
    selftest: tuple[np.ndarray, np.ndarray],
    tolerance: float = 1e-4,
    measure_sealed: Callable[[Path], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Completes the artifact in ``directory``, a draft with its payload, and renames it to ``final``.

    Args:
        fields: of the manifest; ``files``, ``size`` and ``selftest`` are filled in here.
        engine_source: the target's file with ``class Engine``, which becomes part of ``run.py``.
        selftest: windows ``[N, D, L]`` and the original PyTorch model's forecasts ``[N, D, H]``, both in
            the units of the data.
        tolerance: of the self-test, see ``measure/parity.py``, unless the manifest's target has its own.
        measure_sealed: gives further fields that only a complete artifact has, such as its cold start.

    Returns:
        The manifest as it was written.

    Raises:
        VerificationError: a field of the manifest is missing, of a wrong type, or not a finite number.
    """
    fields = {**fields, "selftest": {"tolerance": fields.get("target", {}).get("tolerance", tolerance)}}
    (directory / RUNNER).write_text(render_runner(engine_source), encoding="utf-8")
    write_selftest(directory, *selftest)
    manifest = seal(directory, fields)
    if measure_sealed is not None:
        manifest = seal(directory, {**fields, **measure_sealed(directory)})
    _replace(directory, final)
    return manifest


def seal(directory: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Writes ``manifest.json`` and then ``SHA256SUMS`` for the files in ``directory``.

    May be called again after files or fields changed.

    Raises:
        VerificationError: a field of the manifest is missing, of a wrong type, or not a finite number.
    """
    for name in (MANIFEST, SUMS, SIGNATURE):  # a signature is over what was there before
        (directory / name).unlink(missing_ok=True)
    files = {name: describe(directory / name) for name in file_names(directory)}
    unsafe = [name for name in files if not is_safe_name(name)]
    if unsafe:
        raise ValueError(f"an artifact cannot hold a file named {unsafe[0]!r}")
    size = {**fields.get("size", {}), "payload_bytes": payload_bytes(files)}
    manifest = validate({"schema": SCHEMA, **plain(fields), "files": files, "size": size})
    _write_manifest(directory, manifest, {name: str(entry["sha256"]) for name, entry in files.items()})
    return manifest


def replace_manifest(final: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Gives an intact artifact another manifest and its line in SHA256SUMS, in one step, and nothing else.

    Args:
        fields: the whole manifest, ``files`` and ``size`` as they are.

    Raises:
        VerificationError: a field of the manifest is missing, of a wrong type, or not a finite number.
    """
    manifest = validate(plain(fields))
    with draft(final) as directory:
        shutil.copytree(final, directory, dirs_exist_ok=True)
        (directory / SIGNATURE).unlink(missing_ok=True)  # it was over the manifest before
        _write_manifest(directory, manifest, read_sums(directory))
        _replace(directory, final)
    return manifest


def _write_manifest(directory: Path, manifest: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """The manifest, and after it SHA256SUMS with ``digests`` of the other files."""
    text = json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
    sums = {**digests, MANIFEST: sha256_file(directory / MANIFEST)}
    (directory / SUMS).write_text(
        "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), encoding="utf-8"
    )


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
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:  # of a signature
            left.unlink(missing_ok=True)


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
