"""The other way to an engine, on a machine with a GPU and the extra ``trt``: torch_tensorrt.

Not run on a machine without a GPU, where ``import torch_tensorrt`` itself fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...compiler.base.errors import LoweringError, MissingError, VerificationError
from ...compiler.base.reading import read_json
from .options import BatchProfile
from .vectors import Vector, errors

PROGRAM, RAW_PLAN = "model.torch_tensorrt.ep", "model.torch_tensorrt.engine"


def build_with_torch_tensorrt(directory: Path, batch: BatchProfile) -> dict[str, Any]:
    """Compiles ``model.pt2`` in ``directory`` whole, compares it with the vectors, saves program and plan.

    Raises:
        MissingError: torch_tensorrt or a GPU that torch can use is not there.
        VerificationError: the compiled program does not agree with the vectors.
    """
    if not torch.cuda.is_available():
        raise MissingError("torch sees no NVIDIA GPU", hint="install a CUDA build of torch")
    try:
        import torch_tensorrt  # type: ignore[import-not-found,unused-ignore]
    except (ImportError, OSError, AttributeError) as error:
        raise MissingError(
            f"torch_tensorrt cannot be imported: {error}", hint='install "tsfmc[trt]"'
        ) from error
    spec = read_json(directory / "engine.json", what="specification of the engine", error=LoweringError)
    shape = tuple(spec["input"]["shape"])
    sizes = {f"{key}_shape": (getattr(batch, key), *shape) for key in ("min", "opt", "max")}
    entry = (
        torch_tensorrt.Input(shape=sizes["max_shape"]) if batch.is_static else torch_tensorrt.Input(**sizes)
    )
    program = torch.export.load(directory / "model.pt2")
    settings = {"require_full_compilation": True, "min_block_size": 1, "disable_tf32": True}
    compiled = torch_tensorrt.dynamo.compile(program, inputs=[entry], attn_bias_is_causal=False, **settings)
    worst = _worst_error(compiled, directory, spec)
    example = torch.zeros(sizes["opt_shape"], device="cuda")
    torch_tensorrt.save(
        compiled, str(directory / PROGRAM), output_format="exported_program", inputs=[example]
    )
    plan = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        program, inputs=[entry], **settings
    )
    (directory / RAW_PLAN).write_bytes(plan)
    return {"version": torch_tensorrt.__version__, "gpu": torch.cuda.get_device_name(), "error": worst}


def _worst_error(compiled: Any, directory: Path, spec: dict[str, Any]) -> float:
    pool = np.fromfile(directory / spec["pool"], "<f4").reshape(-1, *spec["input"]["shape"])
    worst = 0.0
    for entry in spec["vectors"]:
        vector = Vector(entry["name"], entry["first"], entry["batch"], tuple(entry["scales"]))
        truth = np.fromfile(directory / entry["expected"], "<f4").reshape(-1, *spec["output"]["shape"])
        past = vector.windows(pool)
        got = compiled(torch.from_numpy(past).cuda()).cpu().numpy()
        worst = max(worst, float(errors(past, got, truth).max()))
    if worst > spec["tolerance"]:
        raise VerificationError(
            f"torch_tensorrt's program differs from the model by {worst:.3g}, at most {spec['tolerance']}"
            " is allowed",
            hint="use the engine of build_engine.py",
        )
    return worst
