"""The rules of LowerToInteger: which integer operator equals Q(f(DQ(a), DQ(b) …)), for each kind of f."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import floor, log2, prod
from typing import Any

import numpy as np

from hwptq.formats import format_of, holds_floats
from hwptq.ir.composite import Composite, is_clamped, read_composite
from hwptq.ir.dataflow import constant, op_name, shape_of
from hwptq.ir.operator import Operator
from hwptq.ir.qdq import dequantizes
from hwptq.operators.add import FRACTION_BITS, WIDE_FRACTION_BITS, Add
from hwptq.operators.avg_pool import AvgPool
from hwptq.operators.clamp import Clamp
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense, DenseFloat
from hwptq.operators.lookup import Lookup
from hwptq.operators.matmul import MatMul
from hwptq.operators.max_pool import MaxPool
from hwptq.operators.mul import LEFT_SHIFT, Mul
from hwptq.operators.pad import Pad
from hwptq.operators.rescale import LEFT_SHIFT as RESCALE_SHIFT
from hwptq.operators.rescale import Rescale
from hwptq.operators.resize import Resize
from hwptq.quant.accumulator import accumulator_constants, accumulator_shift
from hwptq.quant.fixed_point import ACCUMULATOR_LIMIT, quantize_multiplier, shortening

from ..graph.nearest import nearest_pixels, why_not_nearest
from ..graph.quantizable import DATA_MOVEMENT, FLOAT_SUFFIX, elementwise_root
from ..graph.table import tabulate
from .averaging import average_window
from .operands import NotInteger, Operand, binary, bits_of, call_constants, dtype_of, four, pair, reach_of
from .rearrange import concat, moved


@dataclass(frozen=True)
class Output:
    """How the result of a node is quantized, its name, and the bits of the node's weight and input.

    held: the dtype of its codes. real: it is not quantized but float32. weight_group: int4 weights hold
    factors of groups of channels.
    """

    scale: float
    zero: int
    name: str
    qmin: int = -128
    qmax: int = 127
    weight_bits: int = 8
    activation_bits: int = 8
    weight_group: int = 0
    real: bool = False
    held: str = "int8"

    @property
    def dtype(self) -> str:
        """The dtype of the result."""
        return "float32" if self.real else self.held

    @property
    def tensor_name(self) -> str:
        """The name of the result, beside the float tensor `name`; see node_name."""
        return f"{self.name}{FLOAT_SUFFIX if self.real else '_q'}"

    @property
    def image_name(self) -> str:
        """The name of the result in NHWC."""
        return f"{self.name}_nhwc"

    def quantized(self, value: Any) -> np.ndarray:
        """Real values as codes, as quantize rounds them."""
        q = np.rint(np.asarray(value, np.float32) / np.float32(self.scale)) + self.zero
        return np.clip(q, self.qmin, self.qmax).astype(self.held)

    def bounds(self, low: Any = -np.inf, high: Any = np.inf) -> tuple[int, int]:
        """(lo, hi) of a fused clamp to [low, high]; the widest of them where they differ by channel."""
        return int(self.quantized(low).min()), int(self.quantized(high).max())

    def channel_bounds(self, low: Any, high: Any, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(lo, hi) [channels] of a clamp that differs by channel, else None."""
        lo, hi = (np.broadcast_to(self.quantized(v), (channels,)) for v in (low, high))
        return None if np.ptp(lo.astype(int)) == 0 and np.ptp(hi.astype(int)) == 0 else (lo, hi)


def lower_node(emitter: Any, expr: Any, out: Output) -> Any:
    """Emit the integer operators whose result is quantize(expr); returns an integer expression.

    Raises NotInteger with the reason where there is no exact integer form.
    """
    value = emitter.values.get(expr)
    if op_name(value) == "clip" and not dequantizes(emitter.values.get(value.args[0])):
        lo, hi = out.bounds(*(float(a.value) for a in value.args[1:3]))
        return lower_node(emitter, value.args[0], replace(out, qmin=lo, qmax=hi))
    if dequantizes(value):
        return _rescaled(emitter, emitter.operand(expr), out)
    root = elementwise_root(expr, emitter.values)
    if root is not expr and dequantizes(emitter.values.get(root)):
        return _lookup(emitter, expr, root, out)
    unit = read_composite(emitter.mod, value)
    rule = _COMPOSITES.get(unit.kind) if unit else _RULES.get(op_name(value))
    if rule is None:
        raise NotInteger(f"{op_name(value) or 'call'} has no integer form")
    return rule(emitter, unit or value, out)


