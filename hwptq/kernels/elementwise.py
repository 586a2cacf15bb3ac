"""Elementwise operators, Pad and the float boundary, vectorised over the innermost contiguous axis."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from tvm.script.ir_builder import tirx as T

from hwptq.quant import integer_ops as ops

from .arithmetic import Operand, added, multiplied
from .builder import Expr, Flat, cast, clamp, constant, loop, nest, share_spans, spans, splat
from .kernel import TensorType
from .vector_unit import VectorUnit

_COST = 20  # multiply-accumulates that take as long as an element


@dataclass(frozen=True)
class Loops:
    """Loop extents and, for each tensor, the element strides; a broadcast axis has stride 0."""

    extents: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Element strides of a contiguous tensor: (2, 3, 4) -> (12, 4, 1)."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def broadcast_strides(shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor seen as `out_shape`. Raises ValueError where it does not broadcast."""
    missing = len(out_shape) - len(shape)
    if missing < 0 or any(n not in (1, m) for n, m in zip(shape, out_shape[missing:], strict=True)):
        raise ValueError(f"shape {tuple(shape)} does not broadcast to {tuple(out_shape)}")
    own = (0 if n == 1 else s for n, s in zip(shape, row_major(shape), strict=True))
    return (0,) * missing + tuple(own)


def merged(extents: Sequence[int], strides: Sequence[Sequence[int]]) -> Loops:
    """Drop axes of one element and join neighbours that every tensor walks as one.

    The innermost axis that is left is contiguous, or of one element, in every tensor.
    """
    axes = [(n, tuple(s[i] for s in strides)) for i, n in enumerate(extents) if n != 1]
    joined: list[tuple[int, tuple[int, ...]]] = []
    for n, step in axes:
        if joined and all(o == n * i for o, i in zip(joined[-1][1], step, strict=True)):
            joined[-1] = (joined[-1][0] * n, step)
        else:
            joined.append((n, step))
    if not joined or any(step not in (0, 1) for step in joined[-1][1]):  # as in a Pad of single channels
        joined.append((1, (1,) * len(strides)))
    return Loops(tuple(n for n, _ in joined), tuple(zip(*(s for _, s in joined), strict=True)))


def _walk(loops: Loops, unit: VectorUnit, body: Callable[[list[Expr], int, int], None]) -> None:
    """Emit the loops; body(offset per tensor, width, count). Threads share a single loop."""
    if len(loops.extents) == 1 and unit.parts > 1:
        extent = loops.extents[0]
        share_spans(
            extent,
            unit.lanes,
            unit.shared(_COST * extent),
            lambda at, width, count: body([at * steps[0] for steps in loops.strides], width, count),
        )
        return

    def row(*outer: Expr) -> None:
        bases = [sum(i * s for i, s in zip(outer, steps, strict=False)) for steps in loops.strides]
        unit.cover(
            loops.extents[-1],
            lambda at, width, count: body(
                [b + at * steps[-1] for b, steps in zip(bases, loops.strides, strict=True)], width, count
            ),
        )

    nest(loops.extents[:-1], row)


def emit_binary(
    op: ops.Add | ops.Mul, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
) -> Callable[..., None]:
    """Code of Add and Mul on any broadcastable shapes."""
    shapes = [broadcast_strides(t.shape, out.shape) for t in inputs]
    loops = merged(out.shape, [*shapes, row_major(out.shape)])

    def emit(a: Flat, b: Flat, y: Flat) -> None:
        def block(offsets: list[Expr], width: int, count: int) -> None:
            operands = [
                _operand(tensor, offset, steps[-1], width)
                for tensor, offset, steps in zip((a, b), offsets, loops.strides, strict=False)
            ]
            first, second = operands
            if isinstance(op, ops.Add):
                y.store(offsets[2], added(op, Operand(first), Operand(second), width, unit), width, count)
            else:
                y.store(offsets[2], multiplied(op, first, second, width, unit), width, count)

        _walk(loops, unit, block)

    return emit


def _operand(tensor: Flat, offset: Expr, stride: int, width: int) -> Expr:
    """A vector of a tensor, a broadcast value in every lane."""
    return splat(tensor.load(offset), width) if stride == 0 else tensor.load(offset, width)


def emit_clamp(out: TensorType, unit: VectorUnit) -> Callable[..., None]:
    """Code of Clamp: vectors along the channels."""
    channels = out.shape[-1]

    def emit(x: Flat, lo: Flat, hi: Flat, y: Flat) -> None:
        def row(i: Expr) -> None:
            def block(at: Expr, width: int, count: int) -> None:
                limits = (lo.load(at, width), hi.load(at, width))
                y.store(i * channels + at, clamp(x.load(i * channels + at, width), *limits), width, count)

            unit.cover(channels, block)

        loop(y.size // channels, row)

    return emit


def emit_quantize(op: ops.Quantize, unit: VectorUnit) -> Callable[..., None]:
    """Code of Quantize."""

    def emit(x: Flat, y: Flat) -> None:
        def block(at: Expr, width: int, count: int) -> None:
            y.store(at, cast(quantized(op, x.load(at, width), width), "int8", width), width)

        spans(y.size, unit.float_lanes, block)

    return emit


def quantized(op: ops.Quantize, value: Expr, width: int) -> Expr:
    """float32 -> int32 in the range of int8. nearbyint rounds half to even, as the reference does."""
    scaled = T.nearbyint(value / splat(_exact_float32(op.scale), width))
    shifted = scaled + constant(float(op.zero_point), "float32", width)
    limits = (constant(v, "float32", width) for v in (-128.0, 127.0))
    return T.bind(cast(clamp(shifted, *limits), "int32", width))


def emit_dequantize(op: ops.Dequantize, unit: VectorUnit) -> Callable[..., None]:
    """Code of Dequantize."""

    def emit(x: Flat, y: Flat) -> None:
        def block(at: Expr, width: int, count: int) -> None:
            centred = cast(x.load(at, width), "int32", width) - constant(op.zero_point, "int32", width)
            scale = splat(_exact_float32(op.scale), width)
            y.store(at, cast(centred, "float32", width) * scale, width)

        spans(y.size, unit.float_lanes, block)

    return emit


def _exact_float32(value: float) -> Expr:
    """A float32 constant given by its bits.

    TVM turns a division by a literal into a product with its reciprocal, which rounds differently.
    """
    (bits,) = struct.unpack("<i", struct.pack("<f", value))
    return T.reinterpret("float32", constant(bits, "int32"))


def emit_pad(op: ops.Pad, x_type: TensorType, out: TensorType, unit: VectorUnit) -> Callable[..., None]:
    """Code of Pad: fill the output, then copy the input into it."""
    steps = row_major(out.shape)
    first = sum(b * s for b, s in zip(op.before, steps, strict=True))
    loops = merged(x_type.shape, [row_major(x_type.shape), steps])

    def emit(x: Flat, y: Flat) -> None:
        unit.cover(y.size, lambda at, n, count: y.store(at, constant(op.value, y.dtype, n), n, count))
        _walk(loops, unit, lambda at, n, count: y.store(first + at[1], x.load(at[0], n), n, count))

    return emit
