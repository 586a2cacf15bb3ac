"""The order of values along the last axis: what the importer makes of TopK."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.real_operator import RealOperator
from hwptq.tir.builder import Expr, Flat, cast, constant, loop, workspace
from hwptq.tir.kernel import TensorType

_DIGIT = 8  # bits
_DIGITS = 1 << _DIGIT
_INFINITY, _NAN = 0x7F800000, 0x7FC00000


@dataclass(frozen=True)
class RealOrder(RealOperator):
    """(x float32, int32 or int64 [..., n]) -> int64 [..., k]: places of the k largest, or least, in order.

    Of equal values, as -0 and 0, the first comes first. NaN is above infinity.
    """

    kind: ClassVar[str] = "order"
    largest: bool

    def emit(self, inputs: Sequence[TensorType], out: TensorType) -> Callable[..., None]:
        """A radix sort of the places by the digits of their keys, the lowest digit first: it keeps the order
        of equal ones, and takes as long for any k."""
        *rows, count = inputs[0].shape
        kept, bits = out.shape[-1], np.dtype(inputs[0].dtype).itemsize * 8

        def emit(x: Flat, y: Flat) -> None:
            keys, ends = workspace(count, f"uint{bits}"), workspace(_DIGITS, "int32")
            places = [workspace(count, "int32") for _ in range(2)]

            def row(number: Expr) -> None:
                def begin(i: Expr) -> None:
                    keys.store(i, self.key(x.load(number * count + i), x.dtype))
                    places[0].store(i, cast(i, "int32"))

                loop(count, begin)
                for turn in range(bits // _DIGIT):
                    source, sorted_ = places[turn % 2], places[1 - turn % 2]
                    _sorted_by(lambda at, turn=turn: _digit(keys.load(at), turn), ends, source, sorted_)  # type: ignore[misc]
                loop(kept, lambda i: y.store(number * kept + i, cast(places[0].load(i), "int64")))

            loop(prod(rows), row)

        return emit

    def key(self, value: Expr, dtype: str) -> Expr:
        """An unsigned integer, the less the earlier `value` comes."""
        bits = np.dtype(dtype).itemsize * 8
        signed, unsigned = f"int{bits}", f"uint{bits}"
        top = constant(1 << (bits - 1), unsigned)
        code = value
        if dtype == "float32":
            code = T.bind(T.reinterpret("int32", value))
            size = T.bind(T.bitwise_and(code, constant(2**31 - 1, "int32")))
            named = T.bind(T.Select(size > constant(_INFINITY, "int32"), constant(_NAN, "int32"), code))
            flipped = constant(2**31 - 1, "int32")
            code = T.Select(named < constant(0, "int32"), T.bitwise_xor(named, flipped), named)
            code = T.bind(T.Select(size == constant(0, "int32"), constant(0, "int32"), code))
        ascending = T.bitwise_xor(T.reinterpret(unsigned, cast(code, signed)), top)
        return T.bind(T.bitwise_not(ascending) if self.largest else ascending)


def _digit(key: Expr, number: int) -> Expr:
    shift, mask = (constant(v, str(key.ty.dtype)) for v in (number * _DIGIT, _DIGITS - 1))
    return T.bind(cast(T.bitwise_and(T.shift_right(key, shift), mask), "int32"))


def _sorted_by(digit: Callable[[Expr], Expr], ends: Flat, source: Flat, target: Flat) -> None:
    """Move places from `source` to `target`, by digits of what is there; ends: memory for a count of each."""
    one = constant(1, "int32")
    loop(_DIGITS, lambda d: ends.store(d, constant(0, "int32")))

    def counted(i: Expr) -> None:
        d = digit(source.load(i))
        ends.store(d, ends.load(d) + one)

    loop(source.size, counted)
    loop(_DIGITS - 1, lambda d: ends.store(d + 1, ends.load(d + 1) + ends.load(d)))

    def moved(i: Expr) -> None:
        place = T.bind(source.load(source.size - 1 - i))
        d = digit(place)
        at = T.bind(ends.load(d) - one)
        ends.store(d, at)
        target.store(at, place)

    loop(source.size, moved)
