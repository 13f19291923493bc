"""The virtual machine's form: the same kernels, called by a Relax function."""

from __future__ import annotations

from typing import Any

from ..native.devices import Device
from .program import Program, Ref
from .tir import BUILD_OPTIONS


def relax_module(program: Program, shape: tuple[int, int, int], horizon: int) -> Any:
    """A Relax module with ``main(past [B, D, L]) -> [B, D, H]`` and the scheduled kernels."""
    import tvm
    from tvm import relax

    batch, variates, _ = shape
    builder = relax.BlockBuilder()
    past = relax.Var("past", relax.TensorType(list(shape), "float32"))
    functions = {
        name: builder.add_func(kernel.func, name) for name, kernel in sorted(program.kernels.items())
    }
    constants = [relax.const(array, str(array.dtype)) for array in program.constants]
    with builder.function("main", [past]):
        with builder.dataflow():
            size = program.values[program.input].size
            known: dict[int, Any] = {program.input: builder.emit(relax.op.reshape(past, [size]))}

            def operand(ref: Ref) -> Any:
                return constants[ref.constant] if ref.constant is not None else known[ref.value or 0]

            for step in program.steps:
                pairs = list(zip(step.kernel.arguments, step.operands, strict=True))
                inputs = [operand(ref) for arg, ref in pairs if arg.role not in ("scratch", "output")]
                written = [(arg, ref) for arg, ref in pairs if arg.role in ("scratch", "output")]
                types = [relax.TensorType([arg.size], arg.dtype) for arg, _ in written]
                call = relax.call_tir(
                    functions[step.kernel.name], inputs, types if len(types) > 1 else types[0]
                )
                result = builder.emit(call)
                for position, (_, ref) in enumerate(written):
                    assert ref.value is not None
                    known[ref.value] = result if len(written) == 1 else builder.emit(result[position])
            forecast = relax.op.reshape(known[program.output], [batch, variates, horizon])
            output = builder.emit_output(forecast)
        builder.emit_func_output(output)
    module: tvm.IRModule = builder.get()
    return module


def compile_vm(program: Program, device: Device, shape: tuple[int, int, int], horizon: int) -> Any:
    """The executable of ``relax_module``; kernels stay as they are scheduled."""
    import tvm
    from tvm import relax

    transform = relax.transform
    pipeline = tvm.transform.Sequential(
        [
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
    )
    target = tvm.target.Target(dict(device.target))
    options = {**BUILD_OPTIONS, "tirx.disable_assert": False}
    with tvm.transform.PassContext(opt_level=3, config=options):
        return tvm.compile(relax_module(program, shape, horizon), target, relax_pipeline=pipeline)
