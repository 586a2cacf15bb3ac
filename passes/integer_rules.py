"""The rules of LowerToInteger: which integer operator equals Q(f(DQ(a), DQ(b) …)), for each kind of f."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import floor, log2, prod
from typing import Any

import numpy as np
from tvm import relax

from hwptq.quant import integer_ops as ops
from hwptq.quant.accumulator import accumulator_constants
from hwptq.quant.fixed_point import ACCUMULATOR_LIMIT, quantize_multiplier
from hwptq.quant.reference import ADD_FRACTION_BITS, MUL_LEFT_SHIFT

from .composite import Composite, read_composite
from .dataflow import constant, op_name, shape_of
from .quantizable import elementwise_root
from .table import tabulate


class NotInteger(Exception):
    """A node that has no integer form; its message is the reason, for the report."""


@dataclass(frozen=True)
class Operand:
    """A quantized tensor: real = (tensor - zero) * scale."""

    tensor: Any  # int8 Relax expression, or the array of a constant
    scale: np.ndarray  # float32 scalar, or one value per channel of a weight
    zero: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """How the result of a node is quantized, its name, and the bits of the node's weight and input."""

    scale: float
    zero: int
    name: str
    qmin: int = -128
    qmax: int = 127
    weight_bits: int = 8
    activation_bits: int = 8

    @property
    def tensor_name(self) -> str:
        """The name of the result, beside the float tensor `name`; see node_name."""
        return f"{self.name}_q"

    @property
    def image_name(self) -> str:
        """The name of the result in NHWC."""
        return f"{self.name}_nhwc"

    def quantized(self, value: Any) -> np.ndarray:
        """Real values as int8, as quantize rounds them."""
        q = np.rint(np.asarray(value, np.float32) / np.float32(self.scale)) + self.zero
        return np.clip(q, self.qmin, self.qmax).astype(np.int8)

    def bounds(self, low: Any = -np.inf, high: Any = np.inf) -> tuple[int, int]:
        """(lo, hi) of a fused clamp to [low, high]; the widest of them where they differ by channel."""
        return int(self.quantized(low).min()), int(self.quantized(high).max())

    def channel_bounds(self, low: Any, high: Any, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(lo, hi) int8 [channels] of a clamp that differs by channel, else None."""
        lo, hi = (np.broadcast_to(self.quantized(v), (channels,)) for v in (low, high))
        return None if np.ptp(lo.astype(int)) == 0 and np.ptp(hi.astype(int)) == 0 else (lo, hi)


def lower_node(emitter: Any, expr: Any, out: Output) -> Any:
    """Emit the integer operators whose result is quantize(expr); returns an int8 expression.

    Raises NotInteger with the reason where there is no exact integer form.
    """
    value = emitter.values.get(expr)
    if op_name(value) == "clip" and op_name(emitter.values.get(value.args[0])) != "dequantize":
        lo, hi = out.bounds(*(float(a.value) for a in value.args[1:3]))
        return lower_node(emitter, value.args[0], replace(out, qmin=lo, qmax=hi))
    if op_name(value) == "dequantize":
        return _rescaled(emitter, emitter.operand(expr), out)
    root = elementwise_root(expr, emitter.values)
    if root is not expr and op_name(emitter.values.get(root)) == "dequantize":
        return _lookup(emitter, expr, root, out)
    unit = read_composite(emitter.mod, value)
    rule = _COMPOSITES.get(unit.kind) if unit else _RULES.get(op_name(value))
    if rule is None:
        raise NotInteger(f"{op_name(value) or 'call'} has no integer form")
    return rule(emitter, unit or value, out)


def _multiplier(real: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        return quantize_multiplier(np.asarray(real, np.float64))
    except ValueError as error:
        raise NotInteger(str(error)) from error


def _scalar_multiplier(real: float) -> tuple[int, int]:
    multiplier, shift = _multiplier(real)
    return int(multiplier), int(shift)


def _weights(unit: Composite, x: Operand, w: Operand, weight: np.ndarray, out: Output) -> tuple[Any, ...]:
    """(weight, bias, multiplier, shift) of a conv or dense; `weight` has the output channels first."""
    if isinstance(x.tensor, np.ndarray):
        raise NotInteger("its input is a constant")
    if constant(unit.args[1]) is not None:
        raise NotInteger("its weight is not quantized")
    try:
        return accumulator_constants(
            weight, w.scale, unit.bias, float(x.scale), x.zero, out.scale, out.weight_bits
        )
    except ValueError as error:
        raise NotInteger(str(error)) from error


def _conv2d(e: Any, unit: Composite, out: Output) -> Any:
    attrs = unit.head.attrs
    if str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW":
        raise NotInteger(f"conv2d of layout {attrs.data_layout}/{attrs.kernel_layout}")
    x, w = e.operand(unit.args[0]), e.operand(unit.args[1])
    if not isinstance(w.tensor, np.ndarray):
        raise NotInteger("the weight is not a constant")
    constants = _weights(unit, x, w, w.tensor.transpose(0, 2, 3, 1), out)
    n, channels, height, width = shape_of(unit.result)
    op = ops.Conv2d(
        _pair(attrs.strides), _four(attrs.padding), _pair(attrs.dilation), int(attrs.groups),
        x.zero, out.zero, *out.bounds(*unit.bounds), out.weight_bits, out.activation_bits,
    )  # fmt: skip
    shape = (n, height, width, channels)
    return e.from_images(
        _clamped(e, op, e.images(x.tensor), constants, shape, unit, replace(out, name=out.image_name))
    )


def _clamped(
    e: Any, op: ops.Conv2d | ops.Dense, x: Any, constants: tuple[np.ndarray, ...], shape: tuple[int, ...],
    unit: Composite, out: Output,
) -> Any:  # fmt: skip
    """Emit `op`, and behind it the clamp of `unit` where that differs by channel."""
    limits = out.channel_bounds(*unit.bounds, shape[-1])
    if limits is None:
        return e.call(op, [x], constants, shape, name=out.name)
    y = e.call(op, [x], constants, shape, name=f"{out.name}_unclamped")
    return e.call(ops.Clamp(), [y], limits, shape, name=out.name)


def _dense(e: Any, unit: Composite, out: Output) -> Any:
    x, w = e.operand(unit.args[0]), e.operand(unit.args[1])
    if not isinstance(w.tensor, np.ndarray):
        return _matmul(e, unit, x, w, out)
    if w.tensor.ndim != 2:
        raise NotInteger(f"a constant operand of rank {w.tensor.ndim}")
    constants = _weights(unit, x, w, np.ascontiguousarray(w.tensor.T), out)
    op = ops.Dense(
        x.zero, out.zero, *out.bounds(*unit.bounds), out.weight_bits, out.activation_bits
    )  # fmt: skip
    return _clamped(
        e, op, x.tensor, constants, shape_of(unit.result), unit, replace(out, name=out.tensor_name)
    )


def _matmul(e: Any, unit: Composite, a: Operand, b: Operand, out: Output) -> Any:
    depth = a.shape[-1]
    if min(len(a.shape), len(b.shape)) < 2:
        raise NotInteger("an operand of rank 1")
    if unit.bias is not None or depth * 255 * 255 > ACCUMULATOR_LIMIT:
        raise NotInteger("its 32-bit accumulator could overflow")
    multiplier, shift = _scalar_multiplier(float(a.scale) * float(b.scale) / out.scale)
    op = ops.MatMul(a.zero, b.zero, multiplier, shift, out.zero, *out.bounds(*unit.bounds))
    return _call_constants(e, op, [a, b], shape_of(unit.result), out.tensor_name)


def _fused_add(e: Any, unit: Composite, out: Output) -> Any:
    return _add(e, unit.head, out, unit.args, unit.bounds)


def _add(
    e: Any, call: Any, out: Output, args: Sequence[Any] = (), bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Any:  # fmt: skip
    a, b = (e.operand(t) for t in args or call.args)
    sign = -1 if op_name(call) == "subtract" else 1
    coarse = max(float(a.scale), float(b.scale))
    factors = [round(float(t.scale) / coarse * 2**ADD_FRACTION_BITS) for t in (a, b)]
    multiplier, shift = _scalar_multiplier(coarse / (2**ADD_FRACTION_BITS * out.scale))
    op = ops.Add(
        a.zero, b.zero, factors[0], sign * factors[1], multiplier, shift, out.zero, *out.bounds(*bounds)
    )  # fmt: skip
    return _binary(e, op, a, b, out)


def _mul(e: Any, call: Any, out: Output) -> Any:
    a, b = (e.operand(t) for t in call.args)
    multiplier, shift = _scalar_multiplier(float(a.scale) * float(b.scale) / (2**MUL_LEFT_SHIFT * out.scale))
    return _binary(e, ops.Mul(a.zero, b.zero, multiplier, shift, out.zero, *out.bounds()), a, b, out)


def _binary(e: Any, op: ops.IntegerOp, a: Operand, b: Operand, out: Output) -> Any:
    """An operator on two broadcast operands, in NHWC where one of them is an image in that layout."""
    shape = tuple(np.broadcast_shapes(a.shape, b.shape))
    images = any(e.is_image(t.tensor) for t in (a, b)) and len(a.shape) == len(b.shape) == 4
    if not images:
        return _call_constants(e, op, [a, b], shape, out.tensor_name)
    n, c, h, w = shape
    tensors = [_nhwc(e, t) for t in (a, b)]
    return e.from_images(_call_constants(e, op, tensors, (n, h, w, c), out.image_name))


def _nhwc(e: Any, t: Operand) -> Operand:
    n, c, h, w = t.shape
    constant = isinstance(t.tensor, np.ndarray)
    tensor = t.tensor.transpose(0, 2, 3, 1) if constant else e.images(t.tensor)
    return Operand(tensor, t.scale, t.zero, (n, h, w, c))


def _call_constants(e: Any, op: Any, operands: list[Operand], shape: tuple[int, ...], name: str) -> Any:
    """Call an operator some of whose operands may be constants."""
    tensors = [
        relax.const(np.ascontiguousarray(t.tensor)) if isinstance(t.tensor, np.ndarray) else t.tensor
        for t in operands
    ]
    return e.call(op, tensors, (), shape, name=name)


def _lookup(e: Any, expr: Any, root: Any, out: Output) -> Any:
    x = e.operand(root)
    points = (np.arange(-128, 128) - x.zero).astype(np.float32) * np.float32(x.scale)
    real = tabulate(e.mod, e.values, expr, root, points)
    return _table(e, x, real, out)


def _rescaled(e: Any, x: Operand, out: Output) -> Any:
    """The same values in another scale."""
    if (float(x.scale), x.zero) == (out.scale, out.zero):
        return x.tensor
    points = (np.arange(-128, 128) - x.zero).astype(np.float32) * np.float32(x.scale)
    return _table(e, x, points, out)


def _table(e: Any, x: Operand, real: np.ndarray, out: Output) -> Any:
    """A Lookup of x whose entry i is quantize(real[i])."""
    if not np.isfinite(real[1:-1]).any():
        raise NotInteger("the function is not finite")
    q = np.rint(np.nan_to_num(real / np.float32(out.scale), posinf=1e6, neginf=-1e6)) + out.zero
    table = np.clip(q, out.qmin, out.qmax).astype(np.int8)
    if not e.is_image(x.tensor):
        return e.call(ops.Lookup(), [x.tensor], (table,), x.shape, name=out.tensor_name)
    image = e.images(x.tensor)
    return e.from_images(e.call(ops.Lookup(), [image], (table,), shape_of(image), name=out.image_name))


def _max_pool(e: Any, call: Any, out: Output) -> Any:
    x, attrs = e.operand(call.args[0]), call.attrs
    n, c, h, w = shape_of(call)
    op = ops.MaxPool(
        _pair(attrs.pool_size), _pair(attrs.strides), _four(attrs.padding), _pair(attrs.dilation), (h, w)
    )  # fmt: skip
    y = e.from_images(e.call(op, [e.images(x.tensor)], (), (n, h, w, c), name=out.image_name))
    return _rescaled(e, Operand(y, x.scale, x.zero, (n, c, h, w)), out)


def _avg_pool(e: Any, call: Any, out: Output) -> Any:
    attrs = call.attrs
    if _pair(attrs.dilation) != (1, 1):
        raise NotInteger("dilated average pooling")
    size, strides, padding = _pair(attrs.pool_size), _pair(attrs.strides), _four(attrs.padding)
    return _average(e, call, out, size, strides, padding, bool(attrs.count_include_pad))


def _global_pool(e: Any, call: Any, out: Output) -> Any:
    _, _, h, w = shape_of(call.args[0])
    result = shape_of(call)
    if op_name(call) == "mean":
        axes = sorted(int(a) % 4 for a in call.attrs.axis or ())
        if len(shape_of(call.args[0])) != 4 or axes != [2, 3]:
            raise NotInteger("a mean that is no global pooling")
        oh = ow = 1
    else:
        oh, ow = result[2:]
    if h % oh or w % ow:
        raise NotInteger("adaptive pooling with windows of unequal size")
    size = (h // oh, w // ow)
    return _average(e, call, out, size, size, (0, 0, 0, 0), True, (oh, ow))


def _average(
    e: Any,
    call: Any,
    out: Output,
    size: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    with_padding: bool,
    pixels: Any = None,
) -> Any:
    """`with_padding`: windows average over padding too; `pixels`: (OH, OW) if the call's shape lacks them."""
    x = e.operand(call.args[0])
    n, c, h, w = x.shape
    oh, ow = pixels or shape_of(call)[2:]
    counts = np.outer(
        _window_counts(h, size[0], strides[0], padding[0], padding[2], oh, with_padding),
        _window_counts(w, size[1], strides[1], padding[1], padding[3], ow, with_padding),
    ).reshape(-1)
    factor = 2 ** floor(log2(ACCUMULATOR_LIMIT / (255 * prod(size))))
    multiplier, shift = _multiplier(float(x.scale) / (out.scale * counts * factor))
    op = ops.AvgPool(size, strides, padding, (oh, ow), factor, x.zero, out.zero, *out.bounds())
    y = e.call(op, [e.images(x.tensor)], (multiplier, shift), (n, oh, ow, c), name=out.image_name)
    return e.reshaped(e.from_images(y), shape_of(call))


def _window_counts(
    extent: int, size: int, stride: int, before: int, after: int, out: int, with_padding: bool
) -> np.ndarray:
    """How many values each window along one axis averages over."""
    starts = np.arange(out) * stride - before
    low, high = (-before, extent + after) if with_padding else (0, extent)
    return np.minimum(starts + size, high) - np.maximum(starts, low)


def _moved(e: Any, call: Any, out: Output) -> Any:
    """reshape, transpose, slice and the like: the same integers elsewhere."""
    x = e.operand(call.args[0])
    name = op_name(call)
    if name == "nn.pad":
        y = _pad(e, call, x)
    elif name == "permute_dims" and e.is_image(x.tensor) and _axes(call) == [0, 2, 3, 1]:
        y = e.images(x.tensor)
    elif name == "strided_slice" and e.is_image(x.tensor):
        y = e.from_images(_sliced_image(call, e.images(x.tensor)))
    elif name in ("permute_dims", "strided_slice"):
        y = e.keep(call, x.tensor)
    else:
        y = e.reshaped(x.tensor, shape_of(call))
    return _rescaled(e, Operand(y, x.scale, x.zero, shape_of(call)), out)


def _sliced_image(call: Any, image: Any) -> Any:
    """A slice of an NCHW tensor, taken from its NHWC form."""
    axes, begin, end, strides = ([int(v) for v in a.fields] for a in call.args[1:5])
    moved = [(0, 3, 1, 2)[a % 4] for a in axes]
    return relax.op.strided_slice(image, moved, begin, end, strides, assume_inbound=False)


def _axes(call: Any) -> list[int]:
    rank = len(shape_of(call.args[0]))
    axes = call.attrs.axes
    return list(range(rank))[::-1] if axes is None else [int(a) % rank for a in axes]


def _pad(e: Any, call: Any, x: Operand) -> Any:
    """Padding with a constant that is a value of the tensor's scale."""
    if str(call.attrs.pad_mode) != "constant":
        raise NotInteger(f"padding by {call.attrs.pad_mode}")
    widths = [int(p) for p in call.attrs.pad_width]
    before, after = widths[::2], widths[1::2]
    if min(widths) < 0:
        raise NotInteger("a negative padding")
    # rounded and clamped as any value of this tensor is
    value = int(Output(float(x.scale), x.zero, "").quantized(call.attrs.pad_value))
    shape = shape_of(call)
    if not e.is_image(x.tensor):
        return e.call(ops.Pad(tuple(before), tuple(after), value), [x.tensor], (), shape)
    order = (0, 2, 3, 1)
    op = ops.Pad(tuple(before[i] for i in order), tuple(after[i] for i in order), value)
    return e.from_images(e.call(op, [e.images(x.tensor)], (), tuple(shape[i] for i in order)))


def _concat(e: Any, call: Any, out: Output) -> Any:
    operands = [e.operand(f) for f in call.args[0].fields]
    parts = [_rescaled(e, t, out) for t in operands]
    axis = int(call.attrs.axis) % len(shape_of(call))
    if len(shape_of(call)) == 4 and any(e.is_image(p) for p in parts):
        images = [e.images(p) for p in parts]
        return e.from_images(e.r.emit(relax.op.concat(images, axis=(0, 3, 1, 2)[axis]), out.image_name))
    return e.r.emit(relax.op.concat(parts, axis=axis), out.tensor_name)


def _pair(values: Any) -> tuple[int, int]:
    a, b = (int(v) for v in values)
    return a, b


def _four(values: Any) -> tuple[int, int, int, int]:
    a, b, c, d = (int(v) for v in values)
    return a, b, c, d


_COMPOSITES: dict[str, Callable[..., Any]] = {"conv2d": _conv2d, "matmul": _dense, "add": _fused_add}
_RULES: dict[str, Callable[..., Any]] = {
    "add": _add,
    "subtract": _add,
    "multiply": _mul,
    "nn.max_pool2d": _max_pool,
    "nn.avg_pool2d": _avg_pool,
    "nn.adaptive_avg_pool2d": _global_pool,
    "mean": _global_pool,
    "concat": _concat,
    **dict.fromkeys(
        ("reshape", "permute_dims", "strided_slice", "nn.pad", "squeeze", "expand_dims", "flatten"), _moved
    ),
}
