"""Product of two activations by a dot-product instruction: the second is packed as weights are, at run time.

With a' = a + o, where o = 128 if the instruction takes unsigned activations and else 0,

    sum (a - za) (b - zb) = sum a' b  -  (za + o) sum b + K za zb  -  zb sum a

so the register tile adds up a' b, from a start that is the sum of a term per column and one per row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from hwptq.operators.matmul import MatMul
from hwptq.tir.builder import (
    TEMPLATE,
    Expr,
    Flat,
    cast,
    constant,
    local,
    loop,
    nest,
    primfunc,
    shuffle,
    spans,
    splat,
    start_of,
)
from hwptq.tir.kernel import PREVIOUS, Argument, Step, TensorType
from hwptq.tir.layout import Layout
from hwptq.tir.loops import broadcast_strides, row_major
from hwptq.tir.requantize import Bounds
from hwptq.tir.vector_unit import VectorUnit

from .choose_tile import fit
from .convolution import Convolution
from .mac import Mac
from .pack_input import Packing, pack_input
from .register_tile import Plan, accumulators, reduce_windows
from .store_tile import Output, store_tile
from .tiled import Tiling
from .vector_blocks import Turns, blocks
from .widen_channels import widen_channels

_OFFSETS = {"int8": 0, "int16": 0, "uint8": 128}  # o, by the dtype of the packed activations
_STEP = 16  # int8 values that are added up at once


def matmul_dot(
    op: MatMul, activations: Sequence[TensorType], out: TensorType, tiling: Tiling, unit: VectorUnit,
    choice: int = 0,
) -> tuple[Step, ...]:  # fmt: skip
    """The steps of a MatMul: a packed where needed, b packed, terms of columns and rows, the product."""
    a, b = activations
    mac, (m, depth), n = tiling.mac, a.shape[-2:], b.shape[-1]
    k = -(-depth // mac.k) * mac.k if mac.aligned else depth
    wide = widen_channels(a, k, unit) if k > depth else None
    left = wide.out if wide else a
    conv = Convolution(1, (1, m), k, (1, m), n, (1, 1), (1, 1), (1, 1))
    tile = fit(conv, mac, tiling.tile, tiling.dense_vectors, choice=choice)
    plan = Plan(conv, mac, tile)
    packed_a = pack_input(Packing(left, Layout(dtype=mac.activation, slack=mac.slack(k)), unit))
    if wide and packed_a:
        packed_a = replace(packed_a, args=(PREVIOUS,))
    packed_b = _pack(b, plan, unit)
    terms = [packed_b, _column_terms(op, depth, packed_b.out, plan), _row_terms(op, a, mac, unit)]
    before = [*(step for step in (wide, packed_a) if step), *terms]
    channels = plan.vectors * mac.lanes
    scales = [np.full(channels, v, np.int32) for v in (op.multiplier, op.shift)]
    sources: list[Argument] = [-4 if wide or packed_a else 0, -3, -2, -1]
    types = [packed_a.out if packed_a else left, *(step.out for step in terms)]
    types += [TensorType(s.shape, "int32") for s in scales]
    body = _emit(op, plan, (left, b), out, unit)
    func = primfunc([*types, out], {TEMPLATE: "matmul_dot_product"}, body)
    return (*before, Step(func, (*sources, *scales), out, "matmul_dot_product"))


def fits(activations: Sequence[TensorType], mac: Mac, unit: VectorUnit) -> bool:
    """Whether the kernel takes these operands: matrices whose second one has as many columns as lanes.

    It may have fewer where whole vectors can be read behind a row, and stored through masks.
    """
    columns = activations[1].shape[-1]
    return min(len(t.shape) for t in activations) >= 2 and (columns >= mac.lanes or unit.masked)


def _first_column(v: Expr, plan: Plan) -> Expr:
    """The first column of vector v: see pack_weights.channels_of."""
    return start_of(v, plan.mac.lanes, plan.conv.co) if plan.conv.co >= plan.mac.lanes else 0


def _pack(b: TensorType, plan: Plan, unit: VectorUnit) -> Step:
    """b int8 [..., K, N] -> int8 [batch * vectors * groups, lanes * k], in the order of pack_weights."""
    k, n = b.shape[-2:]
    mac, batch = plan.mac, prod(b.shape[:-2])
    width, groups = mac.lanes * mac.k, mac.groups_of(k)
    loaded = max(mac.lanes, unit.lanes) if unit.masked else mac.lanes  # more than used, if readable
    order = [r * loaded + lane for lane in range(mac.lanes) for r in range(mac.k)]

    def emit(source: Flat, packed: Flat) -> None:
        def operand(matrix: Expr, v0: Expr, vectors: int, g: Expr, real: int) -> None:
            """Group g, of which `real` rows exist, for each vector of a block."""
            for j in range(vectors):
                column = _first_column(v0 + j, plan)
                rows = [
                    T.bind(source.load((matrix * k + g * mac.k + r) * n + column, loaded))
                    if r < real
                    else constant(0, "int8", loaded)
                    for r in range(mac.k)
                ]
                row = (matrix * plan.vectors + v0) * groups + g * vectors + j
                packed.store(row * width, shuffle(rows, order), width)

        def block(matrix: Expr, v0: Expr, vectors: int) -> None:
            whole, rest = divmod(k, mac.k)
            if whole:
                loop(whole, lambda g: operand(matrix, v0, vectors, g, mac.k))
            if rest:
                operand(matrix, v0, vectors, whole, rest)

        for first, count, vectors in blocks(plan.vectors, plan.tile.vectors):
            nest(
                (batch, count),
                lambda matrix, c, first=first, vectors=vectors: block(matrix, first + c * vectors, vectors),
            )

    out = TensorType((batch * plan.vectors * groups, width), "int8")
    return Step(primfunc([b, out], {TEMPLATE: "pack_matrix"}, emit), (1,), out, "pack_matrix")


def _column_terms(op: MatMul, k: int, packed: TensorType, plan: Plan) -> Step:
    """Packed b, K = `k` rows -> K za zb - (za + o) * sum over K, int32 [batch, vectors * lanes].

    The instruction adds up: it multiplies by ones.
    """
    mac, groups = plan.mac, plan.mac.groups_of(k)
    lanes, width = mac.lanes, mac.lanes * mac.k
    batch = packed.shape[0] // (plan.vectors * groups)
    factor = op.a_zero_point + _OFFSETS[mac.activation]

    def emit(source: Flat, terms: Flat) -> None:
        ones = T.bind(mac.pick([constant(1, mac.activation, mac.k)], 0, 1))

        def vector(matrix: Expr, v0: Expr, vectors: int, j: Expr) -> None:
            acc = local(lanes, "int32")
            acc.store(0, constant(0, "int32", lanes), lanes)
            first = (matrix * plan.vectors + v0) * groups + j

            def add(g: Expr) -> None:
                operand = cast(source.load((first + g * vectors) * width, width), mac.weight, width)
                acc.store(0, mac.accumulate(acc.load(0, lanes), ones, operand), lanes)

            loop(groups, add)
            scaled = acc.load(0, lanes) * constant(-factor, "int32", lanes)
            term = scaled + constant(k * op.a_zero_point * op.b_zero_point, "int32", lanes)
            terms.store((matrix * plan.vectors + v0 + j) * lanes, term, lanes)

        for first, count, vectors in blocks(plan.vectors, plan.tile.vectors):
            nest(
                (batch, count, vectors),
                lambda b, c, j, first=first, size=vectors: vector(b, first + c * size, size, j),
            )

    out = TensorType((batch, plan.vectors * lanes), "int32")
    return Step(primfunc([packed, out], {TEMPLATE: "column_terms"}, emit), (PREVIOUS,), out, "column_terms")


def _row_terms(op: MatMul, a: TensorType, mac: Mac, unit: VectorUnit) -> Step:
    """a int8 [..., M, K] -> - zb * sum over K, int32 [batch * M]."""
    rows, k = prod(a.shape[:-1]), a.shape[-1]
    total_of = _sum_of_vectors(mac) if unit.masked else _sum_of_steps

    def emit(source: Flat, terms: Flat) -> None:
        loop(rows, lambda i: terms.store(i, total_of(source, i * k, k) * constant(-op.b_zero_point, "int32")))

    out = TensorType((rows,), "int32")
    return Step(primfunc([a, out], {TEMPLATE: "row_terms"}, emit), (0,), out, "row_terms")


def _sum_of_steps(source: Flat, first: Expr, count: int) -> Expr:
    """The sum of `count` int8 values, _STEP at once."""
    full, rest = divmod(count, _STEP)
    parts, total = local(_STEP, "int32"), local(1, "int32")
    parts.store(0, constant(0, "int32", _STEP), _STEP)
    total.store(0, constant(0, "int32"))

    def add(j: Expr) -> None:
        value = cast(source.load(first + j * _STEP, _STEP), "int32", _STEP)
        parts.store(0, parts.load(0, _STEP) + value, _STEP)

    if full:
        loop(full, add)
        total.store(0, _lane_sum(parts.load(0, _STEP), _STEP))
    for j in range(rest):
        value = cast(source.load(first + full * _STEP + j), "int32")
        total.store(0, total.load(0) + value)
    return total.load(0)


def _sum_of_vectors(mac: Mac) -> Callable[[Flat, Expr, int], Expr]:
    """The same by whole vectors, which the instruction multiplies by ones."""
    lanes, width = mac.lanes, mac.lanes * mac.k

    def total(source: Flat, first: Expr, count: int) -> Expr:
        ones = mac.pick([constant(1, mac.activation, mac.k)], 0, 1)
        parts = local(lanes, "int32")
        parts.store(0, constant(0, "int32", lanes), lanes)

        def add(at: Expr, real: int) -> None:
            value = source.load(first + at, width)
            if real < width:
                inside = T.ramp(tirx.const(0, "int32"), 1, width) < constant(real, "int32", width)
                value = T.Select(inside, value, constant(0, "int8", width))
            operand = cast(value, mac.weight, width)
            parts.store(0, mac.accumulate(parts.load(0, lanes), ones, operand), lanes)

        spans(count, width, lambda at, _, real: add(at, real), masked=True)
        return _lane_sum(parts.load(0, lanes), lanes)

    return total


def _lane_sum(value: Expr, lanes: int) -> Expr:
    return T.call_llvm_pure_intrin("int32", f"llvm.vector.reduce.add.v{lanes}i32", value)


def _emit(
    op: MatMul, plan: Plan, activations: Sequence[TensorType], out: TensorType, unit: VectorUnit
) -> Callable[..., None]:
    """Code of (a packed, b packed, column terms, row terms, multiplier, shift, y)."""
    batch = out.shape[:-2]
    steps = [broadcast_strides(t.shape[:-2], batch) for t in activations] + [row_major(batch)]
    (m, k), n, size = activations[0].shape[-2:], out.shape[-1], plan.tile.pixels
    bounds = Bounds(op.out_zero_point, op.lo, op.hi, dtype=op.out, rounding=op.rounding)
    output = Output(n, plan.mac.lanes, bounds, whole=plan.tile.vectors >= plan.vectors)
    channels, matrix_rows = plan.vectors * plan.mac.lanes, plan.vectors * plan.stored_rows
    width = plan.mac.lanes * plan.mac.k

    def emit(a: Flat, b: Flat, columns: Flat, rows: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
        def matrices(*index: Expr) -> None:
            ia, ib, iy = (sum(i * s for i, s in zip(index, step, strict=True)) for step in steps)
            weight, start = b.behind(ib * matrix_rows * width), columns.behind(ib * channels)

            def tile(v0: Expr, vectors: int, t: Expr) -> None:
                first = start_of(t, size, m)
                acc = accumulators(plan.mac, size, vectors, start, v0)
                lanes = plan.mac.lanes
                for i, line in enumerate(acc):
                    term = T.bind(splat(rows.load(ia * m + first + i), lanes))
                    for cell in line:
                        cell.store(0, cell.load(0, lanes) + term, lanes)
                sources = [(ia * m + first + i) * k for i in range(size)]
                reduce_windows(plan, acc, a, sources, weight, Turns(v0, vectors))
                pixels = [(iy * m + first + i) * n for i in range(size)]
                values = [[cell.load(0, lanes) for cell in line] for line in acc]
                store_tile(values, (multiplier, shift), y, pixels, v0, output, unit)

            for first, count, vectors in blocks(plan.vectors, plan.tile.vectors):
                nest(
                    (count, -(-m // size)),
                    lambda c, t, first=first, vectors=vectors: tile(first + c * vectors, vectors, t),
                )

        nest(batch, matrices)

    return emit
