"""Redoing what guards a format, as an attacker does who knows it: then only the content can give him away."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .edits import Edit, edit


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sums(root: Path) -> None:
    listed = [line.partition("  ")[2] for line in (root / "SHA256SUMS").read_text().splitlines()]
    kept = [name for name in listed if (root / name).is_file() and (root / name).stat().st_size < 1 << 26]
    (root / "SHA256SUMS").write_text("".join(f"{_digest(root / name)}  {name}\n" for name in kept))


def _artifact(root: Path) -> None:
    """The manifest's list of files where it can still be read, and SHA256SUMS."""
    path = root / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        for name, facts in manifest["files"].items():
            facts.update(bytes=(root / name).stat().st_size, sha256=_digest(root / name))
        path.write_text(json.dumps(manifest, indent=2, sort_keys=True))
    except (ValueError, KeyError, AttributeError, TypeError, OSError, RecursionError):
        pass  # the manifest is what was edited
    _sums(root)


def _store(root: Path) -> None:
    """Sizes and hashes in ``store.json``: of the bytes of shards of 256 windows, in order."""
    import numpy as np

    path = root / "store.json"
    record = json.loads(path.read_bytes())
    for name, facts in record["files"].items():
        array = np.load(root / name)
        parts = [array[start : start + 256] for start in range(0, len(array), 256)]
        digests = [hashlib.sha256(part.tobytes()).hexdigest() for part in parts]
        facts["bytes"] = (root / name).stat().st_size
        facts["sha256"] = hashlib.sha256("".join(digests).encode()).hexdigest()
        for number, digest in enumerate(digests):
            mark = root / "shards" / f"{name.split('/')[0]}-{number:05d}.json"
            shard = json.loads(mark.read_bytes())
            shard["sha256"][name.split("/")[1].removesuffix(".npy")] = digest
            mark.write_text(json.dumps(shard, indent=1, sort_keys=True))
    path.write_text(json.dumps(record, indent=1, sort_keys=True))


def _cache(root: Path) -> None:
    for path in root.glob("passes/*/result.json"):
        result = json.loads(path.read_bytes())
        result["files"] = {name: _digest(path.parent / name) for name in result["files"]}
        path.write_text(json.dumps(result))


def _statistics(root: Path) -> None:
    manifest = json.loads((root / "onnx/manifest.json").read_bytes())
    manifest["statistics"]["sha256"] = _digest(root / "statistics.safetensors")
    (root / "onnx/manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True))
    _artifact(root / "onnx")


SEALS: dict[str, Callable[[Path], None]] = {
    "sums": _sums,
    "artifact": _artifact,
    "store": _store,
    "cache": _cache,
    "statistics": _statistics,
}


@edit
def seal(root: Path, wanted: Edit) -> None:
    """Redoes the hashes of a format; where the edits left nothing that could be hashed, it stays as it is."""
    if any(path.is_fifo() or path.is_symlink() for path in root.rglob("*")):
        return  # what could be read without end
    with suppress(Exception):  # numpy's and zip's own readers raise whatever a mutant makes them stumble over
        SEALS[wanted["as"]](root)
