"""The code of attention: a few queries that share keys and values at a time, over what they see.

What is computed says quant/float_attention.py. Keys are read once for the queries of a step, in blocks of
LANES positions, and values once more, from the block of the first position that is shown to the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tvm.script.ir_builder import tirx as T

from hwptq.quant.float_attention import LANES

from .builder import Expr, Flat, cast, constant, exact_float32, local, loop, share, splat, unravel, workspace
from .float_steps import exponential, fma
from .halves import by_halves
from .vector_unit import VectorUnit

_QUERIES = 4  # that share what is read of keys and values, at most
_REGISTERS = 8  # vectors of sums of values at once, at most
_UNROLLED = 4  # positions of values in the body of a loop
_LOWEST = float("-inf")


@dataclass(frozen=True)
class Form:
    """Sizes: q [batch, heads, rows, depth], keys [batch, shared, positions, depth], values as those but of
    `width`, what hides [batch or 1, rows or 1, positions]. factor: of scores; empties: rows that are hidden
    whole are zeros."""

    batch: int
    heads: int
    shared: int
    rows: int
    positions: int
    depth: int
    width: int
    masks: tuple[int, int]
    factor: float
    empties: bool

    @property
    def queries(self) -> tuple[int, int]:
        """(heads, rows) that are computed at a time."""
        serves = self.heads // self.shared
        heads = max(n for n in range(1, _QUERIES + 1) if serves % n == 0)
        return heads, max(n for n in range(1, _QUERIES // heads + 1) if self.rows % n == 0)

    def block(self, unit: VectorUnit) -> int:
        """How many positions are scored at once, and elements added: LANES, or one by one."""
        whole = self.depth % LANES == 0 and self.width % LANES == 0 and self.positions >= LANES
        return LANES if unit.float_lanes > 1 and whole else 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.batch * self.heads * self.rows * self.positions * (self.depth + self.width)


class Tensors(Protocol):
    """The queries, keys and values of an attention, in whatever form they are."""

    def scores(self, form: Form, queries: Sequence[Expr], keys: Expr, block: int) -> Scores:
        """What computes scores of `block` positions, of the rows of q and from the first row of keys given;
        it may load the queries now."""

    def factor(self, query: Expr, factor: float) -> Expr:
        """What scores of a query are multiplied by, with the form's factor."""

    @property
    def scaled(self) -> bool:
        """Whether rows of values have scales."""

    def value_scales(self, row: Expr, lanes: int) -> Expr:
        """The scales of rows of values from one on."""

    def values(self, at: Expr, lanes: int) -> Expr:
        """Elements of values, float32."""


#: position of the first of a block -> the scores of each query, a vector each, without the form's factor.
Scores = Callable[[Expr], list[Expr]]


