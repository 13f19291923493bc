"""ONNX graph -> steps.

    constant operands are packed, views are followed, elementwise chains are held back until something needs
    them in memory, and a product with a constant takes the bias that is added to it

Shapes are static, the batch is one.  What has no rule here is refused by name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.base.errors import LoweringError
from .options import Precision
from .steps import LayerNorm, Linear, Map, Mean, MovingAverage, Product, Softmax, Step
from .values import ELEMENTWISE, FORECAST, PAST, Operand, Term, View, collapse, term, views_of
from .weights import Matrix, Weights

if TYPE_CHECKING:
    import onnx

VIEWS = ("Reshape", "Unsqueeze", "Squeeze", "Identity", "Transpose", "Slice", "Split", "Expand")


@dataclass(frozen=True)
class Graph:
    """What the C file is written from.

    Attributes:
        sizes: elements of every block of scratch memory.
        matrices: packed matrices, by the number that ``Linear`` steps have.
    """

    steps: tuple[Step, ...]
    sizes: dict[str, int]
    weights: Weights
    matrices: tuple[Matrix, ...]
    variates: int
    lookback: int
    horizon: int

    @property
    def macs(self) -> int:
        """Multiply-adds of the products."""
        count = 0
        for step in self.steps:
            if isinstance(step, Linear):
                count += math.prod(step.out.shape) * step.inputs
            elif isinstance(step, Product):
                count += math.prod(step.out.shape) * step.left.shape[-1]
        return count


def read_graph(model: onnx.ModelProto, precision: Precision = "fp32") -> Graph:
    """The steps of a graph ``past [1, D, L] -> forecast [1, D, H]``.

    Raises:
        LoweringError: an operator, or a form of one, that has no C kernel.
    """
    return _Reader(model, precision).graph()


class _Reader:
    def __init__(self, model: onnx.ModelProto, precision: Precision) -> None:
        from onnx import numpy_helper

        self.proto, self.precision = model.graph, precision
        self.values: dict[str, Operand | np.ndarray] = {
            each.name: numpy_helper.to_array(each) for each in self.proto.initializer
        }
        (entry,), (output,) = self.proto.input, self.proto.output
        self.output = output.name
        _, self.variates, self.lookback = _dimensions(entry)
        self.horizon = _dimensions(output)[2]
        self.shapes = {each.name: _dimensions(each) for each in (*self.proto.value_info, output)}
        self.values[entry.name] = View.whole(PAST, (1, self.variates, self.lookback))
        self.uses = Counter(name for node in self.proto.node for name in node.input)
        self.uses[self.output] += 1
        self.steps: list[Step] = []
        self.sizes: dict[str, int] = {}
        self.weights, self.matrices = Weights(), list[Matrix]()
        self.pending: dict[str, onnx.NodeProto] = {}
        """Products with a constant that wait for the bias which is added to them next."""

    def graph(self) -> Graph:
        for node in self.proto.node:
            self.read(node)
        self.write_output()
        return Graph(
            tuple(self.steps),
            self.sizes,
            self.weights,
            tuple(self.matrices),
            self.variates,
            self.lookback,
            self.horizon,
        )

    def read(self, node: onnx.NodeProto) -> None:
        operands = [self.values.get(name) for name in node.input if name]
        if operands and all(isinstance(each, np.ndarray) for each in operands):
            self.fold(node)
            return
        rule = self.rules().get(node.op_type)
        if rule is None:
            raise LoweringError(
                f"c: operator {node.op_type} ({node.output[0]}) has no C kernel",
                hint="use the tvm or the onnx target, or fold the student first",
            )
        rule(node, {each.name: _attribute(each) for each in node.attribute})

    def rules(self) -> dict[str, Callable[[onnx.NodeProto, dict[str, Any]], None]]:
        """Operator -> what reads it."""
        return {
            **dict.fromkeys(ELEMENTWISE, self.elementwise),
            **dict.fromkeys(VIEWS, self.view),
            "MatMul": self.product,
            "Gemm": self.gemm,
            "ReduceMean": self.mean,
            "Softmax": self.softmax,
            "LayerNormalization": self.layer_norm,
            "AveragePool": self.average,
            "Concat": self.concat,
        }

    # Values -----------------------------------------------------------------------------------------------

    def fold(self, node: onnx.NodeProto) -> None:
        """A node of constants alone is computed now."""
        from onnx.reference import ReferenceEvaluator

        feeds = {name: self.values[name] for name in node.input if name}
        results = ReferenceEvaluator(node).run(None, feeds)
        self.values.update(zip(node.output, map(np.asarray, results), strict=True))

    def new(self, shape: Sequence[int]) -> View:
        """A block of scratch memory."""
        block = f"b{len(self.sizes)}"
        self.sizes[block] = math.prod(shape)
        return View.whole(block, shape)

    def operand(self, name: str) -> Operand:
        """A value for an elementwise operator: constants become numbers or views of the weights."""
        value = self.values[name]
        if not isinstance(value, np.ndarray):
            return value
        if value.dtype != np.float32:
            raise LoweringError(f"c: constant {name} has type {value.dtype}, expected float32")
        if value.size == 1 or (value.size and (value == value.flat[0]).all()):
            return float(value.flat[0])
        return View.whole(self.weights.vector(value, name), value.shape)

    def stored(self, name: str) -> View:
        """A value in memory."""
        value = self.operand(name)
        if isinstance(value, View):
            return value
        if isinstance(value, float):
            raise LoweringError(f"c: {name} is a constant where a computed value is expected")
        self.values[name] = self.copied(value, value.shape, name)
        return self.stored(name)

    def copied(self, value: Operand, shape: Sequence[int], about: str) -> View:
        """A new block with the value."""
        out = self.new(shape)
        self.steps.append(Map(out, about, value))
        return out

    def ints(self, node: onnx.NodeProto, position: int) -> list[int] | None:
        """A constant list of integers among the inputs."""
        if len(node.input) <= position or not node.input[position]:
            return None
        value = self.values[node.input[position]]
        if not isinstance(value, np.ndarray):
            raise self.refusal(node, "sizes that are computed")
        return [int(each) for each in value.reshape(-1)]

    @staticmethod
    def refusal(node: onnx.NodeProto, what: str) -> LoweringError:
        return LoweringError(
            f"c: operator {node.op_type} ({node.output[0]}) with {what} has no C kernel",
            hint="use the tvm or the onnx target",
        )

    def write_output(self) -> None:
        """The forecast is written where the caller wants it."""
        out = View.whole(FORECAST, (1, self.variates, self.horizon))
        value = self.operand(self.output)
        last = self.steps[-1] if self.steps else None
        whole = isinstance(value, View) and value.contiguous and value.offset == 0
        if last and whole and isinstance(value, View) and last.out.block == value.block in self.sizes:
            written = last.out.contiguous and math.prod(last.out.shape) == self.sizes[value.block]
            if written and not any(view.block == value.block for view in last.reads()):
                moved = View(FORECAST, last.out.shape, last.out.strides)
                self.steps[-1] = type(last)(**{**last.__dict__, "out": moved})
                del self.sizes[value.block]
                return
        self.steps.append(Map(out, "forecast", value))

    # Operators --------------------------------------------------------------------------------------------

    def elementwise(self, node: onnx.NodeProto, _: dict[str, Any]) -> None:
        if node.op_type == "Add" and self.take_bias(node):
            return
        names = [name for name in node.input if name]
        operands = [self.operand(name) for name in names]
        value = term(node.op_type, operands)
        for position, name in enumerate(names):  # a smaller value would be computed again for every element
            if isinstance(operands[position], Term) and operands[position].shape != value.shape:  # type: ignore[union-attr]
                operands[position] = self.stored(name)
        value = term(node.op_type, operands)
        self.values[node.output[0]] = value
        if self.uses[node.output[0]] > 1:
            self.stored(node.output[0])

    def view(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        source = self.stored(node.input[0])
        shapes = [self.shapes[name] for name in node.output]
        results: list[View | None]
        if node.op_type == "Transpose":
            results = [source.transposed(attributes["perm"])]
        elif node.op_type == "Expand":
            results = [source.expanded(shapes[0])]
        elif node.op_type == "Split":
            axis = attributes.get("axis", 0) % len(source.shape)
            starts = np.cumsum([0, *(shape[axis] for shape in shapes)])
            results = [source.part(axis, int(at), s[axis]) for at, s in zip(starts, shapes, strict=False)]
        elif node.op_type == "Slice":
            results = [self.sliced(node, source)]
        else:
            results = [source.reshaped(shapes[0])]
        for name, shape, result in zip(node.output, shapes, results, strict=True):
            if result is None:
                result = self.copied(source, source.shape, name).reshaped(shape)
            assert result is not None and result.shape == shape, (node.op_type, result, shape)
            self.values[name] = result

    def sliced(self, node: onnx.NodeProto, source: View) -> View:
        starts, ends = self.ints(node, 1) or [], self.ints(node, 2) or []
        axes = self.ints(node, 3) or list(range(len(starts)))
        steps = self.ints(node, 4) or [1] * len(starts)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            if step != 1:
                raise self.refusal(node, "a step")
            first, last, _ = slice(start, end).indices(source.shape[axis])
            source = source.part(axis % len(source.shape), first, last - first)
        return source

    def take_bias(self, node: onnx.NodeProto) -> bool:
        """Whether the addition was one of a constant to a product that had waited for it."""
        for product, other in (node.input, reversed(node.input)):
            bias = self.values.get(other)
            if product in self.pending and isinstance(bias, np.ndarray):
                waiting, outputs = self.pending[product], self.shapes[product][-1]
                if bias.size == outputs == bias.shape[-1] and self.uses[product] == 1:
                    del self.pending[product]
                    self.linear(waiting, bias.reshape(1, -1), node.output[0])
                    return True
        return False

    def product(self, node: onnx.NodeProto, _: dict[str, Any]) -> None:
        left, right = node.input
        if isinstance(self.values[left], np.ndarray):
            raise self.refusal(node, "a constant on the left")
        if not isinstance(self.values[right], np.ndarray):
            out = self.new(self.shapes[node.output[0]])
            one, other = self.stored(left), self.stored(right)
            if one.strides[-1] != 1 and one.shape[-1] > 1:
                one = self.copied(one, one.shape, left)
            if 1 not in (other.strides[-1], other.strides[-2]):
                other = self.copied(other, other.shape, right)
            self.steps.append(Product(out, node.output[0], one, other))
            self.values[node.output[0]] = out
            return
        following = [each for each in self.proto.node if node.output[0] in each.input]
        if len(following) == 1 and following[0].op_type == "Add":
            self.pending[node.output[0]] = node
            if self.can_take(following[0], node.output[0]):
                return
            del self.pending[node.output[0]]
        self.linear(node, None, node.output[0])

    def can_take(self, addition: onnx.NodeProto, product: str) -> bool:
        (other,) = [name for name in addition.input if name != product] or [product]
        bias = self.values.get(other)
        return isinstance(bias, np.ndarray) and bias.size == self.shapes[product][-1] == bias.shape[-1]

    def gemm(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        matrix = self.values[node.input[1]]
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
        if not isinstance(matrix, np.ndarray) or attributes.get("transA") or not plain:
            raise self.refusal(node, "factors, or two computed operands")
        if attributes.get("transB"):
            self.values[node.input[1]] = matrix.T
        bias = self.values[node.input[2]] if len(node.input) > 2 else None
        if bias is not None and not isinstance(bias, np.ndarray):
            raise self.refusal(node, "a computed bias")
        outputs = self.shapes[node.output[0]][-1]
        self.linear(
            node,
            None if bias is None else np.broadcast_to(bias.reshape(1, -1), (1, outputs)),
            node.output[0],
        )

    def linear(self, node: onnx.NodeProto, bias: np.ndarray | None, output: str) -> None:
        """A product with a constant ``[K, N]``, or with ``[S, K, N]``, one for each row or block of rows."""
        matrix, shape = self.values[node.input[1]], self.shapes[node.output[0]]
        assert isinstance(matrix, np.ndarray)
        stack = matrix.reshape(-1, *matrix.shape[-2:]) if matrix.ndim > 1 else matrix.reshape(1, -1, 1)
        source = self.stored(node.input[0])
        rows = math.prod(shape) // stack.shape[-1]
        # Batch axes other than those of the matrices come first, so that one matrix' rows are neighbours.
        if len(stack) > 1 and (math.prod(shape[:-2]) != len(stack) or rows % len(stack)):
            raise self.refusal(node, "matrices that repeat over a batch")
        if source.rows() is None:
            source = self.copied(source, source.shape, node.input[0])
        packed = self.weights.matrix(stack.astype(np.float32), bias, self.precision != "fp32", node.input[1])
        out = self.new(shape)
        kernel, scratch = "linear_int8" if packed.scales else "linear_float", None
        if packed.scales and self.precision == "int8":
            kernel, scratch = "linear_int16", self.new((-(-packed.inputs // 2),))
        about = f"{output} = {node.input[0]} @ {node.input[1]}"
        self.steps.append(
            Linear(
                out,
                about,
                source,
                len(self.matrices),
                kernel,
                len(stack),
                packed.inputs,
                packed.outputs,
                scratch,
            )
        )
        self.matrices.append(packed)
        self.values[output] = out

    def mean(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        value = self.operand(node.input[0])
        if isinstance(value, float):
            raise self.refusal(node, "a constant")
        axes = self.ints(node, 1) or attributes.get("axes")
        if axes is None or [axis % len(value.shape) for axis in axes] != [len(value.shape) - 1]:
            raise self.refusal(node, "other axes than the last")
        leading = [view.expanded(value.shape).strides[:-1] for view in views_of(value)]
        if len(collapse(value.shape[:-1], leading)) > 1:
            value = self.copied(value, value.shape, node.input[0])
        out = self.new(self.shapes[node.output[0]])
        self.steps.append(Mean(out, node.output[0], value))
        self.values[node.output[0]] = out

    def dense(self, name: str) -> View:
        """A value in memory, in C order."""
        source = self.stored(name)
        return source if source.contiguous else self.copied(source, source.shape, name)

    def softmax(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        source = self.dense(node.input[0])
        if attributes.get("axis", -1) % len(source.shape) != len(source.shape) - 1:
            raise self.refusal(node, "another axis than the last")
        out = self.new(source.shape)
        self.steps.append(Softmax(out, node.output[0], source))
        self.values[node.output[0]] = out

    def layer_norm(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        source = self.dense(node.input[0])
        if attributes.get("axis", -1) % len(source.shape) != len(source.shape) - 1:
            raise self.refusal(node, "another axis than the last")
        constants = [self.values[name] for name in node.input[1:] if name]
        views = [
            View.whole(self.weights.vector(each, name), each.shape)
            for each, name in zip(constants, node.input[1:], strict=False)
            if isinstance(each, np.ndarray)
        ]
        if len(views) != len(constants):
            raise self.refusal(node, "computed gains")
        out = self.new(source.shape)
        gain_view, offset_view = views[0], views[1] if len(views) > 1 else None
        epsilon = float(attributes.get("epsilon", 1e-5))
        self.steps.append(LayerNorm(out, node.output[0], source, epsilon, gain_view, offset_view))
        self.values[node.output[0]] = out

    def average(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        source, shape = self.dense(node.input[0]), self.shapes[node.output[0]]
        kernel = attributes["kernel_shape"]
        plain = attributes.get("strides", [1]) == [1] and not any(attributes.get("pads", [0, 0]))
        if len(kernel) != 1 or not plain or shape[-1] != source.shape[-1] - kernel[0] + 1:
            raise self.refusal(node, "pads, steps or two dimensions")
        out = self.new(shape)
        self.steps.append(MovingAverage(out, node.output[0], source, kernel[0]))
        self.values[node.output[0]] = out

    def concat(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        out = self.new(self.shapes[node.output[0]])
        axis, start = attributes["axis"] % len(out.shape), 0
        for name in node.input:
            value = self.operand(name)
            shape = np.shape(self.values[name]) if isinstance(value, float) else value.shape  # type: ignore[arg-type]
            size = shape[axis]
            self.steps.append(Map(out.part(axis, start, size), node.output[0], value))
            start += size
        self.values[node.output[0]] = out


def _dimensions(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(int(each.dim_value) for each in value.type.tensor_type.shape.dim)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    from onnx import helper

    return helper.get_attribute_value(attribute)
