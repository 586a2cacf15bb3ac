"""Attention in float32: scores, softmax and mean of values as one operator, on floats or on codes of rows.

What is computed, in which order, says quant/float_attention.py. Heads of keys and values serve as many heads
of queries each as there are more of those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.operator import Hiding, Operator, Shape
from hwptq.quant.float_attention import LANES, real_scores, weighted_rows
from hwptq.quant.integer_sums import exact_matmul
from hwptq.tir.attention_loops import Form, Scores, emit_attention
from hwptq.tir.builder import Expr, Flat, cast, constant, exact_float32, local, loop
from hwptq.tir.float_steps import fma
from hwptq.tir.halves import joint_sums
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit

_MASK = 3  # the activation that hides positions


@dataclass(frozen=True)
class _Attention(Operator):
    """factor: of the scores; empties: rows that are hidden whole become zeros, else the mean of all.

    of_queries: activations behind the mask that have a value for each row of queries.
    """

    of_queries: ClassVar[tuple[int, ...]] = ()
    without_rule: ClassVar[str] = "attention in float, found behind the rules of its parts"
    factor: float
    empties: bool

    def element_by_element(self, unit: VectorUnit) -> bool:
        return unit.float_lanes == 1

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        """Rows of queries, and of what belongs to them."""
        own = (0, _MASK, *self.of_queries)
        return tuple(-2 if i in own else None for i in range(self.activations)) if axis == -2 else None

    @property
    def hides(self) -> Hiding:
        """Positions of keys and values, and of what belongs to these."""
        own = (0, _MASK, *self.of_queries)
        return Hiding(_MASK, {i: -2 for i in range(self.activations) if i not in own})


def _form(op: _Attention, inputs: Sequence[Shape], out: Shape) -> Form:
    (batch, heads, rows, depth), keys, _, hidden = inputs[:4]
    masks = hidden[0], hidden[2]
    return Form(
        batch, heads, keys[1], rows, keys[2], depth, out[3], masks, float(np.float32(op.factor)), op.empties
    )


def _shared(x: np.ndarray, heads: int) -> np.ndarray:
    """[B,G,S,D] -> [B,heads,S,D]."""
    return np.repeat(x, heads // x.shape[1], axis=1)


@dataclass(frozen=True)
class Attention(_Attention):
    """(q float32 [B,H,T,D], k float32 [B,G,S,D], v float32 [B,G,S,E], hidden int8 [B or 1,1,T or 1,S]: not 0
    where a position counts for nothing) -> float32 [B,H,T,E]. H is a multiple of G."""

    kind: ClassVar[str] = "attention"
    in_float: ClassVar[bool] = True

    @property
    def activations(self) -> int:
        return 4

    def reference(self, q, k, v, hidden) -> np.ndarray:
        k, v = (_shared(x, q.shape[1]) for x in (k, v))
        scores = real_scores(q, k) * np.float32(self.factor)
        return weighted_rows(scores, np.broadcast_to(hidden != 0, scores.shape), self.empties, v)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        form = _form(self, [t.shape for t in inputs], out.shape)

        def emit(q: Flat, k: Flat, v: Flat, hidden: Flat, y: Flat) -> None:
            emit_attention(form, _Reals(q, k, v), hidden, y, unit)

        return emit


@dataclass(frozen=True)
class AttentionOnRows(_Attention):
    """(q int8 [B,H,T,D], k int8 [B,G,S,D], v int8 [B,G,S,E], hidden int8 as Attention has it, scales of the
    rows of q [B,H,T,1], of k [B,G,S,1] and of v [B,G,S,1], float32) -> float32 [B,H,T,E].

    Codes within ±127. A score is (float32(sum of q * k) * scale of k) * (scale of q * factor), the share of a
    row of values e * its scale.
    """

    kind: ClassVar[str] = "attention_on_rows"
    held: ClassVar[str] = "int8"  # of the codes
    of_queries: ClassVar[tuple[int, ...]] = (4,)

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Those of the scores: values are multiplied in float."""
        (batch, heads, rows, depth), keys = inputs[:2]
        return batch * heads * rows * keys[2] * depth

    @property
    def activations(self) -> int:
        return 7

    def reference(self, q, k, v, hidden, q_scale, k_scale, v_scale) -> np.ndarray:
        k, v, k_scale, v_scale = (_shared(x, q.shape[1]) for x in (k, v, k_scale, v_scale))
        sums = exact_matmul(q, np.swapaxes(k, -1, -2), 2**14).astype(np.float32)
        scores = (sums * np.swapaxes(k_scale, -1, -2)) * (q_scale * np.float32(self.factor))
        hidden = np.broadcast_to(hidden != 0, scores.shape)
        return weighted_rows(scores, hidden, self.empties, v.astype(np.float32), v_scale[..., 0])

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        form = _form(self, [t.shape for t in inputs], out.shape)

        def emit(q: Flat, k: Flat, v: Flat, hidden: Flat, *rest: Flat) -> None:
            *scales, y = rest
            emit_attention(form, _Codes(q, k, v, *scales), hidden, y, unit)

        return emit


