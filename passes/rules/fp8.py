"""The rules of LowerToInteger with a short float at one end: which operator stands for Q(f(DQ(a), DQ(b) …)).

A composite is computed in the real numbers of its accumulator and rounded once; elementwise functions of one
tensor are tables, as in integers. Operands and result may be int8 too: layers of one dtype follow those of
another without a step between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from tvm import relax

from hwptq.formats import bf16, fp8, holds_floats
from hwptq.ir.composite import Composite, read_composite
from hwptq.ir.dataflow import constant, op_name, shape_of
from hwptq.ir.qdq import dequantizes
from hwptq.operators.add import FloatAdd
from hwptq.operators.avg_pool import FloatAvgPool
from hwptq.operators.clamp import Clamp, FloatClamp
from hwptq.operators.conv2d import Conv2dToFloat, FloatConv2d
from hwptq.operators.dense import DenseToFloat, FloatDense
from hwptq.operators.float_operator import FloatOperator
from hwptq.operators.lookup import FloatLookup, Lookup
from hwptq.operators.matmul import FloatMatMul
from hwptq.operators.max_pool import FloatMaxPool
from hwptq.operators.mul import FloatMul
from hwptq.operators.pad import FloatPad
from hwptq.quant.accumulator import accumulator_constants, in_output_scale
from hwptq.quant.float_sums import Accumulators
from hwptq.quant.float_values import codes, store

from ..graph.quantizable import DATA_MOVEMENT, elementwise_root
from ..graph.table import tabulate
from .averaging import average_window
from .operands import NotInteger, Operand, binary, dtype_of, four, pair
from .rearrange import concat, moved


@dataclass(frozen=True)
class Fp8Output:
    """How a result is rounded, and its name; dtype float32 asks for real values (scale 1)."""

    scale: float
    name: str
    accumulators: Accumulators
    dtype: str = fp8.DTYPE
    zero: int = 0  # the zero point of an int8

    @property
    def tensor_name(self) -> str:
        """The name of the result, beside the float tensor `name`; see node_name."""
        return self.name if self.dtype == "float32" else f"{self.name}_q"

    @property
    def image_name(self) -> str:
        """The name of the result in NHWC."""
        return f"{self.name}_nhwc"

    def model(self, x: Operand) -> tuple[int, int, int]:
        """The accumulator of products of x, as an operator holds it."""
        found = self.accumulators.of(dtype_of(x))
        return found.step, found.fraction_bits, found.promote

    def bounds(self, low: Any = -np.inf, high: Any = np.inf) -> tuple[float, float]:
        """A fused clamp to the real [low, high], in this scale; none where it differs by channel."""
        if np.size(low) > 1 or np.size(high) > 1:
            return -np.inf, np.inf
        scale = np.float32(self.scale)
        return float(np.float32(low) / scale), float(np.float32(high) / scale)

    def quantized(self, real: np.ndarray) -> np.ndarray:
        """Real values in the dtype and scale of the result."""
        return store(np.asarray(real, np.float32) / np.float32(self.scale), self.dtype, self.zero)


def lower_fp8(e: Any, expr: Any, out: Fp8Output) -> Any:
    """Emit the fp8 operators whose result is quantize(expr), or `expr` itself for an output in float32.

    Raises NotInteger with the reason where there is no such form.
    """
    value = e.values.get(expr)
    if dequantizes(value):
        return _rescaled(e, _operand(e, expr), out)
    root = elementwise_root(expr, e.values)
    if root is not expr and dequantizes(e.values.get(root)):
        return _lookup(e, expr, root, out)
    unit = read_composite(e.mod, value)
    rule = _COMPOSITES.get(unit.kind) if unit else _RULES.get(op_name(value))
    if rule is None:
        raise NotInteger(f"{op_name(value) or 'call'} has no fp8 form")
    return rule(e, unit or value, out)


def reads_floats(e: Any, expr: Any) -> bool:
    """Whether `expr` is made of a tensor in e4m3 or bfloat16, or of the unrounded result of such a layer."""
    root = elementwise_root(expr, e.values)
    value = e.values.get(root)
    if dequantizes(value):
        return _of_floats(value)
    if not isinstance(value, relax.Call):
        return False
    args = [f for a in value.args for f in (a.fields if isinstance(a, relax.Tuple) else [a])]
    sources = [e.values.get(a) for a in args if isinstance(a, relax.Var)]
    return any(is_layer(e, s) or (dequantizes(s) and _of_floats(s)) for s in sources)


def _of_floats(dequantize: Any) -> bool:
    return holds_floats(str(dequantize.args[0].ty.dtype))


def is_layer(e: Any, value: Any) -> bool:
    """Whether `value` is a conv2d or dense composite of e4m3 or bfloat16, with a constant weight."""
    unit = read_composite(e.mod, value)
    if unit is None or unit.kind not in ("conv2d", "matmul"):
        return False
    x, w = (e.values.get(a) for a in unit.args[:2])
    if not dequantizes(x) or not dequantizes(w) or constant(w.args[0]) is None:
        return False
    dtypes = {str(dq.args[0].ty.dtype) for dq in (x, w)}
    return len(dtypes) == 1 and all(map(holds_floats, dtypes))


def _operand(e: Any, expr: Any, constants: str = fp8.DTYPE) -> Operand:
    """An argument. A real constant becomes bfloat16 if `constants` is that, else e4m3 scaled to fit."""
    real = constant(expr)
    if real is not None and constants == bf16.DTYPE:
        return Operand(bf16.encode(real), np.ones((), np.float32), 0, real.shape)
    if real is not None:
        scale = np.float32(max(float(np.abs(real).max()) / fp8.LARGEST, 1e-12))
        return Operand(fp8.as_float8(fp8.encode(real / scale)), np.asarray(scale), 0, real.shape)
    return cast(Operand, e.operand(expr))


def _operands(e: Any, exprs: Any, out: Fp8Output) -> list[Operand]:
    """The arguments of an operator; constants are as precise as the result and what is beside them."""
    known = [_operand(e, x) for x in exprs if constant(x) is None]
    wide = bf16.DTYPE in (out.dtype, *map(dtype_of, known))
    return [_operand(e, x, bf16.DTYPE if wide else fp8.DTYPE) for x in exprs]


def _scaled(unit: Composite, x: Operand, w: Operand, channels: int, out: Fp8Output) -> tuple[np.ndarray, ...]:
    """(scale, bias), float32 [channels]: the accumulator to the output's scale."""
    if not isinstance(w.tensor, np.ndarray) or isinstance(x.tensor, np.ndarray):
        raise NotInteger("the weight is not a constant")
    scale = np.float64(x.scale) * np.broadcast_to(w.scale.astype(np.float64), (channels,)) / out.scale
    bias = np.zeros(channels) if unit.bias is None else np.broadcast_to(unit.bias, (channels,)) / out.scale
    return scale.astype(np.float32), bias.astype(np.float32)