def is_real_dense(emitter: Any, value: Any) -> bool:
    """Whether `value` is a dense layer on integers without a clamp, which may have a float32 result."""
    unit = read_composite(emitter.mod, value)
    if unit is None or unit.kind != "matmul" or is_clamped(unit):
        return False
    x, weight = (emitter.values.get(a) for a in unit.args)
    if op_name(x) != "dequantize" or op_name(weight) != "dequantize":
        return False
    held = constant(weight.args[0])
    return (
        held is not None
        and held.ndim == 2
        and not any(holds_floats(str(a.ty.dtype)) for a in (x.args[0], weight.args[0]))
    )


def _multiplier(real: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        return quantize_multiplier(np.asarray(real, np.float64))
    except ValueError as error:
        raise NotInteger(str(error)) from error


def _scalar_multiplier(real: float) -> tuple[int, int]:
    multiplier, shift = _multiplier(real)
    return int(multiplier), int(shift)


def _weights(
    unit: Composite, x: Operand, w: Operand, weight: np.ndarray, out: Output
) -> tuple[tuple[np.ndarray, ...], int]:  # fmt: skip
    """((weight, bias, multiplier, shift) of a conv or dense, or (weight, bias, scale) of one with a float
    result; the shift of its sums). `weight` has the output channels first.
    """
    if isinstance(x.tensor, np.ndarray):
        raise NotInteger("its input is a constant")
    if constant(unit.args[1]) is not None:
        raise NotInteger("its weight is not quantized")
    scale = None if out.real else out.scale
    try:
        bits = 8 if out.weight_group else out.weight_bits, bits_of(x)
        given = weight, w.scale, unit.bias, float(x.scale), x.zero
        return accumulator_constants(*given, scale, *bits), accumulator_shift(*given, *bits)
    except ValueError as error:
        raise NotInteger(str(error)) from error


def _conv2d(e: Any, unit: Composite, out: Output) -> Any:
    attrs = unit.head.attrs
    if str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW":
        raise NotInteger(f"conv2d of layout {attrs.data_layout}/{attrs.kernel_layout}")
    x, w = e.operand(unit.args[0]), e.operand(unit.args[1])
    if not isinstance(w.tensor, np.ndarray):
        raise NotInteger("the weight is not a constant")
    constants, by = _weights(unit, x, w, w.tensor.transpose(0, 2, 3, 1), out)
    n, channels, height, width = shape_of(unit.result)
    op = Conv2d(
        pair(attrs.strides), four(attrs.padding), pair(attrs.dilation), int(attrs.groups),
        x.zero, out.zero, *out.bounds(*unit.bounds), out.weight_bits, _activation_bits(x, out),
        out.weight_group, out.dtype, by,
    )  # fmt: skip
    shape = (n, height, width, channels)
    return e.from_images(
        _clamped(e, op, e.images(x.tensor), constants, shape, unit, replace(out, name=out.image_name))
    )


def _activation_bits(x: Operand, out: Output) -> int:
    """Those that the input of a layer takes: fewer than its dtype has where the layer was assigned them."""
    return min(bits_of(x), out.activation_bits) if bits_of(x) <= 8 else bits_of(x)


def _clamped(
    e: Any, op: Conv2d | Dense, x: Any, constants: tuple[np.ndarray, ...], shape: tuple[int, ...],
    unit: Composite, out: Output,
) -> Any:  # fmt: skip
    """Emit `op`, and behind it the clamp of `unit` where that differs by channel."""
    limits = out.channel_bounds(*unit.bounds, shape[-1])
    if limits is None:
        return e.call(op, [x], constants, shape, out.dtype, out.name)
    y = e.call(op, [x], constants, shape, out.dtype, f"{out.name}_unclamped")
    return e.call(Clamp(), [y], limits, shape, out.dtype, out.name)


def _dense(e: Any, unit: Composite, out: Output) -> Any:
    x, w = e.operand(unit.args[0]), e.operand(unit.args[1])
    if not isinstance(w.tensor, np.ndarray):
        return _matmul(e, unit, x, w, out)
    if w.tensor.ndim != 2:
        raise NotInteger(f"a constant operand of rank {w.tensor.ndim}")
    constants, by = _weights(unit, x, w, np.ascontiguousarray(w.tensor.T), out)
    bits = out.weight_bits, _activation_bits(x, out), out.weight_group
    if out.real:
        real = DenseFloat(*bits, by)
        return e.call(real, [x.tensor], constants, shape_of(unit.result), "float32", out.tensor_name)
    op = Dense(
        x.zero, out.zero, *out.bounds(*unit.bounds), *bits, out.dtype, by
    )  # fmt: skip
    return _clamped(
        e, op, x.tensor, constants, shape_of(unit.result), unit, replace(out, name=out.tensor_name)
    )


def _matmul(e: Any, unit: Composite, a: Operand, b: Operand, out: Output) -> Any:
    depth = a.shape[-1]
    if min(len(a.shape), len(b.shape)) < 2:
        raise NotInteger("an operand of rank 1")
    most, wide = depth * reach_of(a) * reach_of(b), max(map(bits_of, (a, b)))
    if unit.bias is not None or (wide <= 8 and depth * 255 * 255 > ACCUMULATOR_LIMIT):
        raise NotInteger("its 32-bit accumulator could overflow")
    by = shortening(most)
    multiplier, shift = _scalar_multiplier(float(a.scale) * float(b.scale) * 2.0**by / out.scale)
    op = MatMul(
        a.zero, b.zero, multiplier, shift, out.zero, *out.bounds(*unit.bounds), wide, out.dtype, by
    )  # fmt: skip
    return call_constants(e, op, [a, b], shape_of(unit.result), out, out.tensor_name)


def _fused_add(e: Any, unit: Composite, out: Output) -> Any:
    return _add(e, unit.head, out, unit.args, unit.bounds)


def _add(
    e: Any, call: Any, out: Output, args: Sequence[Any] = (), bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Any:  # fmt: skip
    a, b = _two(e, args or call.args, out)
    wide = max(map(bits_of, (a, b))) > 8
    fraction = WIDE_FRACTION_BITS if wide else FRACTION_BITS
    sign = -1 if op_name(call) == "subtract" else 1
    coarse = max(float(a.scale), float(b.scale))
    factors = [round(float(t.scale) / coarse * 2**fraction) for t in (a, b)]
    multiplier, shift = _scalar_multiplier(coarse / (2**fraction * out.scale))
    op = Add(
        a.zero, b.zero, factors[0], sign * factors[1], multiplier, shift, out.zero, *out.bounds(*bounds),
        out.dtype,
    )  # fmt: skip
    return binary(e, op, a, b, out)


def _mul(e: Any, call: Any, out: Output) -> Any:
    a, b = _two(e, call.args, out)
    left = LEFT_SHIFT - sum(bits_of(t) - 9 for t in (a, b) if bits_of(t) > 8)
    multiplier, shift = _scalar_multiplier(float(a.scale) * float(b.scale) / (2.0**left * out.scale))
    op = Mul(a.zero, b.zero, multiplier, shift, out.zero, *out.bounds(), left, out.dtype)
    return binary(e, op, a, b, out)


def _two(e: Any, args: Sequence[Any], out: Output) -> list[Operand]:
    """The operands of an addition or a product; a constant is as precise as the others, and as the result."""
    known = [e.operand(t) for t in args if constant(t) is None]
    dtype = max((format_of(d) for d in (out.dtype, *map(dtype_of, known))), key=lambda d: d.bits)
    for t in known:
        if bits_of(t) > 8 and t.zero:
            raise NotInteger("an int16 tensor with a zero point")
    return [e.operand(t, dtype) for t in args]


def _lookup(e: Any, expr: Any, root: Any, out: Output) -> Any:
    x = e.operand(root)
    points = format_of(dtype_of(x)).points(x.scale, x.zero)
    real = tabulate(e.mod, e.values, expr, root, points)
    return _table(e, x, real, out)


def _rescaled(e: Any, x: Operand, out: Output) -> Any:
    """The same values in another scale."""
    if (float(x.scale), x.zero, dtype_of(x)) == (out.scale, out.zero, out.dtype):
        return x.tensor
    if bits_of(x) <= 8:
        return _table(e, x, format_of(dtype_of(x)).points(x.scale, x.zero), out)
    if x.zero:
        raise NotInteger("an int16 tensor with a zero point")
    multiplier, shift = _scalar_multiplier(float(x.scale) / (out.scale * 2.0**RESCALE_SHIFT))
    return _elementwise(e, Rescale(multiplier, shift, out.zero, out.qmin, out.qmax, out.dtype), x, (), out)


def _table(e: Any, x: Operand, real: np.ndarray, out: Output) -> Any:
    """A Lookup of x whose entry i is quantize(real[i])."""
    if not np.isfinite(real[1:-1]).any():
        raise NotInteger("the function is not finite")
    q = np.rint(np.nan_to_num(real / np.float32(out.scale), posinf=1e6, neginf=-1e6)) + out.zero
    table = np.clip(q, out.qmin, out.qmax).astype(out.dtype)
    return _elementwise(e, Lookup(), x, (table,), out)


def _elementwise(e: Any, op: Operator, x: Operand, constants: tuple[np.ndarray, ...], out: Output) -> Any:
    """An operator on each element of x, in NHWC where that form is at hand."""
    if not e.is_image(x.tensor):
        return e.call(op, [x.tensor], constants, x.shape, out.dtype, out.tensor_name)
    image = e.images(x.tensor)
    return e.from_images(e.call(op, [image], constants, shape_of(image), out.dtype, out.image_name))


def _max_pool(e: Any, call: Any, out: Output) -> Any:
    x, attrs = e.operand(call.args[0]), call.attrs
    n, c, h, w = shape_of(call)
    op = MaxPool(
        pair(attrs.pool_size), pair(attrs.strides), four(attrs.padding), pair(attrs.dilation), (h, w)
    )  # fmt: skip
    y = e.from_images(e.call(op, [e.images(x.tensor)], (), (n, h, w, c), dtype_of(x), out.image_name))
    return _rescaled(e, Operand(y, x.scale, x.zero, (n, c, h, w)), out)


def _avg_pool(e: Any, call: Any, out: Output) -> Any:
    window, x = average_window(call), e.operand(call.args[0])
    most = 2 ** bits_of(x) - 1 if bits_of(x) <= 8 else reach_of(x)
    factor = 2 ** floor(log2(ACCUMULATOR_LIMIT / (most * prod(window.size))))
    multiplier, shift = _multiplier(float(x.scale) / (out.scale * window.counts * factor))
    op = AvgPool(
        window.size,
        window.strides,
        window.padding,
        window.out_shape,
        factor,
        x.zero,
        out.zero,
        *out.bounds(),
        out.dtype,
    )
    shape = (x.shape[0], *window.out_shape, x.shape[1])
    y = e.call(op, [e.images(x.tensor)], (multiplier, shift), shape, out.dtype, out.image_name)
    return e.reshaped(e.from_images(y), shape_of(call))


def _resize(e: Any, call: Any, out: Output) -> Any:
    why_not = why_not_nearest(call)
    if why_not:
        raise NotInteger(why_not)
    x = e.operand(call.args[0])
    n, c, h, w = shape_of(call)
    y = e.call(
        Resize(), [e.images(x.tensor)], nearest_pixels(call), (n, h, w, c), dtype_of(x), out.image_name
    )
    return _rescaled(e, Operand(e.from_images(y), x.scale, x.zero, (n, c, h, w)), out)


def _moved(e: Any, call: Any, out: Output) -> Any:
    return moved(e, call, out, e.operand(call.args[0]), _rescaled, _padding)


def _padding(before: tuple[int, ...], after: tuple[int, ...], value: float, x: Operand) -> Pad:
    """The padding value rounded and clamped as any value of this tensor is."""
    return Pad(before, after, int(format_of(dtype_of(x)).encode(np.asarray(value), x.scale, x.zero)))


def _concat(e: Any, call: Any, out: Output) -> Any:
    return concat(e, call, out, [e.operand(f) for f in call.args[0].fields], _rescaled)


_COMPOSITES: dict[str, Callable[..., Any]] = {"conv2d": _conv2d, "matmul": _dense, "add": _fused_add}
_RULES: dict[str, Callable[..., Any]] = {
    "add": _add,
    "subtract": _add,
    "multiply": _mul,
    "nn.max_pool2d": _max_pool,
    "nn.avg_pool2d": _avg_pool,
    "nn.adaptive_avg_pool2d": _avg_pool,
    "mean": _avg_pool,
    "image.resize2d": _resize,
    "concat": _concat,
    **dict.fromkeys(DATA_MOVEMENT, _moved),
}
