"""Elements of operators on codes of any format: those of floats have unsigned numbers as bits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tvm.script.ir_builder import tirx as T

from hwptq.formats import holds_floats
from hwptq.operators.clamp import Clamp
from hwptq.operators.lookup import Lookup
from hwptq.operators.max_pool import MaxPool
from hwptq.operators.pad import Pad
from hwptq.operators.resize import Resize
from hwptq.tir.builder import Expr, Flat, cast, clamp, constant
from hwptq.tir.kernel import TensorType

from .element import Element, element_of
from .flat import indices, register, stored, value_of
from .operand import item_bytes
from .places import pooled, unpadded


def _bits(dtype: str) -> str:
    """The dtype of the bits of a float."""
    return f"uint{8 * item_bytes(dtype)}"


@element_of.register(Lookup)
def _lookup(op: Lookup, inputs: Sequence[TensorType], out: TensorType) -> Element:
    dtype = inputs[0].dtype
    if holds_floats(dtype):
        return lambda at, x, table: table.load(cast(T.reinterpret(_bits(dtype), x.load(at)), "int32"))
    (entries,) = inputs[1].shape
    return lambda at, x, table: table.load(cast(x.load(at), "int32") + entries // 2)


@element_of.register(Clamp)
def _clamp(op: Clamp, inputs: Sequence[TensorType], out: TensorType) -> Element:
    channels = out.shape[-1]

    def element(at: Expr, x: Flat, lo: Flat, hi: Flat) -> Expr:
        channel = T.floormod(at, channels)
        if not holds_floats(out.dtype):
            return clamp(x.load(at), lo.load(channel), hi.load(channel))
        low, high = value_of(lo, channel), value_of(hi, channel)
        return stored(T.min(T.max(value_of(x, at), low), high), out.dtype)

    return element


@element_of.register(Pad)
def _pad(op: Pad, inputs: Sequence[TensorType], out: TensorType) -> Element:
    place = unpadded(op, inputs[0], out)

    def element(at: Expr, tensor: Flat) -> Expr:
        inside, offset = place(at)
        if holds_floats(out.dtype):
            fill = T.reinterpret(out.dtype, constant(op.value, _bits(out.dtype)))
        else:
            fill = constant(op.value, out.dtype)
        return T.if_then_else(inside, tensor.load(offset), fill)

    return element


@element_of.register(MaxPool)
def _max_pool(op: MaxPool, inputs: Sequence[TensorType], out: TensorType) -> Element:
    in_floats = holds_floats(out.dtype)

    def larger(best: Expr, tensor: Flat, offset: Expr) -> Expr:
        return T.max(best, value_of(tensor, offset) if in_floats else tensor.load(offset))

    least = partial(register, -float("inf")) if in_floats else partial(register, -128, "int8")
    window = pooled(op, op.dilation, inputs[0], out, least, larger)
    return (lambda at, tensor: stored(window(at, tensor), out.dtype)) if in_floats else window


@element_of.register(Resize)
def _resize(op: Resize, inputs: Sequence[TensorType], out: TensorType) -> Element:
    _, h, w, channels = inputs[0].shape

    def element(at: Expr, x: Flat, rows: Flat, columns: Flat) -> Expr:
        b, row, column, channel = indices(at, out.shape)
        pixel = (b * h + rows.load(row)) * w + columns.load(column)
        return x.load(pixel * channels + channel)

    return element
