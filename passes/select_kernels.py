"""SelectKernels: each integer operator becomes calls of the kernels that the target's descriptor names."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.tirx import PrimFunc
from tvm_ffi import StructuralKey

from hwptq.kernels.kernel import Step, TensorType
from hwptq.kernels.select import select, select_concatenate
from hwptq.kernels.vector_unit import THREADS
from hwptq.quant import integer_ops as ops
from hwptq.quant.fp8_ops import Fp8Add, Fp8MatMul, Fp8Mul

from .graph.dataflow import bindings, constant, op_name, rewrite, shape_of

_TWO_OPERANDS = (ops.Add, ops.Mul, ops.MatMul, Fp8Add, Fp8Mul, Fp8MatMul)


@tvm.transform.module_pass(opt_level=0, name="hwptq.SelectKernels")
class SelectKernels:
    """Replace the portable code of every integer operator by the target's; constants are packed on the way.

    The results stay the same, bit for bit: only LowerToInteger decides about arithmetic. What stays in float
    is no composite any more, but its operators, which TVM has code for. `threads`: the most that
    share large kernels; the module carries it as its attribute THREADS.
    """

    def __init__(self, target: Any, threads: int = 1):
        self.target, self.threads = target, threads

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        # one function for steps that are structurally equal; what is portable already stays
        primitive = [(gv, f) for gv, f in mod.functions.items() if isinstance(f, PrimFunc)]
        functions = {StructuralKey(f): gv for gv, f in primitive}  # type: ignore[call-arg]

        def visit(r: Any, var: Any, value: Any) -> Any:
            op = integer_operator(mod, value)
            if op is None and op_name(value) == "concat" and str(var.ty.dtype) == "int8":
                parts = list(value.args[0].fields)
                axis = int(value.attrs.axis) % len(shape_of(var))
                steps = select_concatenate([_type(t) for t in parts], axis, _type(var), self.target)
                return _emit(r, steps, [r.get(t) for t in parts], str(var.name), functions)
            if op is None:
                return _inlined(mod, r, str(var.name), value)
            args = list(value.args[1].fields)
            n = activation_count(op)
            activations = [r.get(a) for a in args[:n]]
            steps = kernel_steps(op, activations, args[n:], var, self.target, self.threads)
            return _emit(r, steps, activations, str(var.name), functions)

        out = rewrite(mod, visit)
        return out if self.threads == 1 else out.with_attr(THREADS, self.threads)


def _inlined(mod: tvm.IRModule, r: Any, name: str, value: Any) -> Any:
    """The value of the binding `name`; for a composite that nothing quantized, its operators."""
    if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.GlobalVar):
        return r.keep(value)
    func = mod[value.op]
    inner = dict(zip(func.params, map(r.get, value.args), strict=True))
    *_, last = (var for var, step in bindings(func) if isinstance(step, relax.Call))
    for var, step in bindings(func):
        if isinstance(step, relax.Call):
            args = [inner.get(a, a) for a in step.args]
            call = relax.Call(step.op, args, step.attrs, step.ty_args)
            inner[var] = r.emit(call, name if var == last else str(var.name))
        else:
            inner[var] = inner[step]
    return inner[func.body.body]


def integer_operator(mod: tvm.IRModule, value: Any) -> ops.GraphOp | None:
    """The integer or fp8 operator that a call_tir stands for, or None."""
    if op_name(value) != "call_tir":
        return None
    attrs = mod[value.args[0]].attrs
    return ops.from_json(str(attrs[ops.ATTRIBUTE])) if attrs and ops.ATTRIBUTE in attrs else None


def activation_count(op: ops.GraphOp) -> int:
    """How many of an operator's arguments, the first ones, are activations; the others are constants."""
    return 2 if isinstance(op, _TWO_OPERANDS) or getattr(op, "residual", False) else 1


def kernel_steps(
    op: ops.GraphOp, activations: list[Any], constants: list[Any], out: Any, target: Any, threads: int = 1
) -> tuple[Step, ...]:
    """The steps by which `target` computes `op`, whose result is the var `out`."""
    arrays = [_array(c, out) for c in constants]
    try:
        return select(op, [_type(a) for a in activations], arrays, _type(out), target, threads)
    except ValueError as error:
        raise ValueError(f"{out.name}: {error}") from error


def _array(expr: Any, var: Any) -> np.ndarray:
    value = constant(expr)
    if value is None:
        raise ValueError(f"{var.name}: weights, biases and tables must be constants")
    return value


def _type(expr: Any) -> TensorType:
    return TensorType(shape_of(expr), str(expr.ty.dtype))


def _emit(r: Any, steps: tuple[Step, ...], activations: list[Any], name: str, functions: Any) -> Any:
    results: list[Any] = []
    for i, step in enumerate(steps):
        args = [
            relax.const(a) if isinstance(a, np.ndarray) else results[a] if a < 0 else activations[a]
            for a in step.args
        ]
        key = StructuralKey(step.func)  # type: ignore[call-arg]
        if key not in functions:
            functions[key] = r.add_function(step.func, f"hwptq_{step.name}")
        gv = functions[key]
        call = relax.call_tir(gv, args, relax.TensorType(step.out.shape, step.out.dtype))
        results.append(r.emit(call, name if i == len(steps) - 1 else f"{name}_{step.name}"))
    return results[-1]
