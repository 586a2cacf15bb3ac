"""Elements of what stays in float32 beside layers on rows with a scale each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from tvm.script.ir_builder import tirx as T

from hwptq.operators.real_arithmetic import RealArithmetic
from hwptq.operators.real_sigmoid import RealSigmoid
from hwptq.operators.rows import QMAX, RowQuantize, RowRescale
from hwptq.operators.write_rows import WriteRows
from hwptq.quant.float_attention import LEAST, LN_2, LOG2_E, MAGIC, POLYNOMIAL
from hwptq.tir.builder import Expr, Flat, cast, constant
from hwptq.tir.kernel import TensorType

from .element import Element, element_of
from .flat import add, clamped, divide, fma, multiply, real
from .places import operand_offsets

_FUNCTIONS: Mapping[str, Callable[[Expr, Expr], Expr]] = {
    "add": add,
    "subtract": lambda a, b: add(a, real(0.0) - b),
    "multiply": multiply,
}


@element_of.register(RowQuantize)
def _quantize(op: RowQuantize, inputs: Sequence[TensorType], out: TensorType) -> Element:
    count = out.shape[-1]

    def element(at: Expr, x: Flat, scale: Flat) -> Expr:
        inverse = divide(real(1.0), scale.load(T.floordiv(at, count)))
        steps = clamped(T.nearbyint(multiply(x.load(at), inverse)), -QMAX, QMAX)
        return cast(cast(steps, "int32"), "int8")

    return element


@element_of.register(RowRescale)
def _rescale(op: RowRescale, inputs: Sequence[TensorType], out: TensorType) -> Element:
    count = out.shape[-1]

    def element(at: Expr, t: Flat, scale: Flat, bias: Flat) -> Expr:
        value = fma(t.load(at), scale.load(T.floordiv(at, count)), bias.load(T.floormod(at, count)))
        return clamped(value, op.lo, op.hi)

    return element


@element_of.register(RealArithmetic)
def _arithmetic(op: RealArithmetic, inputs: Sequence[TensorType], out: TensorType) -> Element:
    offsets = operand_offsets(inputs, out)

    def element(at: Expr, *tensors: Flat) -> Expr:
        return _FUNCTIONS[op.function](*(t.load(i) for t, i in zip(tensors, offsets(at), strict=True)))

    return element


@element_of.register(RealSigmoid)
def _sigmoid(op: RealSigmoid, inputs: Sequence[TensorType], out: TensorType) -> Element:
    assert prod(inputs[0].shape) == prod(out.shape)

    def element(at: Expr, source: Flat) -> Expr:
        x = T.bind(source.load(at))
        e = T.bind(_exponential(T.min(x, real(0.0) - x)))
        return divide(T.Select(x >= real(0.0), real(1.0), e), add(real(1.0), e))

    return element


@element_of.register(WriteRows)
def _write_rows(op: WriteRows, inputs: Sequence[TensorType], out: TensorType) -> Element:
    at = len(out.shape) + op.axis
    rows, tokens, inner = out.shape[at], inputs[1].shape[at], prod(out.shape[at + 1 :])
    counted, limited = inputs[2].dtype, inputs[3].dtype

    def element(number: Expr, past: Flat, new: Flat, position: Flat, count: Flat) -> Expr:
        row = T.floormod(T.floordiv(number, inner), rows)
        token = T.bind(cast(row, counted) - position.load(0))
        few = T.And(token < constant(tokens, counted), cast(token, limited) < count.load(0))
        of = T.floordiv(number, inner * rows) * tokens + cast(token, "int32")
        written = T.And(token >= constant(0, counted), few)
        return T.if_then_else(written, new.load(of * inner + T.floormod(number, inner)), past.load(number))

    return element


def _exponential(x: Expr) -> Expr:
    """exp(x), x <= 0, as quant/float_attention.py has it."""
    x = T.bind(T.max(x, real(LEAST)))
    shifted = T.bind(fma(x, real(LOG2_E), real(MAGIC)))
    n = T.bind(add(shifted, real(-MAGIC)))
    rest = x
    for part in LN_2:
        rest = T.bind(fma(n, real(-part), rest))
    value = real(POLYNOMIAL[0])
    for c in POLYNOMIAL[1:]:
        value = T.bind(fma(value, rest, real(c)))
    value = T.bind(add(fma(value, multiply(rest, rest), rest), real(1.0)))
    power = T.shift_left(T.reinterpret("int32", shifted), constant(23, "int32"))
    return T.reinterpret("float32", T.reinterpret("int32", value) + power)
