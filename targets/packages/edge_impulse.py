"""``edge-impulse``: what Edge Impulse takes as "bring your own model" (BYOM), in its Studio or from Python.

model.onnx           one window in, one forecast out, in the units of the data, flat
representative.npy   [N, L D], windows of the self-test, for its quantisation
README.md            what to choose in the Studio, and the same in Python
artifact/...         where it comes from: manifest, hashes, self-test

A device of Edge Impulse hands over its features as one line of numbers, a row of the sensors after
another, and its converter takes outputs of two dimensions. So the program is wrapped:

    features [1, L D] --rows to variates--> past [1, D, L] --scaled program--> [1, D, H] --> forecast [1, H D]
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxscript.optimizer import optimize

from ...compiler.base.errors import UsageError
from ..artifact.device.forecaster import SELFTEST_PAST
from .layout import Layout, Packed
from .raw_units import FORECAST, PAST, fixed_batch, with_scaling

FEATURES, OUTPUT = "features", "forecast_rows"

README = """\
# {name} for Edge Impulse

`model.onnx` takes {inputs} numbers, the last {lookback} rows one after another, oldest first, each row
in the order {variates}, and gives {outputs} numbers, the next {horizon} rows in the same way. Units are
those of the data, so there is nothing to scale on the device.

In the Studio: *Upload your model*, `model.onnx`; input *Other*; output *Freeform*. For int8 also give
`representative.npy`, or better some hundreds of windows of your own, float32 `[N, {inputs}]`.

In Python, with the package `edgeimpulse` and a project's key:

```python
import edgeimpulse as ei

ei.API_KEY = "..."
print(ei.model.profile(model="model.onnx", device="cortex-m7-216mhz").summary())
```

Checked here: the model's structure by onnx, its numbers against the artifact by onnxruntime. Not checked
here: what Edge Impulse's converter makes of it, which runs on its servers; hold its output against
`artifact/selftest`.
"""


class EdgeImpulse(Layout):
    """A model for upload, with what its two questions (input, output) are answered by."""

    name: ClassVar[str] = "edge-impulse"
    summary: ClassVar[str] = "Edge Impulse: model.onnx for an upload (BYOM), representative.npy"
    kinds: ClassVar[tuple[str, ...]] = ("onnx",)
    usual: ClassVar[Mapping[str, object]] = {"inputs": None}

    def write(self, artifact: Packed, path: Path) -> None:
        """Writes the folder.

        Raises:
            UsageError: the program was exported for another batch than 1, or forecasts quantiles.
        """
        if levels := artifact.manifest["task"].get("quantile_levels"):
            raise UsageError(
                f"layout {self.name} takes one number a step, this artifact gives {len(levels)} quantiles",
                hint="compile without --quantiles",
            )
        model = with_scaling(onnx.load_model_from_string(artifact.program), artifact.manifest["input"])
        batch = fixed_batch(model)
        if batch not in (None, 1):
            raise UsageError(
                f"layout {self.name} takes one window a call, the program takes {batch}",
                hint="compile with batch 1, or without a fixed batch",
            )
        flat = with_flat_rows(model, *artifact.shapes)
        (path / "model.onnx").write_bytes(flat.SerializeToString(deterministic=True))
        windows = np.load(BytesIO(artifact.files.read(SELFTEST_PAST)), allow_pickle=False)  # [N, D, L]
        rows = windows.transpose(0, 2, 1).reshape(len(windows), -1)
        np.save(path / "representative.npy", rows.astype(np.float32))
        (path / "README.md").write_text(_readme(artifact), encoding="utf-8")
        artifact.copy_to(path / "artifact")


def with_flat_rows(model: ModelProto, past: tuple[int, ...], forecast: tuple[int, ...]) -> ModelProto:
    """``model`` between flat rows.

    Args:
        model: ``past [B, D, L] -> forecast [B, D, H]``.
        past, forecast: ``[D, L]`` and ``[D, H]``.

    Returns:
        ``features [1, L D] -> forecast_rows [1, H D]``, float32.
    """
    flat = ModelProto()
    flat.CopyFrom(model)
    graph, (variates, lookback), (_, horizon) = flat.graph, past, forecast
    for name, shape in (("row_shape", [1, lookback, variates]), ("flat_shape", [1, horizon * variates])):
        graph.initializer.append(numpy_helper.from_array(np.asarray(shape, np.int64), name))
    before = [
        helper.make_node("Reshape", [FEATURES, "row_shape"], ["past_rows"], "as_rows"),
        helper.make_node("Transpose", ["past_rows"], [PAST], "to_variates", perm=[0, 2, 1]),
    ]
    after = [
        helper.make_node("Transpose", [FORECAST], ["future_rows"], "to_rows", perm=[0, 2, 1]),
        helper.make_node("Reshape", ["future_rows", "flat_shape"], [OUTPUT], "as_one_line"),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, [1, lookback * variates]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, horizon * variates]))
    known: ModelProto = optimize(flat)  # every shape is known now: none is left to be computed
    onnx.checker.check_model(known, full_check=True)
    return known


def _readme(artifact: Packed) -> str:
    (variates, lookback), (_, horizon) = artifact.shapes
    names = artifact.manifest["task"]["variates"]
    return README.format(
        name=artifact.name,
        inputs=variates * lookback,
        outputs=variates * horizon,
        lookback=lookback,
        horizon=horizon,
        variates="of manifest.json's `variates`" if len(names) > 20 else ", ".join(map(_code, names)),
    )


def _code(name: str) -> str:
    """A foreign name as code: one line, and nothing that ends the code."""
    return "`" + "".join(letter if letter.isprintable() and letter != "`" else "?" for letter in name) + "`"
