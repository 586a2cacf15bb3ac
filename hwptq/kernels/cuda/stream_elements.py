"""Elements of what transformers have beside products: rows of tables, other scales, maxima over a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm.script.ir_builder import tirx as T

from hwptq.operators.embedding import LEFT_SHIFT as EMBEDDING_SHIFT
from hwptq.operators.embedding import Embedding
from hwptq.operators.masked_pool import MaskedMax
from hwptq.operators.rescale import LEFT_SHIFT, Rescale
from hwptq.tir.builder import Expr, Flat, cast, constant, loop
from hwptq.tir.kernel import TensorType
from hwptq.tir.requantize import requantize

from .element import Element, element_of
from .flat import indices, register
from .int8_elementwise import bounds, scaled


@element_of.register(Rescale)
def _rescale(op: Rescale, inputs: Sequence[TensorType], out: TensorType) -> Element:
    def element(at: Expr, x: Flat) -> Expr:
        return scaled(op, T.shift_left(cast(x.load(at), "int32"), constant(LEFT_SHIFT, "int32")))

    return element


@element_of.register(Embedding)
def _embedding(op: Embedding, inputs: Sequence[TensorType], out: TensorType) -> Element:
    (rows, count), dtype = inputs[1].shape, inputs[0].dtype

    def element(at: Expr, index: Flat, table: Flat, multiplier: Flat, shift: Flat) -> Expr:
        wanted = index.load(T.floordiv(at, count))
        row = cast(T.max(T.min(wanted, constant(rows - 1, dtype)), constant(0, dtype)), "int32")
        code = cast(table.load(row * count + T.floormod(at, count)), "int32")
        acc = T.shift_left(code, constant(EMBEDDING_SHIFT, "int32"))
        return requantize(acc, multiplier.load(row), shift.load(row), bounds(op), 1)

    return element


@element_of.register(MaskedMax)
def _masked_max(op: MaskedMax, inputs: Sequence[TensorType], out: TensorType) -> Element:
    least = {"int8": -128, "int16": -(2**15)}[out.dtype]

    def element(at: Expr, x: Flat, shown: Flat) -> Expr:
        best = register(least, out.dtype)
        _each_shown(inputs[0], at, shown, lambda offset: best.store(0, T.max(best.load(0), x.load(offset))))
        return best.load(0)

    return element


def _each_shown(x: TensorType, at: Expr, shown: Flat, body: Callable[[Expr], None]) -> None:
    """body(offset in x [N,S,C]) for each token that is shown, of the value `at` of [N,C]."""
    rows, tokens, channels = x.shape
    row, channel = indices(at, (rows, channels))

    def one(token: Expr) -> None:
        with T.If(shown.load(row * tokens + token) != constant(0, "int8")), T.Then():
            body((row * tokens + token) * channels + channel)

    loop(tokens, one)