def _conv2d(e: Any, unit: Composite, out: Fp8Output, residual: Operand | None = None) -> Any:
    attrs = unit.head.attrs
    if str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW":
        raise NotInteger(f"conv2d of layout {attrs.data_layout}/{attrs.kernel_layout}")
    x, w = _operand(e, unit.args[0]), _operand(e, unit.args[1])
    n, channels, height, width = shape_of(unit.result)
    window = pair(attrs.strides), four(attrs.padding), pair(attrs.dilation), int(attrs.groups)
    bounds, shape = out.bounds(*unit.bounds), (n, height, width, channels)
    tensors = [e.images(t.tensor) for t in (x, residual) if t]
    op: FloatOperator
    if _dtypes(x, w) == {"int8"}:
        constants = _integers(unit, x, w, out)
        op = Conv2dToFloat(*window, x.zero, *bounds, out.dtype)
    else:
        constants = (_weight(x, w), *_scaled(unit, x, w, channels, out))
        op = FloatConv2d(*window, *bounds, out.dtype, out.model(x), *_residual(residual, out), out.zero)
    return e.from_images(_clamped(e, op, tensors, constants, shape, unit, out, out.image_name))


def _dtypes(*operands: Operand) -> set[str]:
    return {dtype_of(t) for t in operands}


def _weight(x: Operand, w: Operand) -> np.ndarray:
    """The weight of a layer in e4m3 or bfloat16 with its output channels first."""
    if len(_dtypes(x, w)) != 1:
        raise NotInteger("input and weight differ in their dtype")
    return w.tensor.transpose(0, 2, 3, 1) if w.tensor.ndim == 4 else w.tensor.T


def _residual(t: Operand | None, out: Fp8Output) -> tuple[float, int]:
    """(factor, zero point) of what a layer adds."""
    return (_factor(t, out), t.zero) if t else (0.0, 0)


