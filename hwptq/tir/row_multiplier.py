"""What a norm divides a row by, from the sums of the row: one integer square root and one division."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from hwptq.quant.integer_norm import LARGEST_LIFT, NORMALIZED_BITS, ROOT_BITS

from .builder import Expr, cast, constant, local, loop


def mean_of(summed: Expr, count: int, bits: int) -> Expr:
    """2^bits times the mean of `count` values with this sum, int32 or int64, rounded, halves up: int32."""
    twice = T.shift_left(cast(summed, "int64"), constant(bits + 1, "int64")) + constant(count, "int64")
    return cast(T.floordiv(twice, constant(2 * count, "int64")), "int32")


def variance_of(total: Expr, squares: Expr, count: int, halved: int) -> Expr:
    """What a row's multiplier follows from, int64, without eps, from its sum and that of its squares, int64:
    quant/integer_norm.variance_of."""
    if not halved:
        return constant(count, "int64") * squares - total * total
    quotient = T.bind(T.floordiv(total, constant(count, "int64")))
    rest = total - quotient * constant(count, "int64")
    spread = squares - quotient * total - T.floordiv(rest * total, constant(count, "int64"))
    shortened = T.shift_right(spread, constant(2 * halved, "int64"))
    return constant(count, "int64") * T.max(shortened, constant(1, "int64"))


def multiplier_of_row(variance: Expr, count: int, bits: int, halved: int = 0) -> tuple[Expr, Expr, Expr]:
    """Multiplier, shift and lift of a row, int32, from count^2 times its variance over 4^halved, int64:
    quant/integer_norm.row_multiplier."""
    one = constant(1, "int64")
    v = T.bind(T.max(variance, one))
    zeros = T.call_llvm_pure_intrin("int64", "llvm.ctlz.i64", v, constant(0, "bool"))
    double = T.bind(T.shift_right(zeros - constant(64 - ROOT_BITS, "int64"), one))
    root = _integer_sqrt(T.shift_left(v, double + double))
    room = 31 - count.bit_length()
    quotient = T.bind(T.truncdiv(constant(count << (room + 31), "int64"), root))
    once = T.bind(cast(quotient >= constant(2**31, "int64"), "int64"))
    whole = constant(room - NORMALIZED_BITS + bits + halved, "int64")
    shift = T.bind(cast(whole - double - once, "int32"))
    factor = T.bind(cast(T.shift_right(quotient, once), "int32"))
    by = T.max(T.min(shift, constant(31, "int32")), constant(1, "int32"))
    lift = T.max(T.min(constant(1, "int32") - shift, constant(LARGEST_LIFT, "int32")), constant(0, "int32"))
    return factor, T.bind(by), T.bind(lift)


def _integer_sqrt(x: Expr) -> Expr:
    """floor(sqrt(x)) of an int64 in [2^60, 2^62): a bit at a time, as on paper."""
    rest, root = local(1, "int64"), local(1, "int64")
    rest.store(0, x)
    root.store(0, constant(0, "int64"))

    def step(i: Expr) -> None:
        bit = T.shift_left(constant(1, "int64"), constant(ROOT_BITS - 2, "int64") - cast(i + i, "int64"))
        found, left = T.bind(root.load(0)), T.bind(rest.load(0))
        tried = T.bind(found + bit)
        fits = T.bind(left >= tried)
        half = T.shift_right(found, constant(1, "int64"))
        rest.store(0, T.Select(fits, left - tried, left))
        root.store(0, T.Select(fits, half + bit, half))

    loop(ROOT_BITS // 2, step)
    return T.bind(root.load(0))
