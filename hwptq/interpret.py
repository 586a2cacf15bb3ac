"""Evaluates a Relax module binding by binding: float operators in numpy or TVM, integer ones as defined.

Slow code nobody ships, but it shows every intermediate tensor: calibration observes them, and the integer
graph evaluated here is the reference that emitted code must equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from .passes.dataflow import Constant, bindings, op_name, reads
from .quant import integer_ops, reference

#: (var, its expression, the arguments of it for each sample) -> the expression to evaluate instead.
Replace = Callable[[Any, Any, list[list[Any]]], Any]
Observe = Callable[[str, np.ndarray], None]


class Interpreter:
    """Runs `function` of `mod` on numpy arrays; compiled single operators are kept between runs."""

    def __init__(self, mod: tvm.IRModule, function: str = "main"):
        self.mod = mod
        self.func = mod[function]
        self._compiled: dict[Any, Any] = {}

    def run(self, inputs: dict[str, np.ndarray], observe: Observe | None = None) -> list[np.ndarray]:
        """The outputs for `inputs` (by parameter name); observe(name, value) sees every tensor on its way."""
        args = [inputs[str(p.name)] for p in self.func.params]
        for param, value in zip(self.func.params, args, strict=True):
            if observe:
                observe(str(param.name), value)
        out = self._function(self.func, args, observe)
        return list(out) if isinstance(out, tuple) else [out]

    def walk(self, inputs: list[dict[str, np.ndarray]], replace: Replace) -> None:
        """Evaluate the function over all samples at once, binding by binding; `replace` sees every call of
        a PrimFunc before. Holds the live tensors of all samples.
        """
        envs = [{p: sample[str(p.name)] for p in self.func.params} for sample in inputs]
        last = self._last_readers(self.func)
        for var, value in bindings(self.func):
            if op_name(value) == "call_tir":
                value = replace(var, value, [[self._atom(a, e) for a in value.args[1].fields] for e in envs])
            for env in envs:
                env[var] = self.evaluate(value, env)
                for source in reads(value):
                    if last[source] == var:
                        env.pop(source, None)

    @staticmethod
    def _last_readers(func: Any) -> dict[Any, Any]:
        """var -> the last var whose binding reads it; the function's result reads its own to the end."""
        last = {source: var for var, value in bindings(func) for source in reads(value)}
        return {**last, **dict.fromkeys(reads(func.body.body))}

    def _function(self, func: Any, args: list[Any], observe: Observe | None = None) -> Any:
        env: dict[Any, Any] = dict(zip(func.params, args, strict=True))
        last = self._last_readers(func)
        for var, value in bindings(func):
            env[var] = self.evaluate(value, env)
            if observe and isinstance(env[var], np.ndarray):
                observe(str(var.name), env[var])
            for source in reads(value):
                if last[source] == var:
                    env.pop(source, None)
        return self._atom(func.body.body, env)

    def _atom(self, expr: Any, env: Mapping[Any, Any]) -> Any:
        if isinstance(expr, relax.Var):
            return env[expr]
        if isinstance(expr, Constant):
            return expr.value.numpy()
        if isinstance(expr, relax.Tuple):
            return tuple(self._atom(f, env) for f in expr.fields)
        raise ValueError(f"can't evaluate {type(expr).__name__}")

    def evaluate(self, value: Any, env: Mapping[Any, Any]) -> Any:
        """One binding's value, given those of the vars it reads."""
        if isinstance(value, relax.TupleGetItem):
            return self._atom(value.tuple_value, env)[value.index]
        if not isinstance(value, relax.Call):
            return self._atom(value, env)
        if isinstance(value.op, tvm.ir.GlobalVar):
            return self._function(self.mod[value.op], [self._atom(a, env) for a in value.args])
        name = op_name(value)
        if name == "call_tir":
            return self._call_tir(value, env)
        if name in _NUMPY:
            args = [self._atom(a, env) for a in value.args if isinstance(a, relax.Var | Constant)]
            result = _NUMPY[name](value, *args)
            if result is not None:
                return result
        return self._by_tvm(value, env)

    def _call_tir(self, value: Any, env: Mapping[Any, Any]) -> np.ndarray:
        func = self.mod[value.args[0]]
        args = [self._atom(a, env) for a in value.args[1].fields]
        if func.attrs and integer_ops.ATTRIBUTE in func.attrs:
            op = integer_ops.from_json(str(func.attrs[integer_ops.ATTRIBUTE]))
            return reference.evaluate(op, *args)
        return self._by_tvm(value, env)

    def _by_tvm(self, value: Any, env: Mapping[Any, Any]) -> Any:
        """One operator that numpy does not offer, compiled for this machine."""
        tensors = reads(value)
        if value not in self._compiled:
            self._compiled[value] = _compile(self.mod, value, tensors)
        result = self._compiled[value](*[tvm.runtime.tensor(np.ascontiguousarray(env[t])) for t in tensors])
        return result.numpy() if hasattr(result, "numpy") else tuple(r.numpy() for r in result)