def _integers(unit: Composite, x: Operand, w: Operand, out: Fp8Output) -> tuple[np.ndarray, ...]:
    """(weight, bias, scale) of a layer in int8 whose result is a float."""
    constant_weight = isinstance(w.tensor, np.ndarray) and not isinstance(x.tensor, np.ndarray)
    if not constant_weight or not holds_floats(out.dtype):
        raise NotInteger("the weight is not a constant")
    rows = w.tensor.transpose(0, 2, 3, 1) if w.tensor.ndim == 4 else np.ascontiguousarray(w.tensor.T)
    try:
        weight, bias, scale = accumulator_constants(rows, w.scale, unit.bias, float(x.scale), x.zero, None)
    except ValueError as error:
        raise NotInteger(str(error)) from error
    return weight, bias, in_output_scale(scale, out.scale)


def _clamped(
    e: Any, op: FloatOperator, tensors: list[Any], constants: tuple[np.ndarray, ...], shape: tuple[int, ...],
    unit: Composite, out: Fp8Output, name: str,
) -> Any:  # fmt: skip
    """Emit `op`, and behind it the clamp of `unit` where that differs by channel.

    Rounding is monotonous, so bounds that are rounded as values are give what clamping before it would give.
    """
    if all(np.size(bound) == 1 for bound in unit.bounds):
        return e.call(op, tensors, constants, shape, out.dtype, name)
    if out.dtype == "float32":
        raise NotInteger("a clamp that differs by channel, of a result in float32")
    y = e.call(op, tensors, constants, shape, out.dtype, f"{name}_unclamped")
    limits = [out.quantized(np.broadcast_to(bound, shape[-1:])) for bound in unit.bounds]
    clamp = Clamp() if out.dtype == "int8" else FloatClamp()
    return e.call(clamp, [y], tuple(limits), shape, out.dtype, name)


def _dense(e: Any, unit: Composite, out: Fp8Output, residual: Operand | None = None) -> Any:
    x, w = _operand(e, unit.args[0]), _operand(e, unit.args[1])
    shape = shape_of(unit.result)
    if not isinstance(w.tensor, np.ndarray):
        return _matmul(e, unit, x, w, out)
    if w.tensor.ndim != 2:
        raise NotInteger(f"a constant operand of rank {w.tensor.ndim}")
    bounds, tensors = out.bounds(*unit.bounds), [t.tensor for t in (x, residual) if t]
    op: FloatOperator
    if _dtypes(x, w) == {"int8"}:
        constants = _integers(unit, x, w, out)
        op = DenseToFloat(x.zero, *bounds, out.dtype)
    else:
        constants = (_weight(x, w), *_scaled(unit, x, w, shape[-1], out))
        op = FloatDense(*bounds, out.dtype, out.model(x), *_residual(residual, out), out.zero)
    return _clamped(e, op, tensors, constants, shape, unit, out, out.tensor_name)


def _factor(t: Operand, out: Fp8Output) -> float:
    """From an operand's scale to the output's."""
    return float(np.float32(float(t.scale) / out.scale))


def _matmul(e: Any, unit: Composite, a: Operand, b: Operand, out: Fp8Output) -> Any:
    if min(len(a.shape), len(b.shape)) < 2 or a.shape[:-2] != b.shape[:-2]:
        raise NotInteger("operands of different leading axes")
    if unit.bias is not None or isinstance(a.tensor, np.ndarray):
        raise NotInteger("a product of a constant")
    if len(_dtypes(a, b)) != 1 or not holds_floats(dtype_of(a)):
        raise NotInteger("operands of different dtypes")
    factor = float(np.float32(float(a.scale) * float(b.scale) / out.scale))
    op = FloatMatMul(factor, *out.bounds(*unit.bounds), out.dtype, out.model(a), out.zero)
    return e.call(op, [a.tensor, b.tensor], (), shape_of(unit.result), out.dtype, out.tensor_name)


def _fused_add(e: Any, unit: Composite, out: Fp8Output) -> Any:
    return _add(e, unit.head, out, unit)


def _add(e: Any, call: Any, out: Fp8Output, unit: Composite | None = None) -> Any:
    """An add; with its summand's layer in one operator where that layer's result is not rounded."""
    args = list(unit.args if unit else call.args)
    bounds = unit.bounds if unit else (-np.inf, np.inf)
    for layer, other in (args, args[::-1]):
        summand = read_composite(e.mod, e.values.get(layer))
        if summand is not None and is_layer(e, e.values[layer]) and op_name(call) == "add":
            rule = _COMPOSITES[summand.kind]
            return rule(e, replace(summand, bounds=bounds), out, _operands(e, [other], out)[0])
    a, b = _operands(e, args, out)
    sign = -1 if op_name(call) == "subtract" else 1
    factors = _factor(a, out), sign * _factor(b, out)
    return binary(e, FloatAdd(*factors, *out.bounds(*bounds), a.zero, b.zero, out.dtype, out.zero), a, b, out)


