"""SelectKernels: each integer operator becomes calls of the kernels that the target's descriptor names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.tirx import PrimFunc
from tvm_ffi import StructuralKey

from hwptq.kernels.kernel import Step, TensorType
from hwptq.kernels.layer import Layer
from hwptq.kernels.layout import PLAIN, Layout
from hwptq.kernels.select import select, select_concatenate
from hwptq.kernels.vector_unit import THREADS
from hwptq.kernels.wishes import Wish, wishes, writes
from hwptq.quant import fp8
from hwptq.quant import integer_ops as ops
from hwptq.quant.fp8_ops import Fp8Add, Fp8MatMul, Fp8Mul

from .graph.dataflow import bindings, constant, main_functions, op_name, rewrite, shape_of
from .graph.layouts import stored_layouts

_TWO_OPERANDS = (ops.Add, ops.Mul, ops.MatMul, Fp8Add, Fp8Mul, Fp8MatMul)


@tvm.transform.module_pass(opt_level=0, name="hwptq.SelectKernels")
class SelectKernels:
    """Replace the portable code of every integer operator by the target's; constants are packed on the way.

    The results stay the same, bit for bit: only LowerToInteger decides about arithmetic. What stays in float
    is no composite any more, but its operators, which TVM has code for. `threads`: the most that
    share large kernels; the module carries it as its attribute THREADS. `tile_of` says which of its tiles
    a layer's kernel takes, 0 = the one that should be the best.
    """

    def __init__(self, target: Any, threads: int = 1, tile_of: Callable[[Layer], int] = lambda layer: 0):
        self.target, self.threads, self.tile_of = target, threads, tile_of

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        # one function for steps that are structurally equal; what is portable already stays
        primitive = [(gv, f) for gv, f in mod.functions.items() if isinstance(f, PrimFunc)]
        functions = {StructuralKey(f): gv for gv, f in primitive}  # type: ignore[call-arg]

        layouts: dict[Any, Layout] = {}
        for _, func in main_functions(mod):
            layouts |= stored_layouts(func, lambda var, value: _reading(mod, var, value, self.target))
        emitter = _Emitter(functions, layouts)

        def visit(r: Any, var: Any, value: Any) -> Any:
            op = integer_operator(mod, value)
            if op is None and op_name(value) == "concat" and str(var.ty.dtype) in ("int8", fp8.DTYPE):
                parts = list(value.args[0].fields)
                axis = int(value.attrs.axis) % len(shape_of(var))
                steps = select_concatenate([_type(t) for t in parts], axis, _type(var), self.target)
                return emitter.emit(r, steps, parts, var)
            if op is None:
                return _inlined(mod, r, str(var.name), value)
            args = list(value.args[1].fields)
            n = activation_count(op)
            layer = layer_of(op, args[:n], args[n:], var, layouts)
            steps = kernel_steps(layer, str(var.name), self.target, self.threads, self.tile_of(layer))
            return emitter.emit(r, steps, args[:n], var)

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


def layer_of(
    op: ops.GraphOp, activations: list[Any], constants: list[Any], out: Any, layouts: Mapping[Any, Layout]
) -> Layer:
    """`op` with its tensors; `layouts` are those of tensors that are not stored plainly."""
    arrays = tuple(_array(c, out) for c in constants)
    *types, result = (_type(t, layouts.get(t, PLAIN)) for t in (*activations, out))
    return Layer(op, tuple(types), arrays, result)


def kernel_steps(layer: Layer, name: str, target: Any, threads: int = 1, tile: int = 0) -> tuple[Step, ...]:
    """The steps by which `target` computes a layer called `name`."""
    try:
        return select(layer.op, layer.activations, layer.constants, layer.out, target, threads, tile)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _array(expr: Any, var: Any) -> np.ndarray:
    value = constant(expr)
    if value is None:
        raise ValueError(f"{var.name}: weights, biases and tables must be constants")
    return value


def _type(expr: Any, layout: Layout = PLAIN) -> TensorType:
    return TensorType(shape_of(expr), str(expr.ty.dtype), layout)


def _reading(mod: tvm.IRModule, var: Any, value: Any, target: Any) -> Any:
    """What layouts the kernel of a binding reads and writes: see stored_layouts."""
    op = integer_operator(mod, value)
    if op is None:
        return None
    args = list(value.args[1].fields)
    n = activation_count(op)
    arrays = [_array(c, var) for c in args[n:]]
    operator = op, [_type(a) for a in args[:n]], arrays, _type(var), target
    found: list[tuple[Any, Wish]] = list(zip(args[:n], wishes(*operator), strict=True))
    return found, partial(writes, *operator)


class _Emitter:
    """Emits steps. Those that compute the same from the same are emitted once, as is each PrimFunc."""

    def __init__(self, functions: dict[Any, Any], layouts: Mapping[Any, Layout]):
        self.functions, self.layouts = functions, layouts
        self._done: dict[Any, Any] = {}

    def emit(self, r: Any, steps: tuple[Step, ...], activations: list[Any], var: Any) -> Any:
        """The result of `steps`; that of the last one gets the name of `var` if it is stored plainly."""
        name = f"{var.name}_packed" if var in self.layouts else str(var.name)
        results: list[Any] = []
        for step in steps:
            args = [
                a if isinstance(a, np.ndarray) else results[a] if a < 0 else r.get(activations[a])
                for a in step.args
            ]
            results.append(self._call(r, step, args, name if step is steps[-1] else f"{name}_{step.name}"))
        return results[-1]

    def _call(self, r: Any, step: Step, args: list[Any], name: str) -> Any:
        function = StructuralKey(step.func)  # type: ignore[call-arg]
        if function not in self.functions:
            self.functions[function] = r.add_function(step.func, f"hwptq_{step.name}")
        gv = self.functions[function]
        again = (gv, *args) if all(isinstance(a, relax.Var) for a in args) else None
        if again in self._done:
            return self._done[again]
        arrays = [relax.const(a) if isinstance(a, np.ndarray) else a for a in args]
        stored = step.out.stored
        call = relax.call_tir(gv, arrays, relax.TensorType(stored.shape, stored.dtype))
        result = r.emit(call, name)
        if again:
            self._done[again] = result
        return result
