"""``kserve``: what KServe pulls from a ``storageUri``, and the InferenceService that names it.

KServe serves a Triton model repository through its ``kserve-tritonserver`` runtime, with the open inference
protocol (v2).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from .layout import Layout, Packed
from .triton import Triton

SERVICE = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    model:
      modelFormat:
        name: onnx
      runtime: kserve-tritonserver
      protocolVersion: v2
      # Where the folder models/ of this package was uploaded.
      storageUri: "pvc://models/{name}"
      resources:
        requests: {{ cpu: "1", memory: 512Mi }}
        limits: {{ cpu: "1", memory: 1Gi }}
"""


class KServe(Layout):
    """``models/`` for the storage and ``inferenceservice.yaml`` for the cluster."""

    name: ClassVar[str] = "kserve"
    summary: ClassVar[str] = "KServe: models/ for the storage, inferenceservice.yaml for the cluster"
    kinds: ClassVar[tuple[str, ...]] = ("onnx",)
    usual: ClassVar[Mapping[str, object]] = {"inputs": None}

    def write(self, artifact: Packed, path: Path) -> None:
        """Writes both."""
        (path / "models").mkdir()
        Triton().write(artifact, path / "models")
        name = artifact.name.lower().replace("_", "-").strip("-")
        (path / "inferenceservice.yaml").write_text(SERVICE.format(name=name), encoding="utf-8")