def _compile(mod: tvm.IRModule, value: Any, tensors: list[Any]) -> Any:
    called = [a for a in value.args if isinstance(a, tvm.ir.GlobalVar)]
    functions = {gv: mod[gv] for gv in called}
    builder = relax.BlockBuilder(tvm.IRModule(functions))
    with builder.function("only", tensors):
        builder.emit_func_output(builder.emit(value))
    vm = relax.VirtualMachine(tvm.compile(builder.get(), target="llvm"), tvm.cpu())
    return vm["only"]


def _conv2d(call: Any, x: np.ndarray, w: np.ndarray) -> np.ndarray | None:
    a = call.attrs
    if str(a.data_layout) != "NCHW" or str(a.kernel_layout) != "OIHW":
        return None
    padding, strides, dilation = ([int(v) for v in p] for p in (a.padding, a.strides, a.dilation))
    g, (o, i, kh, kw) = int(a.groups), w.shape
    oh, ow = reference.conv_output_shape(x.shape[2:], (kh, kw), strides, padding, dilation)
    top, left, bottom, right = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    if i == 1 and g == x.shape[1] == o:
        return _depthwise(padded, w, strides, dilation, (oh, ow))
    if g == kh == kw == 1:
        pixels = np.ascontiguousarray(padded[:, :, :: strides[0], :: strides[1]][:, :, :oh, :ow])
        return np.matmul(w.reshape(o, i), pixels.reshape(len(x), i, oh * ow)).reshape(len(x), o, oh, ow)
    view = reference.windows(padded.transpose(0, 2, 3, 1), (kh, kw), strides, dilation, (oh, ow))
    n = x.shape[0]
    cols = view.transpose(0, 3, 4, 5, 1, 2).reshape(n, g, i * kh * kw, oh * ow)
    return np.matmul(w.reshape(1, g, o // g, i * kh * kw), cols).reshape(n, o, oh, ow)


def _depthwise(x: np.ndarray, w: np.ndarray, strides: Any, dilation: Any, out: Any) -> np.ndarray:
    acc = np.zeros((*x.shape[:2], *out), dtype=np.float32)
    product = np.empty_like(acc)
    for ky in range(w.shape[2]):
        for kx in range(w.shape[3]):
            y0, x0 = ky * dilation[0], kx * dilation[1]
            rows = slice(y0, y0 + (out[0] - 1) * strides[0] + 1, strides[0])
            cols = slice(x0, x0 + (out[1] - 1) * strides[1] + 1, strides[1])
            np.multiply(x[:, :, rows, cols], w[:, 0, ky, kx][None, :, None, None], out=product)
            acc += product
    return acc


def _reshape(call: Any, x: np.ndarray) -> np.ndarray:
    return x.reshape([int(d) for d in call.ty.shape.values])


def _permute(call: Any, x: np.ndarray) -> np.ndarray:
    axes = call.attrs.axes
    return np.transpose(x, None if axes is None else [int(a) for a in axes])


def _clip(call: Any, x: np.ndarray) -> np.ndarray:
    low, high = (np.float32(a.value) for a in call.args[1:])
    return np.clip(x, low, high)


def _along(axis: int, values: np.ndarray, rank: int) -> np.ndarray:
    """Scales or zero points of a tensor of `rank`, shaped to be broadcast along `axis`."""
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape) if values.size > 1 else values.reshape(())


def _quantize(call: Any, x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray | None:
    if x.dtype != np.float32 or str(call.attrs.out_dtype) != "int8":
        return None
    scale, zero = (_along(int(call.attrs.axis), v, x.ndim) for v in (scale, zero))
    return np.clip(np.rint(x / scale) + zero.astype(np.float32), -128, 127).astype(np.int8)


def _dequantize(call: Any, x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray | None:
    if x.dtype != np.int8 or zero.dtype != np.int8 or str(call.attrs.out_dtype) != "float32":
        return None
    scale, zero = (_along(int(call.attrs.axis), v, x.ndim) for v in (scale, zero))
    return (x.astype(np.int32) - zero).astype(np.float32) * scale


def _float_only(f: Callable[..., np.ndarray]) -> Callable[..., np.ndarray | None]:
    def apply(call: Any, *args: np.ndarray) -> np.ndarray | None:
        return f(*args) if all(a.dtype == np.float32 for a in args) else None

    return apply


_NUMPY: dict[str, Callable[..., Any]] = {
    "nn.conv2d": _conv2d,
    "matmul": _float_only(np.matmul),
    "add": _float_only(np.add),
    "subtract": _float_only(np.subtract),
    "multiply": _float_only(np.multiply),
    "maximum": _float_only(np.maximum),
    "minimum": _float_only(np.minimum),
    "nn.relu": _float_only(lambda x: np.maximum(x, np.float32(0))),
    "clip": _clip,
    "reshape": _reshape,
    "permute_dims": _permute,
    "quantize": _quantize,
    "dequantize": _dequantize,
}
