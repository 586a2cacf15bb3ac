"""Means and maxima over the tokens that a mask shows, in integers: how sentence encoders end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import floor, log2
from typing import Any, ClassVar

import numpy as np
from tvm import relax
from tvm.script.ir_builder import tirx as T

from hwptq.ir.composite import Composite
from hwptq.ir.operator import Operator
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.layer import multipliers_of
from hwptq.lowering.operand import NotInteger, Operand
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.fixed_point import ACCUMULATOR_LIMIT, requantize
from hwptq.tir.builder import Expr, Flat, cast, constant, local, loop, splat
from hwptq.tir.kernel import TensorType
from hwptq.tir.requantize import Bounds, finish
from hwptq.tir.rows import each_row
from hwptq.tir.vector_unit import VectorUnit
from hwptq.tir.windows import when

from .rescale import rescaled

#: The most tokens: their sum, of int16, fits an accumulator.
LONGEST = 2**14
_COST = 2  # multiply-accumulates that take as long as a value


class _MaskedPool(Operator):
    """What both share: an activation [N, S, C], and int8 [N, S] that is not 0 where a token is shown."""

    @property
    def activations(self) -> int:
        return 2


@dataclass(frozen=True)
class MaskedMean(_MaskedPool):
    """(x int8 or int16 [N,S,C], shown int8 [N,S], left, multiplier, shift int32 [S+1]) -> [N,C].

    n = how many tokens are shown; acc = (sum of x - in_zero_point over these) << left[n], then requantize by
    multiplier[n] and shift[n], which divide by n. out: the dtype of the result.
    """

    kind: ClassVar[str] = "masked_mean"
    in_zero_point: int
    out_zero_point: int
    lo: int
    hi: int
    out: str = "int8"

    def reference(self, x, shown, left, multiplier, shift) -> np.ndarray:
        mask = shown != 0
        count = mask.sum(axis=1)
        centred = np.where(mask[..., None], x.astype(np.int64) - self.in_zero_point, 0)
        acc = centred.sum(axis=1) << left[count][:, None].astype(np.int64)
        factor, by = (t[count][:, None] for t in (multiplier, shift))
        return requantize(acc, factor, by, self.out_zero_point, self.lo, self.hi, self.out)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        rows, tokens, channels = inputs[0].shape
        bounds = Bounds(self.out_zero_point, self.lo, self.hi, dtype=self.out)

        def emit(x: Flat, shown: Flat, left: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
            def row(at: list[Expr], number: Expr) -> None:
                source, mask = x.behind(number * (tokens * channels)), shown.behind(number * tokens)
                count = _count(mask, tokens)
                factors = [T.bind(t.load(count)) for t in (left, multiplier, shift)]

                def block(at: Expr, width: int, stored: int) -> None:
                    acc = local(width, "int32")
                    acc.store(0, constant(0, "int32", width), width)

                    def add(token: Expr) -> None:
                        wide = cast(source.load(token * channels + at, width), "int32", width)
                        centred = wide - constant(self.in_zero_point, "int32", width)
                        acc.store(0, acc.load(0, width) + centred, width)

                    _each_shown(mask, tokens, add)
                    by, *scales = (splat(f, width) for f in factors)
                    total = T.bind(T.shift_left(acc.load(0, width), by))
                    result = finish(total, scales, bounds, width, unit.requantize)
                    y.store(number * channels + at, result, width, stored)

                unit.cover(channels, block)

            each_row([rows], unit, _COST * tokens * channels, lambda: row)

        return emit


@dataclass(frozen=True)
class MaskedMax(_MaskedPool):
    """(x int8 or int16 [N,S,C], shown int8 [N,S]) -> [N,C], the largest values of what is shown; the least of
    the dtype where nothing is.
    """

    kind: ClassVar[str] = "masked_max"

    def reference(self, x, shown) -> np.ndarray:
        return np.where((shown != 0)[..., None], x, np.iinfo(x.dtype).min).max(axis=1).astype(x.dtype)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        rows, tokens, channels = inputs[0].shape
        dtype = inputs[0].dtype

        def emit(x: Flat, shown: Flat, y: Flat) -> None:
            def row(at: list[Expr], number: Expr) -> None:
                source, mask = x.behind(number * (tokens * channels)), shown.behind(number * tokens)

                def block(at: Expr, width: int, stored: int) -> None:
                    best = local(width, dtype)
                    best.store(0, constant(int(np.iinfo(dtype).min), dtype, width), width)

                    def compare(token: Expr) -> None:
                        value = source.load(token * channels + at, width)
                        best.store(0, T.max(best.load(0, width), value), width)

                    _each_shown(mask, tokens, compare)
                    y.store(number * channels + at, best.load(0, width), width, stored)

                unit.cover(channels, block)

            each_row([rows], unit, _COST * tokens * channels, lambda: row)

        return emit


def _count(mask: Flat, tokens: int) -> Expr:
    """How many tokens are shown, int32."""
    found = local(1, "int32")
    found.store(0, constant(0, "int32"))
    one = constant(1, "int32")
    _each_shown(mask, tokens, lambda token: found.store(0, found.load(0) + one))
    return T.bind(found.load(0))


def _each_shown(mask: Flat, tokens: int, body: Callable[[Expr], None]) -> None:
    loop(tokens, lambda token: when(mask.load(token) != constant(0, "int8"), lambda: body(token)))


@lowers("composite.masked_mean", family="masked_mean", makes=(MaskedMean,), everywhere=True)
def lower_masked_mean(e: Emitter, unit: Composite, out: Output) -> Any:
    """A mean over what a mask shows: see FusePooling."""
    x, shown = _operands(e, unit, out)
    n, tokens, channels = x.shape
    counts = np.maximum(np.arange(tokens + 1), 1)
    most = counts * float(2**x.bits if x.bits <= 8 else x.reach)
    left = np.array([floor(log2(ACCUMULATOR_LIMIT / m)) for m in most], np.int32)
    scales = multipliers_of(float(x.scale) / (out.scale * counts * 2.0**left))
    op = MaskedMean(x.zero, out.zero, *out.code_bounds(), out.dtype)
    return e.call(op, [x.tensor, shown], (left, *scales), (n, channels), out.dtype, out.tensor)


@lowers("composite.masked_max", family="masked_max", makes=(MaskedMax,), selects=True, everywhere=True)
def lower_masked_max(e: Emitter, unit: Composite, out: Output) -> Any:
    """A maximum over what a mask shows: see FusePooling."""
    x, shown = _operands(e, unit, out)
    n, _, channels = x.shape
    origin = out.tensor if (x.dtype, float(x.scale), x.zero) == (out.dtype, out.scale, out.zero) else None
    y = e.call(MaskedMax(), [x.tensor, shown], (), (n, channels), x.dtype, origin)
    return rescaled(e, replace(x, tensor=y, shape=(n, channels)), out)


def _operands(e: Emitter, unit: Composite, out: Output) -> tuple[Operand, Any]:
    """x, and what is shown as int8."""
    given, shown = unit.result.args
    x = e.operand(given)
    if out.in_floats or out.real or x.format.is_float or x.is_constant:
        raise NotInteger("a pooling of floats")
    if x.shape[1] > LONGEST:
        raise NotInteger(f"a pooling of more than {LONGEST} tokens")
    return x, e.r.emit(relax.op.astype(e.r.get(shown), "int8"))
