"""The straight-line program that a static forecaster is after lowering.

    value 0 is the input;  each step runs one kernel on values and constants;  the last value is the output

Both forms of the artifact are written from it: the C file of the runtime-free form, and the Relax
function of the virtual machine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..native.processor import Processor
from .blocks import inline, moves_nothing, read_function
from .matmul import pack
from .quantize import quantize_columns
from .schedule import Argument, Choices, Kernel, schedule
from .tir import Unsupported


@dataclass(frozen=True)
class Value:
    """A tensor that a step writes; flat."""

    size: int
    dtype: str


@dataclass(frozen=True)
class Ref:
    """An operand: value number ``value``, or constant number ``constant``."""

    value: int | None = None
    constant: int | None = None


@dataclass(frozen=True)
class Step:
    """One kernel call; scratch values are listed among the operands like any other."""

    kernel: Kernel
    operands: tuple[Ref, ...]


@dataclass(frozen=True)
class Program:
    """Steps in order.

    Attributes:
        values: all values; ``inputs`` and ``output`` are numbers into it.
        constants: flat arrays, equal ones shared.
    """

    values: tuple[Value, ...]
    constants: tuple[np.ndarray, ...]
    steps: tuple[Step, ...]
    input: int
    output: int

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Distinct kernels by name."""
        return {step.kernel.name: step.kernel for step in self.steps}

    @property
    def weight_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(each.nbytes for each in self.constants)


def build_program(module: Any, choices: Choices) -> Program:
    """Schedules every function of a fused Relax module and lists its calls.

    Raises:
        Unsupported: control flow, a dynamic shape, or an operator without a kernel.
    """
    return _Builder(module, choices).program()