@dataclass(frozen=True)
class _Reals:
    """Tensors of float32."""

    q: Flat
    k: Flat
    v: Flat

    def scores(self, form: Form, queries: Sequence[Expr], keys: Expr, block: int) -> Scores:
        depth = form.depth
        if block == 1:
            return lambda j: [self._one(depth, query * depth, (keys + j) * depth) for query in queries]
        parts = range(0, depth, LANES)
        loaded = [[T.bind(self.q.load(query * depth + at, LANES)) for at in parts] for query in queries]

        def of_block(j: Expr) -> list[Expr]:
            sums: list[list[Expr]] = [[] for _ in queries]
            for n in range(LANES):
                row = T.bind((keys + j + n) * depth)
                of_key = [T.bind(self.k.load(row + at, LANES)) for at in parts]
                for mine, query in zip(sums, loaded, strict=True):
                    total = constant(0.0, "float32", LANES)
                    for a, b in zip(query, of_key, strict=True):
                        total = T.bind(fma(a, b, total, LANES))
                    mine.append(total)
            return [joint_sums(mine) for mine in sums]

        return of_block

    def _one(self, depth: int, q: Expr, k: Expr) -> Expr:
        """One score, by LANES sums of single products."""
        sums = local(LANES, "float32")
        loop(LANES, lambda i: sums.store(i, constant(0.0, "float32")))

        def some(at: Expr, count: int) -> None:
            def step(i: Expr) -> None:
                product = self.q.load(q + at + i), self.k.load(k + at + i)
                sums.store(i, fma(*product, sums.load(i), 1))

            loop(count, step)

        loop(depth // LANES, lambda c: some(c * LANES, LANES))
        if depth % LANES:
            some(depth // LANES * LANES, depth % LANES)
        half = LANES // 2
        while half:
            _add(sums, half)
            half //= 2
        return T.bind(sums.load(0))

    @property
    def scaled(self) -> bool:
        return False

    def factor(self, query: Expr, factor: float) -> Expr:
        return exact_float32(factor)

    def value_scales(self, row: Expr, lanes: int) -> Expr:
        raise NotImplementedError("values in float32 have no scales")

    def values(self, at: Expr, lanes: int) -> Expr:
        return self.v.load(at, lanes)


def _add(sums: Flat, half: int) -> None:
    """The second `half` of sums to the first."""
    loop(half, lambda i: sums.store(i, sums.load(i) + sums.load(i + half)))


@dataclass(frozen=True)
class _Codes:
    """Tensors of int8 with a scale for each row."""

    q: Flat
    k: Flat
    v: Flat
    q_scale: Flat
    k_scale: Flat
    v_scale: Flat

    def scores(self, form: Form, queries: Sequence[Expr], keys: Expr, block: int) -> Scores:
        sums = self._joint(form, queries, keys) if block > 1 else self._single(form, queries, keys)

        def of_block(j: Expr) -> list[Expr]:
            scale = T.bind(self.k_scale.load(keys + j, block))
            return [T.bind(cast(total, "float32", block) * scale) for total in sums(j)]

        return of_block

    @property
    def scaled(self) -> bool:
        return True

    def factor(self, query: Expr, factor: float) -> Expr:
        return self.q_scale.load(query) * exact_float32(factor)

    def _single(self, form: Form, queries: Sequence[Expr], keys: Expr) -> Scores:
        def one(query: Expr, j: Expr) -> Expr:
            total = local(1, "int32")
            total.store(0, constant(0, "int32"))

            def step(i: Expr) -> None:
                a = cast(self.q.load(query * form.depth + i), "int32")
                b = cast(self.k.load((keys + j) * form.depth + i), "int32")
                total.store(0, total.load(0) + a * b)

            loop(form.depth, step)
            return T.bind(total.load(0))

        return lambda j: [one(query, j) for query in queries]

    def _joint(self, form: Form, queries: Sequence[Expr], keys: Expr) -> Scores:
        """Two products of codes within ±127 fit an int16."""
        depth, parts = form.depth, range(0, form.depth, LANES)
        loaded = [
            [T.bind(cast(self.q.load(query * depth + at, LANES), "int16", LANES)) for at in parts]
            for query in queries
        ]

        def dot(query: Sequence[Any], key: Sequence[Any]) -> Expr:
            total = None
            for first in range(0, len(query), 2):
                pair = zip(query[first : first + 2], key[first : first + 2], strict=True)
                short = [a * b for a, b in pair]
                wide = cast(short[0] + short[1] if len(short) > 1 else short[0], "int32", LANES)
                total = wide if total is None else total + wide
            return T.bind(total)

        def of_block(j: Expr) -> list[Expr]:
            sums: list[list[Expr]] = [[] for _ in queries]
            for n in range(LANES):
                row = T.bind((keys + j + n) * depth)
                key = [T.bind(cast(self.k.load(row + at, LANES), "int16", LANES)) for at in parts]
                for mine, query in zip(sums, loaded, strict=True):
                    mine.append(dot(query, key))
            return [joint_sums(mine) for mine in sums]

        return of_block

    def value_scales(self, row: Expr, lanes: int) -> Expr:
        return self.v_scale.load(row, lanes)

    def values(self, at: Expr, lanes: int) -> Expr:
        return cast(cast(self.v.load(at, lanes), "int32", lanes), "float32", lanes)
