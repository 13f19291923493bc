"""``oci``: an image of the Open Container Initiative, as a layout on disk; no container tool writes it.

oci-layout, index.json      image layout ("OCI Image Format Specification" 1.1, Image Layout)
blobs/sha256/...            one layer, the artifact as a tar; a manifest and a configuration for each platform

Registries store it, and it is mounted or copied from as any image: ``skopeo copy oci:DIR docker://...``, a
Kubernetes image volume, ``COPY --from=`` in a Dockerfile.  It starts nothing: there is no system inside.
An artifact for one processor names that; any other is there for every platform, which share the layer.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..artifact.device.manifest import MANIFEST
from ..artifact.hashes import file_names
from .layout import Layout, Packed

ARTIFACT = "application/vnd.tsfmc.artifact.v1"
INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EPOCH = "1970-01-01T00:00:00Z"
PLATFORMS: Mapping[str, Mapping[str, str]] = {
    "x86_64": {"architecture": "amd64", "os": "linux"},
    "aarch64": {"architecture": "arm64", "os": "linux"},
    "armv7l": {"architecture": "arm", "os": "linux", "variant": "v7"},
    "riscv64": {"architecture": "riscv64", "os": "linux"},
}
"""What ``platform.machine()`` says -> as images say it."""

Descriptor = dict[str, Any]


class Oci(Layout):
    """An image layout with the tag ``latest``."""

    name: ClassVar[str] = "oci"
    summary: ClassVar[str] = "OCI image layout: the artifact as an image, for registries and image volumes"

    def write(self, artifact: Packed, path: Path) -> None:
        """Writes the layout."""
        blobs = _Blobs(path / "blobs" / "sha256")
        content = artifact_tar(artifact)
        layer = {
            **blobs.add(content, LAYER),
            "annotations": {"org.opencontainers.image.title": "artifact.tar"},
        }
        machine = artifact.manifest["target"].get("machine")
        machines = [machine] if machine in PLATFORMS else list(PLATFORMS)
        images = [self._image(artifact, blobs, layer, PLATFORMS[each]) for each in machines]
        index = _document(INDEX, manifests=images, artifactType=ARTIFACT, annotations=labels(artifact))
        entry = {**blobs.add_json(index), "annotations": {"org.opencontainers.image.ref.name": "latest"}}
        (path / "index.json").write_bytes(_json(_document(INDEX, manifests=[entry])))
        (path / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))

    def _image(
        self, artifact: Packed, blobs: _Blobs, layer: Descriptor, platform: Mapping[str, str]
    ) -> Descriptor:
        facts = {"created": EPOCH, "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
        config = blobs.add(_json({**platform, **facts}), CONFIG)
        image = _document(
            IMAGE, artifactType=ARTIFACT, config=config, layers=[layer], annotations=labels(artifact)
        )
        return {**blobs.add_json(image), "artifactType": ARTIFACT, "platform": dict(platform)}


class _Blobs:
    """``blobs/sha256``: contents by their hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def add(self, content: bytes, media_type: str) -> Descriptor:
        """Writes a content and describes it."""
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def add_json(self, document: Mapping[str, Any]) -> Descriptor:
        """The same for a document that names its own type."""
        return self.add(_json(document), document["mediaType"])


def artifact_tar(artifact: Packed) -> bytes:
    """The artifact at the root of a tar, without times, owners and a user's own files."""
    stream = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="tsfmc-") as place:
        folder = Path(place)
        artifact.copy_to(folder)
        names = file_names(folder)
        parents = {parent.as_posix() for name in names for parent in Path(name).parents} - {"."}
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name in sorted({*names, *parents}):
                entry, source = tarfile.TarInfo(name), folder / name
                if source.is_dir():
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(entry)
                    continue
                entry.size = source.stat().st_size
                with source.open("rb") as file:
                    archive.addfile(entry, file)
    return stream.getvalue()


def labels(artifact: Packed) -> dict[str, str]:
    """What a registry shows: the specification's own keys, and the artifact's identity."""
    manifest = artifact.manifest
    task, licence = manifest["task"], manifest.get("licence") or {}
    about = {
        "org.opencontainers.image.title": artifact.name,
        "org.opencontainers.image.description": (
            f"tsfmc artifact for {artifact.kind}: lookback {task['lookback']}, horizon {task['horizon']}, "
            f"{len(task['variates'])} variates"
        ),
        "org.opencontainers.image.licenses": str(licence.get("spdx") or ""),
        "tsfmc.target": artifact.kind,
        "tsfmc.manifest.sha256": (artifact.files.sums or {})[MANIFEST],
    }
    return {key: value for key, value in about.items() if value}


def _document(media_type: str, **fields: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": media_type, **fields}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
