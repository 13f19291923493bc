"""The ONNX payload with the scaling inside: servers have no runner that would scale for them.

    past --Sub mean--Div std--> payload --Mul std--Add mean--(Reshape)--> forecast

Raw values go in as float32.  The mean is taken out first, so a series far from zero loses no more digits
than its own float32 form has.  Quantiles, one row a variate in the payload, become an axis of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from ..onnx_graph.metadata import in_raw_units

PAST, FORECAST = "past", "forecast"


def with_scaling(model: ModelProto, scaling: Mapping[str, Any], quantiles: int = 1) -> ModelProto:
    """``model`` from raw units to raw units, under the same names of input and output.

    Args:
        model: ``past [B, D, L] -> forecast [B, D, H Q]``, scaled.
        scaling: the manifest's ``input``: ``mean`` and ``std``, one number a variate.
        quantiles: Q; with more than one the forecast is ``[B, D, H, Q]``.
    """
    scaled = ModelProto()
    scaled.CopyFrom(model)
    graph = scaled.graph
    names = {PAST: "scaled_past", FORECAST: "scaled_forecast"}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for name in ("mean", "std"):
        values = np.asarray(scaling[name], np.float32).reshape(1, -1, 1)
        graph.initializer.append(numpy_helper.from_array(values, f"scaling_{name}"))
    before = [
        helper.make_node("Sub", [PAST, "scaling_mean"], ["centred_past"], "take_mean"),
        helper.make_node("Div", ["centred_past", "scaling_std"], [names[PAST]], "divide_by_std"),
    ]
    after = [
        helper.make_node("Mul", [names[FORECAST], "scaling_std"], ["spread_forecast"], "times_std"),
        helper.make_node("Add", ["spread_forecast", "scaling_mean"], [FORECAST], "add_mean"),
    ]
    if quantiles > 1:
        after += _split_steps(graph, quantiles)
        after[1].output[:] = ["rows"]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(scaled, full_check=True)
    return in_raw_units(scaled)


def _split_steps(graph: GraphProto, quantiles: int) -> list[NodeProto]:
    """Rows of ``H Q`` numbers to ``[H, Q]``; the output's shape says so."""
    size = graph.output[0].type.tensor_type.shape
    steps = size.dim[2].dim_value // quantiles
    size.dim[2].dim_value = steps
    size.dim.add().dim_value = quantiles
    shape = np.array([0, 0, steps, quantiles], np.int64)
    graph.initializer.append(numpy_helper.from_array(shape, "step_and_quantile"))
    return [helper.make_node("Reshape", ["rows", "step_and_quantile"], [FORECAST], "split_steps")]


def fixed_batch(model: ModelProto) -> int | None:
    """The batch that the program was exported with, None where it takes any."""
    size = model.graph.input[0].type.tensor_type.shape.dim[0]
    return int(size.dim_value) if size.HasField("dim_value") else None
