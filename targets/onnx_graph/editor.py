"""A small editor for ONNX graphs, shared by the precision and quantisation rewrites.

A rewrite walks the old nodes in order and emits new ones, so the result is sorted by construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...compiler.base.errors import LoweringError


class GraphEditor:
    """A copy of ``model`` with its constants as initializers and an empty list of new nodes.

    Raises:
        LoweringError: the graph has branches or loops, which no rewrite here understands.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        graph = self.model.graph
        self.constants: dict[str, np.ndarray] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.old_nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
                raise LoweringError(
                    f"ONNX node {node.name or node.output[0]!r} ({node.op_type}) holds a subgraph",
                    hint="export the model without data-dependent branches or loops",
                )
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self.old_nodes.append(node)
        self.nodes: list[onnx.NodeProto] = []
        self._types = self._element_types()
        self._names = set(self._types) | {name for node in self.old_nodes for name in node.output}

    def _element_types(self) -> dict[str, int]:
        graph = onnx.shape_inference.infer_shapes(self.model).graph
        values = [*graph.input, *graph.value_info, *graph.output]
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        types |= {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in self.constants.items()}
        return types

    def is_float(self, name: str) -> bool:
        """Whether a value is a float32 tensor."""
        return self._types.get(name) == TensorProto.FLOAT

    def is_half(self, name: str) -> bool:
        """Whether a value is a float16 tensor."""
        return self._types.get(name) == TensorProto.FLOAT16

    def input_names(self) -> list[str]:
        """Names of the graph's inputs."""
        return [value.name for value in self.model.graph.input]

    def output_names(self) -> list[str]:
        """Names of the graph's outputs."""
        return [value.name for value in self.model.graph.output]

    def fresh(self, stem: str) -> str:
        """A name that no value has yet; the same calls give the same names."""
        name, count = stem, 1
        while name in self._names:
            name, count = f"{stem}_{count}", count + 1
        self._names.add(name)
        return name

    def constant(self, array: np.ndarray, stem: str) -> str:
        """Adds a constant and returns its name."""
        name = self.fresh(stem)
        self.constants[name] = array
        self._types[name] = helper.np_dtype_to_tensor_dtype(array.dtype)
        return name

    def keep(self, node: onnx.NodeProto, inputs: Sequence[str] | None = None) -> onnx.NodeProto:
        """Emits an old node, with other inputs where given."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if inputs is not None:
            del copy.input[:]
            copy.input.extend(inputs)
        self.nodes.append(copy)
        return copy

    def emit(self, op: str, inputs: Sequence[str], stem: str, output: str | None = None, **attrs: Any) -> str:
        """Emits a new node with one output (float32, or what a Cast says) and returns the output's name."""
        result = output or self.fresh(stem)
        self.nodes.append(helper.make_node(op, list(inputs), [result], name=f"{result}:{op}", **attrs))
        self._types[result] = attrs.get("to", TensorProto.FLOAT)
        return result

    def finish(self, *, opset: int | None = None) -> onnx.ModelProto:
        """The rewritten model, checked, without unused constants and with inferred types."""
        graph = self.model.graph
        used = {name for node in self.nodes for name in node.input} | set(self.output_names())
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(
            _tensor(array, name) for name, array in self.constants.items() if name in used
        )
        if opset is not None:
            _set_opset(self.model.opset_import, opset)
        onnx.checker.check_model(self.model)
        return onnx.shape_inference.infer_shapes(self.model, strict_mode=True)


def _tensor(array: np.ndarray, name: str) -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)


def _set_opset(imports: Iterable[onnx.OperatorSetIdProto], version: int) -> None:
    for entry in imports:
        if entry.domain in ("", "ai.onnx"):
            entry.version = version
