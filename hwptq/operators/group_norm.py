"""Group norms of images in integers; an instance norm is one whose groups are single channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.ir.composite import Composite, read_composite
from hwptq.ir.dataflow import constant as array_of
from hwptq.ir.dataflow import shape_of
from hwptq.ir.operator import Operator
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.operand import NotInteger
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.integer_norm import (
    LONGEST,
    NormConstants,
    fraction_bits,
    halvings,
    norm_constants,
    normalize,
)
from hwptq.tir.builder import Expr, Flat, cast, constant, loop, share, workspace
from hwptq.tir.channel_sums import ChannelSums
from hwptq.tir.kernel import TensorType
from hwptq.tir.requantize import Bounds, multiply_high, narrowed, rounding_shift
from hwptq.tir.row_multiplier import mean_of, multiplier_of_row, variance_of
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

_COST = 8  # multiply-accumulates that take as long as a value


@dataclass(frozen=True)
class GroupNorm(Operator):
    """(x int8 or int16 [N,H,W,C], multiplier int32 [C], bias int32 [C]) -> [N,H,W,C].

    A row of quant/integer_norm.py is what all pixels of an image have in one of `groups` groups of channels
    that follow each other. The zero point of x does not matter. eps, shift: see there; out: the dtype of the
    result.
    """

    kind: ClassVar[str] = "group_norm"
    writes_layouts: ClassVar[bool] = True
    groups: int
    eps: int
    shift: int
    out_zero_point: int
    lo: int
    hi: int
    out: str = "int8"

    def reference(self, x, multiplier, bias) -> np.ndarray:
        n, h, w, c = x.shape
        split = n, h * w, self.groups, c // self.groups
        rows = x.reshape(split).transpose(0, 2, 1, 3)

        def of_rows(values: np.ndarray) -> np.ndarray:
            whole = values.reshape(self.groups, 1, -1)
            return np.broadcast_to(whole, rows.shape[1:]).reshape(self.groups, -1)

        constants = NormConstants(of_rows(multiplier), of_rows(bias), self.shift, self.eps)
        flat = rows.reshape(n, self.groups, -1)
        y = normalize(flat, constants, self.out_zero_point, self.lo, self.hi).astype(self.out)
        return y.reshape(rows.shape).transpose(0, 2, 1, 3).reshape(x.shape)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """Sums of each channel, what they make of each group, and then value by value."""
        n, h, w, c = out.shape
        dtype = inputs[0].dtype

        def emit(x: Flat, multiplier: Flat, bias: Flat, y: Flat) -> None:
            image = Stored(y, out)

            def part(first: Expr, count: Expr) -> None:
                sums, rows = ChannelSums(c, dtype, unit), _Rows(c, unit)

                def one(i: Expr) -> None:
                    source = x.behind((first + i) * (h * w * c))
                    sums.add_up(source, h * w)
                    rows.settle(sums, self.groups, h * w * (c // self.groups), self.eps, dtype)
                    self._scaled(source, rows, multiplier, bias, image, first + i, unit)

                loop(count, one)

            share(n, unit.shared(_COST * prod(out.shape)), part, image.border(unit))

        return emit

    def _scaled(
        self, x: Flat, rows: _Rows, multiplier: Flat, bias: Flat, image: Stored, b: Expr, unit: VectorUnit
    ) -> None:
        """The values of an image, a vector of channels of every pixel after the other."""
        _, h, w, c = image.tensor.shape
        bits = fraction_bits(x.dtype)
        bounds = Bounds(self.out_zero_point, self.lo, self.hi, dtype=self.out)

        def block(at: Expr, width: int, stored: int) -> None:
            mean, factor, by, lift = (T.bind(v.load(at, width)) for v in rows.all)
            scale, offset = (T.bind(v.load(at, width)) for v in (multiplier, bias))

            def pixel(row: Expr, col: Expr) -> None:
                wide = cast(x.load((row * w + col) * c + at, width), "int32", width)
                d = T.shift_left(wide, constant(bits, "int32", width)) - mean
                n = multiply_high(T.bind(T.shift_left(d, lift)), factor, width, unit.requantize)
                n = rounding_shift(n, by, width)
                v = multiply_high(n, scale, width, unit.requantize) + offset
                v = rounding_shift(v, constant(self.shift, "int32", width), width)
                value = narrowed(v, bounds, width, unit.requantize)
                image.store(image.pixel(b, row, col) + at, value, width, stored)

            loop(h, lambda row: loop(w, lambda col: pixel(row, col)))

        unit.cover(c, block)


class _Rows:
    """Mean, multiplier, shift and lift of the group that each channel belongs to, int32."""

    def __init__(self, channels: int, unit: VectorUnit):
        self.channels = channels
        room = -(-channels // unit.lanes) * unit.lanes  # a last vector may be whole
        self.all = tuple(workspace(room, "int32") for _ in range(4))

    def settle(self, sums: ChannelSums, groups: int, count: int, eps: int, dtype: str) -> None:
        """Find them, by the sums of the channels of a group: rows of `count` values of `dtype`."""
        size, bits, halved = self.channels // groups, fraction_bits(dtype), halvings(count, dtype)

        def group(g: Expr) -> None:
            total, squares = sums.of(g * size, size)
            variance = variance_of(total, squares, count, halved) + constant(eps, "int64")
            multiplier = multiplier_of_row(variance, count, bits, halved)
            found = T.bind(mean_of(total, count, bits)), *multiplier

            def channel(i: Expr) -> None:
                for values, value in zip(self.all, found, strict=True):
                    values.store(g * size + i, value)

            loop(size, channel)

        loop(groups, group)


def _why_not(call: Any) -> str | None:
    """Why a group_norm of Relax has no integer form."""
    shape = shape_of(call)
    axes = sorted(int(a) % len(shape) for a in call.attrs.axes)
    if len(shape) != 4 or int(call.attrs.channel_axis) % 4 != 1 or axes != [2, 3]:
        return "a group norm of something else than images"
    return None


def _constants_why_not(shape: Sequence[int], groups: int, vectors: Sequence[Any]) -> str | None:
    if any(array_of(v) is None for v in vectors):
        return "a norm whose scale or offset is computed"
    return None if prod(shape[1:]) // groups <= LONGEST else f"a norm of more than {LONGEST} values"


def _plain_why_not(call: Any) -> str | None:
    return _why_not(call) or _constants_why_not(shape_of(call), int(call.attrs.num_groups), call.args[1:])


def _family(mod: tvm.IRModule, call: Any) -> str | None:
    unit = read_composite(mod, call)
    assert unit is not None
    why_not = _why_not(unit.head) or _constants_why_not(
        shape_of(call), int(unit.head.attrs.num_groups), unit.args[1:]
    )
    return None if why_not else "group_norm"


@lowers("nn.group_norm", family="group_norm", makes=(GroupNorm,), why_not=_plain_why_not)
def lower_group_norm(e: Emitter, call: Any, out: Output) -> Any:
    """A group norm of images."""
    return _lowered(e, call, call.args, (-np.inf, np.inf), out)


@lowers("composite.group_norm", family=_family, makes=(GroupNorm,))
def lower_fused_group_norm(e: Emitter, unit: Composite, out: Output) -> Any:
    """A group norm of images with a clamp behind it."""
    return _lowered(e, unit.head, unit.args, unit.bounds, out)


def _lowered(e: Emitter, head: Any, args: Sequence[Any], bounds: tuple[Any, Any], out: Output) -> Any:
    x, groups = e.operand(args[0]), int(head.attrs.num_groups)
    n, c, h, w = x.shape
    count = h * w * c // groups
    reason = _why_not(head) or _constants_why_not(x.shape, groups, args[1:])
    if reason:
        raise NotInteger(reason)
    if out.in_floats or out.real or x.format.is_float or x.is_constant:
        raise NotInteger("a group norm of floats")
    gamma, beta = (np.broadcast_to(np.asarray(array_of(v)), (c,)) for v in args[1:3])
    try:
        found = norm_constants(
            gamma, beta, float(head.attrs.epsilon), float(x.scale), out.scale, count, halvings(count, x.dtype)
        )
    except ValueError as error:
        raise NotInteger(str(error)) from error
    ends = out.zero, *out.code_bounds(*bounds), out.dtype
    op = GroupNorm(groups, found.eps, found.shift, *ends)
    y = e.call(op, [e.images(x.tensor)], (found.multiplier, found.bias), (n, h, w, c), out.dtype, out.image)
    return e.from_images(y)
