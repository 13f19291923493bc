"""``triton``: a model repository of NVIDIA's Triton Inference Server, onnxruntime backend.

NAME/config.pbtxt
NAME/1/model.onnx        raw units in, raw units out
NAME/artifact/...        where it comes from: manifest, hashes, self-test
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import onnx

from .layout import Layout, Packed
from .raw_units import FORECAST, PAST, fixed_batch, with_scaling

MAX_BATCH = 64

CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
  {{
    name: "{past}"
    data_type: TYPE_FP32
    dims: [ {past_dims} ]
  }}
]
output [
  {{
    name: "{forecast}"
    data_type: TYPE_FP32
    dims: [ {forecast_dims} ]
  }}
]
{batching}instance_group [
  {{
    kind: KIND_CPU
    count: 1
  }}
]
parameters {{
  key: "intra_op_thread_count"
  value: {{ string_value: "1" }}
}}
"""


class Triton(Layout):
    """A repository of one model; a program of any batch is batched by the server."""

    name: ClassVar[str] = "triton"
    summary: ClassVar[str] = "Triton model repository: config.pbtxt, 1/model.onnx in raw units"
    kinds: ClassVar[tuple[str, ...]] = ("onnx",)
    usual: ClassVar[Mapping[str, object]] = {"inputs": None}

    def write(self, artifact: Packed, path: Path) -> None:
        """Writes the repository."""
        quantiles = len(artifact.manifest["task"].get("quantile_levels") or [0.5])
        program = onnx.load_model_from_string(artifact.program)
        model = with_scaling(program, artifact.manifest["input"], quantiles)
        place = path / artifact.name
        (place / "1").mkdir(parents=True)
        (place / "1" / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
        (place / "config.pbtxt").write_text(config(artifact, fixed_batch(model)), encoding="utf-8")
        artifact.copy_to(place / "artifact")


def config(artifact: Packed, batch: int | None) -> str:
    """``config.pbtxt``.  A fixed batch is a part of the shape, and the server batches nothing."""
    past, forecast = artifact.shapes
    fixed = () if batch is None else (batch,)
    return CONFIG.format(
        name=artifact.name,
        max_batch=MAX_BATCH if batch is None else 0,
        batching="dynamic_batching { }\n" if batch is None else "",
        past=PAST,
        forecast=FORECAST,
        past_dims=", ".join(str(size) for size in (*fixed, *past)),
        forecast_dims=", ".join(str(size) for size in (*fixed, *forecast)),
    )