def emit_attention(form: Form, tensors: Tensors, hidden: Flat, y: Flat, unit: VectorUnit) -> None:
    """Threads share the queries."""
    heads, rows = form.queries
    extents = (form.batch, form.shared, form.heads // form.shared // heads, form.rows // rows)
    steps = extents[0] * extents[1] * extents[2] * extents[3]

    def part(first: Expr, count: Expr) -> None:
        size, many = _padded(form.positions), heads * rows
        held = [workspace(size, "float32") for _ in range(many)]
        shares = [workspace(size, "float32") for _ in range(many)] if tensors.scaled else held

        def step(i: Expr) -> None:
            b, g, h, t = unravel(first + i, extents)
            head = (b * form.shared + g) * (form.heads // form.shared) + h * heads
            lines = [t * rows + r for r in range(rows)]
            queries = [(head + n) * form.rows + line for n in range(heads) for line in lines]
            masks, of_rows = form.masks
            told = [
                ((b if masks > 1 else 0) * of_rows + (line if of_rows > 1 else 0)) * form.positions
                for line in lines
            ]
            _Step(form, tensors, hidden, y, unit, held, shares).emit(queries, (b * form.shared + g), told)

        loop(count, step)

    share(steps, unit.shared(form.macs), part)


def _padded(positions: int) -> int:
    return -(-positions // LANES) * LANES


@dataclass(frozen=True)
class _Seen:
    """What hides of a row of queries is at `at`. none: whether nothing is shown, and so everything counts."""

    at: Expr
    none: Expr


class _Step:
    """Some queries on the same keys."""

    def __init__(
        self, form: Form, tensors: Tensors, hidden: Flat, y: Flat, unit: VectorUnit, held: list[Flat],
        shares: list[Flat],
    ):  # fmt: skip
        self.form, self.tensors, self.hidden, self.y, self.unit = form, tensors, hidden, y, unit
        self.held, self.shares = held, shares  # scores and then exponentials of each query; times scales
        self.block = form.block(unit)

    def emit(self, queries: Sequence[Expr], shared: Expr, told: Sequence[Expr]) -> None:
        """queries: rows of q and y; shared: number of the keys; told: rows of what hides, one for each row of
        a head."""
        form = self.form
        begin, end, seen = self._extent(told)
        keys = shared * form.positions
        of_query = [seen[n % len(told)] for n in range(len(queries))]
        self._score(begin, end, queries, keys, of_query)
        wholes = [self._weigh(begin, end, keys, n, s) for n, s in enumerate(of_query)]
        self._mix(begin, end, queries, keys, wholes)

    def _extent(self, told: Sequence[Expr]) -> tuple[Expr, Expr, list[_Seen]]:
        """The blocks from `begin` up to `end` that hold all that is shown, and what of them is."""
        form, ends, seen = self.form, local(2, "int32"), []
        ends.store(0, constant(form.positions, "int32"))
        ends.store(1, constant(-1, "int32"))
        width, last = self.block, form.positions - 1
        for at in told:
            found = [local(width, "int32") for _ in range(2)]
            for held, start in zip(found, (last + 1, -1), strict=True):
                held.store(0, constant(start, "int32", width), width)

            def look(j: Expr, at: Expr = at, found: list[Flat] = found) -> None:
                number = T.ramp(j, 1, width) if width > 1 else j
                shown = self.hidden.load(at + j, width) == constant(0, self.hidden.dtype, width)
                for held, join, absent in zip(found, (T.min, T.max), (last + 1, -1), strict=True):
                    place = T.Select(shown, number, constant(absent, "int32", width))
                    held.store(0, join(held.load(0, width), place), width)

            self._blocks(0, form.positions, look)
            low, high = (
                by_halves(held.load(0, width), width, join)
                for held, join in zip(found, (T.min, T.max), strict=True)
            )
            none = T.bind(cast(high < 0, "int32"))
            seen.append(_Seen(at, none))
            ends.store(0, T.min(ends.load(0), T.Select(none > 0, 0, low)))
            ends.store(1, T.max(ends.load(1), T.Select(none > 0, last, high)))
        begin = T.bind(T.floordiv(ends.load(0), LANES) * LANES)
        return begin, T.bind(T.min(ends.load(1) + 1, form.positions)), seen

    def _blocks(self, begin: Expr, end: Expr, body: Callable[[Expr], None]) -> None:
        """body(position) for blocks that cover `begin` to `end`; the last of all overlaps the one before."""
        last = self.form.positions - self.block
        count = T.floordiv(end - begin + (self.block - 1), self.block)
        loop(count, lambda i: body(T.bind(T.min(begin + i * self.block, last))))

    def _score(
        self, begin: Expr, end: Expr, queries: Sequence[Expr], keys: Expr, seen: Sequence[_Seen]
    ) -> None:
        """What is hidden has a score of -inf, as has what stands behind the last position."""
        width, total, form = self.block, _padded(self.form.positions), self.form
        scores = self.tensors.scores(form, queries, keys, width)
        factors = [
            T.bind(T.Select(of.none > 0, constant(0.0, "float32"), self.tensors.factor(query, form.factor)))
            for query, of in zip(queries, seen, strict=True)
        ]
        for held in self.held:
            for at in range(total - LANES, total, width):
                held.store(at, _number(_LOWEST, width), width)

        def block(j: Expr) -> None:
            for held, value, of, factor in zip(self.held, scores(j), seen, factors, strict=True):
                hides = self.hidden.load(of.at + j, width) != constant(0, self.hidden.dtype, width)
                counts = cast(hides, "int32", width) == splat(of.none, width)
                scaled = T.bind(value * splat(factor, width))
                held.store(j, T.Select(counts, scaled, _number(_LOWEST, width)), width)

        self._blocks(begin, end, block)

    def _weigh(self, begin: Expr, end: Expr, keys: Expr, number: int, seen: _Seen) -> Expr:
        """Shares of a query's values instead of its scores; what the sums of these are multiplied by."""
        width, held, shares = self.block, self.held[number], self.shares[number]
        count = T.floordiv(end - begin + (width - 1), width)
        most, total = local(width, "float32"), local(LANES, "float32")
        most.store(0, _number(_LOWEST, width), width)
        for lane in range(0, LANES, width):
            total.store(lane, constant(0.0, "float32", width), width)

        def largest(i: Expr) -> None:
            most.store(0, T.max(most.load(0, width), held.load(begin + i * width, width)), width)

        loop(count, largest)
        top = T.bind(by_halves(most.load(0, width), width, T.max))

        def weigh(i: Expr) -> None:
            at = T.bind(begin + i * width)
            score = T.bind(held.load(at, width))
            e = exponential(T.bind(score - splat(top, width)), width)
            hidden = score == _number(_LOWEST, width)
            e = T.bind(T.Select(hidden, constant(0.0, "float32", width), e))
            lane = 0 if width == LANES else T.floormod(i, LANES)
            total.store(lane, total.load(lane, width) + e, width)
            held.store(at, e, width)

        loop(count, weigh)
        if shares is not held:
            self._blocks(begin, end, lambda j: self._scale(held, shares, keys, j))
        sums = [total.load(lane, width) for lane in range(0, LANES, width)]
        while len(sums) > 1:  # of single lanes
            half = len(sums) // 2
            sums = [a + b for a, b in zip(sums[:half], sums[half:], strict=True)]
        whole = T.bind(exact_float32(1.0) / by_halves(sums[0], width, lambda a, b: a + b))
        return (
            T.bind(T.Select(seen.none > 0, constant(0.0, "float32"), whole)) if self.form.empties else whole
        )

    def _scale(self, held: Flat, shares: Flat, keys: Expr, j: Expr) -> None:
        width = self.block
        scaled = held.load(j, width) * self.tensors.value_scales(keys + j, width)
        shares.store(j, scaled, width)

    def _mix(
        self, begin: Expr, end: Expr, queries: Sequence[Expr], keys: Expr, wholes: Sequence[Expr]
    ) -> None:
        """The sums of values, times `wholes`."""
        form, width = self.form, self.block
        per_vector = max(1, width // self.unit.float_lanes)
        many = max(1, _REGISTERS // (len(queries) * per_vector)) if width > 1 else 1
        vectors = form.width // width
        for first in range(0, vectors, many) if width > 1 else ():
            places = [v * width for v in range(first, min(first + many, vectors))]
            self._mix_vectors(begin, end, queries, keys, wholes, places)
        if width == 1:
            loop(form.width, lambda e: self._mix_vectors(begin, end, queries, keys, wholes, [e]))

    def _mix_vectors(
        self, begin: Expr, end: Expr, queries: Sequence[Expr], keys: Expr, wholes: Sequence[Expr],
        places: Sequence[Expr],
    ) -> None:  # fmt: skip
        """Those of vectors at `places` of a row."""
        width, size = self.block, self.form.width
        sums = [[local(width, "float32") for _ in places] for _ in queries]
        for line in sums:
            for cell in line:
                cell.store(0, constant(0.0, "float32", width), width)

        def add(j: Expr) -> None:
            factors = [T.bind(splat(shares.load(j), width)) for shares in self.shares]
            for v, place in enumerate(places):
                value = T.bind(self.tensors.values((keys + j) * size + place, width))
                for line, factor in zip(sums, factors, strict=True):
                    line[v].store(0, fma(factor, value, line[v].load(0, width), width), width)

        def several(i: Expr) -> None:
            for n in range(_UNROLLED):
                add(T.bind(begin + (i * _UNROLLED + n)))

        whole = T.bind(T.floordiv(end - begin, _UNROLLED))
        loop(whole, several)
        loop(end - begin - whole * _UNROLLED, lambda i: add(T.bind(begin + (whole * _UNROLLED + i))))
        for query, line, factor in zip(queries, sums, wholes, strict=True):
            for cell, place in zip(line, places, strict=True):
                value = fma(cell.load(0, width), splat(factor, width), constant(0.0, "float32", width), width)
                self.y.store(query * size + place, value, width)


def _number(value: float, lanes: int) -> Expr:
    """A float32 given by its bits in every lane."""
    return splat(exact_float32(value), lanes)