class _Builder:
    def __init__(self, module: Any, choices: Choices) -> None:
        self.module, self.choices = module, choices
        self.values: list[Value] = []
        self.constants: list[np.ndarray] = []
        self.constant_numbers: dict[tuple[str, bytes], int] = {}
        self.steps: list[Step] = []
        self.known: dict[Any, Any] = {}
        self.kernels: dict[str, Kernel] = {}
        self.views: dict[str, bool] = {}
        self.packed: dict[tuple[int, Any], tuple[int, int | None]] = {}

    def program(self) -> Program:
        from tvm import relax

        main = self.module["main"]
        (past,) = main.params
        self.known[past] = Ref(value=self.new_value(_size(past), _dtype(past)))
        calls = []
        body = main.body
        if not isinstance(body, relax.SeqExpr):
            raise Unsupported(f"a main function of {type(body).__name__}")
        for block in body.blocks:
            calls.extend(block.bindings)
        constant_inputs = self.constant_inputs(calls)
        for binding in calls:
            self.binding(binding, constant_inputs)
        result = self.resolve(body.body)
        if isinstance(result, tuple):
            (result,) = result
        if result.value is None:
            raise Unsupported("a forecast that does not depend on its input")
        return self.pruned(result.value)

    def constant_inputs(self, bindings: list[Any]) -> dict[str, list[bool]]:
        """For each function, which inputs are constants in every call."""
        found: dict[str, list[bool]] = {}
        for binding in bindings:
            call = _tir_call(binding.value)
            if call is None:
                continue
            name, args, _ = call
            flags = [_is_constant(arg) for arg in args]
            found[name] = [a and b for a, b in zip(found.get(name, flags), flags, strict=True)]
        return found

    def binding(self, binding: Any, constant_inputs: dict[str, list[bool]]) -> None:
        from tvm import relax

        value = binding.value
        call = _tir_call(value)
        if call is not None:
            name, args, outputs = call
            if self.is_view(name, args):
                self.known[binding.var] = self.resolve(args[0])
                return
            kernel = self.kernels.get(name)
            if kernel is None:
                kernel = schedule(name, self.module[name], constant_inputs[name], len(outputs), self.choices)
                self.kernels[name] = kernel
            results = [Ref(value=self.new_value(size, dtype)) for size, dtype in outputs]
            operands = tuple(self.operand(each, args, results) for each in kernel.arguments)
            self.steps.append(Step(kernel, operands))
            self.known[binding.var] = results[0] if len(results) == 1 else tuple(results)
        elif isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.reshape":
            self.known[binding.var] = self.resolve(value.args[0])  # values are flat: nothing moves
        elif _is_constant(value) or isinstance(value, relax.Var | relax.Tuple | relax.TupleGetItem):
            self.known[binding.var] = self.resolve(value)
        else:
            raise Unsupported(f"operator {getattr(getattr(value, 'op', None), 'name', type(value).__name__)}")

    def is_view(self, name: str, args: list[Any]) -> bool:
        """Whether a call's result is its argument in other words.

        Not of the input or a constant: the output, which this may be, has memory of its own.
        """
        if name not in self.views:
            self.views[name] = moves_nothing(inline(read_function(name, self.module[name])))
        source = self.resolve(args[0]) if self.views[name] else None
        return isinstance(source, Ref) and source.value not in (None, 0)

    def operand(self, argument: Argument, args: list[Any], results: list[Ref]) -> Ref:
        if argument.role == "output":
            return results[argument.source]
        if argument.role == "scratch":
            return Ref(value=self.new_value(argument.size, argument.dtype))
        if argument.role == "input":
            found = self.resolve(args[argument.source])
            assert isinstance(found, Ref)
            return found
        packed, scale = self.pack(args[argument.source], argument)
        return Ref(constant=packed if argument.role == "packed" else scale)

    def pack(self, constant: Any, argument: Argument) -> tuple[int, int | None]:
        weights = constant.value.numpy()
        weights = weights.reshape(argument.matrices, -1, weights.shape[-1])
        if self.choices.int8_weights:
            coded = [quantize_columns(each) for each in weights]
            if argument.role == "scale":
                return 0, self.new_constant(np.concatenate([scale for _, scale in coded]))
            weights = [codes for codes, _ in coded]
        tile = argument.tile
        assert tile is not None
        panels = [pack(each, tile, self.processor) for each in weights]
        return self.new_constant(np.concatenate(panels)), None

    @property
    def processor(self) -> Processor:
        return self.choices.processor

    def resolve(self, expr: Any) -> Any:
        from tvm import relax

        if _is_constant(expr):
            return Ref(constant=self.new_constant(expr.value.numpy().reshape(-1)))
        if isinstance(expr, relax.Tuple):
            return tuple(self.resolve(each) for each in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self.resolve(expr.tuple_value)[expr.index]
        return self.known[expr]

    def new_value(self, size: int, dtype: str) -> int:
        self.values.append(Value(size, dtype))
        return len(self.values) - 1

    def new_constant(self, array: np.ndarray) -> int:
        array = np.ascontiguousarray(array)
        key = (str(array.dtype), array.tobytes())
        if key not in self.constant_numbers:
            self.constant_numbers[key] = len(self.constants)
            self.constants.append(array)
        return self.constant_numbers[key]

    def pruned(self, output: int) -> Program:
        """Without steps that nothing reads (the import may leave some)."""
        needed, kept = {output}, []
        for step in reversed(self.steps):
            writes = [
                r.value
                for a, r in zip(step.kernel.arguments, step.operands, strict=True)
                if a.role == "output"
            ]
            if needed.isdisjoint(writes):
                continue
            kept.append(step)
            needed.update(
                r.value
                for a, r in zip(step.kernel.arguments, step.operands, strict=True)
                if a.role == "input" and r.value is not None
            )
        return Program(tuple(self.values), tuple(self.constants), tuple(reversed(kept)), 0, output)


def _is_constant(expr: Any) -> bool:
    return type(expr).__name__ == "GenericConst"


def _tir_call(value: Any) -> tuple[str, list[Any], list[tuple[int, str]]] | None:
    """(function, arguments, (size, type) of each output) of a ``call_tir``, else None."""
    from tvm import relax

    if not isinstance(value, relax.Call) or getattr(value.op, "name", "") != "relax.call_tir":
        return None
    function, arguments = value.args[0], list(value.args[1].fields)
    types = value.ty_args[0] if len(value.ty_args) else value.ty
    fields = list(types.fields) if hasattr(types, "fields") else [types]
    return function.name_hint, arguments, [(_type_size(each), str(each.dtype)) for each in fields]


def _type_size(type_: Any) -> int:
    size = 1
    for extent in type_.shape:
        if not hasattr(extent, "value"):
            raise Unsupported(f"dynamic extent {extent}")
        size *= int(extent)
    return size


def _size(var: Any) -> int:
    return _type_size(var.ty)


def _dtype(var: Any) -> str:
    return str(var.ty.dtype)