def _mul(e: Any, call: Any, out: Fp8Output) -> Any:
    a, b = _operands(e, call.args, out)
    factor = float(np.float32(float(a.scale) * float(b.scale) / out.scale))
    return binary(e, FloatMul(factor, *out.bounds(), a.zero, b.zero, out.dtype, out.zero), a, b, out)


def _lookup(e: Any, expr: Any, root: Any, out: Fp8Output) -> Any:
    x = _operand(e, root)
    points = _points(x)
    real = tabulate(e.mod, e.values, expr, root, np.where(np.isnan(points), np.float32(0), points))
    return _table(e, x, np.where(np.isnan(points), np.float32(np.nan), real), out)


def _points(x: Operand) -> np.ndarray:
    """The real value of each of the codes of x, 256 or 65536, in the order of its tables."""
    if dtype_of(x) == bf16.DTYPE:
        return bf16.VALUES
    if dtype_of(x) == fp8.DTYPE:
        return fp8.VALUES * np.float32(x.scale)
    return (np.arange(-128, 128) - x.zero).astype(np.float32) * np.float32(x.scale)


def _rescaled(e: Any, x: Operand, out: Fp8Output) -> Any:
    """The same values in another scale."""
    if (dtype_of(x), float(x.scale), x.zero) == (out.dtype, out.scale, out.zero):
        return x.tensor
    return _table(e, x, _points(x), out)


def _table(e: Any, x: Operand, real: np.ndarray, out: Fp8Output) -> Any:
    """A lookup of x whose entry i is quantize(real[i])."""
    if not np.isfinite(real).any():
        raise NotInteger("the function is not finite")
    op = FloatLookup() if holds_floats(dtype_of(x)) else Lookup()
    table = out.quantized(real)
    if not e.is_image(x.tensor):
        return e.call(op, [x.tensor], (table,), x.shape, out.dtype, out.tensor_name)
    image = e.images(x.tensor)
    return e.from_images(e.call(op, [image], (table,), shape_of(image), out.dtype, out.image_name))


def _max_pool(e: Any, call: Any, out: Fp8Output) -> Any:
    x, attrs = _operand(e, call.args[0]), call.attrs
    n, c, h, w = shape_of(call)
    op = FloatMaxPool(
        pair(attrs.pool_size), pair(attrs.strides), four(attrs.padding), pair(attrs.dilation), (h, w)
    )  # fmt: skip
    y = e.call(op, [e.images(x.tensor)], (), (n, h, w, c), dtype_of(x), out.image_name)
    return _rescaled(e, Operand(e.from_images(y), x.scale, 0, (n, c, h, w)), out)


def _avg_pool(e: Any, call: Any, out: Fp8Output) -> Any:
    window, x = average_window(call), _operand(e, call.args[0])
    factor = (float(x.scale) / (out.scale * window.counts)).astype(np.float32)
    op = FloatAvgPool(
        window.size,
        window.strides,
        window.padding,
        window.out_shape,
        *out.bounds(),
        x.zero,
        out.dtype,
        out.zero,
    )
    shape = (x.shape[0], *window.out_shape, x.shape[1])
    y = e.call(op, [e.images(x.tensor)], (factor,), shape, out.dtype, out.image_name)
    return e.reshaped(e.from_images(y), shape_of(call))


def _moved(e: Any, call: Any, out: Fp8Output) -> Any:
    return moved(e, call, out, _operand(e, call.args[0]), _rescaled, _padding)


def _padding(before: tuple[int, ...], after: tuple[int, ...], value: float, x: Operand) -> FloatPad:
    code = codes(store(np.asarray(value, np.float32) / np.float32(x.scale), dtype_of(x)))
    return FloatPad(before, after, int(code))


def _concat(e: Any, call: Any, out: Fp8Output) -> Any:
    return concat(e, call, out, _operands(e, call.args[0].fields, out), _rescaled)


_COMPOSITES: dict[str, Callable[..., Any]] = {"conv2d": _conv2d, "matmul": _dense, "add": _fused_add}
_RULES: dict[str, Callable[..., Any]] = {
    "add": _add,
    "subtract": _add,
    "multiply": _mul,
    "nn.max_pool2d": _max_pool,
    "nn.avg_pool2d": _avg_pool,
    "nn.adaptive_avg_pool2d": _avg_pool,
    "mean": _avg_pool,
    "concat": _concat,
    **dict.fromkeys(DATA_MOVEMENT, _moved),
}
