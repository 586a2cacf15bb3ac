"""Layer norm and RMS norm of float32 over the last axis: see quant/float_norm.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.operator import Operator, Shape, along_rows
from hwptq.quant.float_attention import LANES
from hwptq.quant.float_norm import real_layer_norm, real_rms_norm
from hwptq.tir.builder import Expr, Flat, cast, constant, exact_float32, local, loop, spans, splat
from hwptq.tir.float_steps import fma
from hwptq.tir.halves import by_halves
from hwptq.tir.kernel import TensorType
from hwptq.tir.rows import each_row
from hwptq.tir.vector_unit import VectorUnit

_COST = 3  # multiply-accumulates that take as long as a value
_ROW = 60  # and as the root and the division of a row


@dataclass(frozen=True)
class _RealNorm(Operator):
    """What norms share."""

    in_float: ClassVar[bool] = True
    centered: ClassVar[bool]
    eps: float

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        return along_rows(axis, self.activations)

    def element_by_element(self, unit: VectorUnit) -> bool:
        return unit.float_lanes == 1

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        *lead, count = out.shape

        def emit(x: Flat, gamma: Flat, *rest: Flat) -> None:
            *betas, y = rest

            def row(_: list[Expr], number: Expr) -> None:
                own = _Row(x.behind(number * count), count, unit)
                mean = own.mean() if self.centered else None
                factor = own.factor(mean, self.eps)

                def block(at: Expr, lanes: int, _: int) -> None:
                    normed = T.bind(own.less(mean, at, lanes) * splat(factor, lanes))
                    scale = gamma.load(at, lanes)
                    value = fma(normed, scale, betas[0].load(at, lanes), lanes) if betas else normed * scale
                    y.store(number * count + at, value, lanes)

                spans(count, unit.float_width(count), block)

            each_row(lead, unit, _COST * count + _ROW, lambda: row)

        return emit


@dataclass(frozen=True)
class _Row:
    """The code of a row of `count` values."""

    x: Flat
    count: int
    unit: VectorUnit

    def less(self, mean: Expr | None, at: Expr, lanes: int) -> Expr:
        """Some values, less the mean."""
        found = self.x.load(at, lanes)
        return found if mean is None else T.bind(found - splat(mean, lanes))

    def mean(self) -> Expr:
        """Of the row."""
        return T.bind(self._total(None, lambda x, total, _: total + x) / exact_float32(float(self.count)))

    def factor(self, mean: Expr | None, eps: float) -> Expr:
        """What makes the mean square 1."""
        squares = self._total(mean, lambda x, total, lanes: fma(x, x, total, lanes))
        share = exact_float32(float(np.float32(1) / np.float32(self.count)))
        square = T.bind(fma(squares, share, exact_float32(float(np.float32(eps))), 1))
        return T.bind(exact_float32(1.0) / T.bind(T.sqrt(square)))

    def _total(self, mean: Expr | None, add: Callable[[Expr, Expr, int], Expr]) -> Expr:
        """LANES sums, added by halves: add(values, sums, lanes)."""
        sums, full, rest = local(LANES, "float32"), *divmod(self.count, LANES)
        if self.unit.float_lanes == 1:
            return self._single(sums, mean, add)
        sums.store(0, constant(0.0, "float32", LANES), LANES)

        def several(i: Expr) -> None:
            sums.store(0, add(self.less(mean, i * LANES, LANES), sums.load(0, LANES), LANES), LANES)

        loop(full, several)
        for i in range(rest):
            sums.store(i, add(self.less(mean, full * LANES + i, 1), sums.load(i), 1))
        return by_halves(T.bind(sums.load(0, LANES)), LANES, lambda a, b: a + b)

    def _single(self, sums: Flat, mean: Expr | None, add: Callable[[Expr, Expr, int], Expr]) -> Expr:
        """The same, one value at a time."""
        loop(LANES, lambda i: sums.store(i, constant(0.0, "float32")))

        def one(i: Expr) -> None:
            at = cast(T.floormod(i, LANES), "int32")
            sums.store(at, add(self.less(mean, i, 1), sums.load(at), 1))

        loop(self.count, one)
        half = LANES // 2
        while half:
            loop(half, lambda i, half=half: sums.store(i, sums.load(i) + sums.load(i + half)))  # type: ignore[misc]
            half //= 2
        return T.bind(sums.load(0))


@dataclass(frozen=True)
class RealRmsNorm(_RealNorm):
    """(x float32 [..., C], gamma float32 [C]) -> float32 [..., C]."""

    kind: ClassVar[str] = "real_rms_norm"
    without_rule: ClassVar[str] = "an RMS norm that stays in float"
    centered: ClassVar[bool] = False

    def reference(self, x, gamma) -> np.ndarray:
        return real_rms_norm(x, gamma, self.eps)


@dataclass(frozen=True)
class RealLayerNorm(_RealNorm):
    """(x float32 [..., C], gamma float32 [C], beta float32 [C]) -> float32 [..., C]."""

    kind: ClassVar[str] = "real_layer_norm"
    without_rule: ClassVar[str] = "a layer norm that stays in float"
    centered: ClassVar[bool] = True

    def reference(self, x, gamma, beta) -> np.ndarray:
        return real_layer_norm(x, gamma, beta, self.eps)
