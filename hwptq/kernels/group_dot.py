"""Dense layers by weights with a scale for each group of inputs, by a dot-product instruction.

A tile of tokens x vectors of channels has two sets of registers: the int32 sums of a group, and the float32
that they are added to by an fma, times the scales, at the end of the group. Codes are unpacked once for all
tokens of a tile. An instruction of an unsigned operand takes the weights as that one, one of signed bytes
takes codes of less than 8 bits so too: a code is the level less the lowest one, and the sums of a group begin
with lowest * (sum of the activations). With zeros it is (lowest - zero) * that sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from tvm.script.ir_builder import tirx as T

from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.quant.group_codes import group_count
from hwptq.tir.builder import (
    TEMPLATE,
    Expr,
    Flat,
    Part,
    cast,
    constant,
    dtype_of,
    in_parts,
    local,
    loop,
    nest,
    powers,
    primfunc,
    splat,
    start_of,
)
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import Layout
from hwptq.tir.packed_codes import short_scale
from hwptq.tir.vector_unit import VectorUnit

from .layer import Layer
from .mac import Mac
from .pack_codes import Unit, codes_above, levels_of, pack_codes, pack_group_scales, unit_of_bits
from .pack_input import Packing, pack_input
from .pack_weights import vector_count
from .register_tile import Tile
from .vector_blocks import Turns, blocks, each_block, even

_NAME = "group_dot_product"


@dataclass(frozen=True)
class GroupPlan:
    """A layer with the instruction and tile that compute it; unsigned: weights as levels less the lowest."""

    op: GroupDense
    tokens: int
    channels: int
    mac: Mac
    tile: Tile
    unsigned: bool
    together: int  # vectors whose codes are packed together

    @property
    def vectors(self) -> int:
        """Vectors of output channels."""
        return vector_count(self.channels, self.mac.lanes)

    @property
    def unit(self) -> Unit:
        """How codes share bytes."""
        found = unit_of_bits(self.op.weight_bits)
        assert found is not None  # the template has asked
        return found

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return group_count(self.op.depth, self.op.size)

    @property
    def levels(self) -> list[int]:
        """Lowest first."""
        return levels_of(self.op.weight)

    @property
    def width(self) -> int:
        """Weights of an operand."""
        return self.mac.lanes * self.mac.k


def takes_groups(layer: Layer, mac: Mac) -> bool:
    """Whether rows are packed for the kernel: a vector of them at least, groups of whole units; of a table
    without zeros."""
    op = layer.op
    assert isinstance(op, GroupDense | GroupEmbedding)
    unit = unit_of_bits(op.weight_bits)
    if unit is None or mac.aligned or (len(layer.constants) > 2 and isinstance(op, GroupEmbedding)):
        return False
    whole = op.size % (unit.operands * mac.k) == 0 and op.depth % op.size == 0
    return whole and len(layer.constants[0]) >= mac.lanes


def group_dot(
    layer: Layer, mac: Mac, unsigned: bool, most: Tile, unit: VectorUnit, together: int = 0
) -> tuple[Step, ...]:
    """The steps of a GroupDense: activations in the dtype of the instruction, their sums where weights are
    `unsigned`, the product. `most`: the largest tile; together: vectors whose codes are packed together, 0 =
    those of a tile.
    """
    op, x, (codes, scales, *zeros) = layer.op, layer.activations[0], layer.constants
    assert isinstance(op, GroupDense)
    tokens, channels = prod(layer.out.shape[:-1]), layer.out.shape[-1]
    vectors = vector_count(channels, mac.lanes)
    together = min(together or most.vectors, vectors)
    tile = Tile(even(tokens, most.pixels), min(most.vectors, together))
    plan = GroupPlan(op, tokens, channels, mac, tile, unsigned, together)
    packed = pack_input(Packing(x, Layout(dtype=mac.activation), unit))
    read = packed.out if packed else x
    terms = _terms(plan, x, 1 if zeros else plan.levels[0]) if unsigned or zeros else None
    before = [step for step in (packed, terms) if step]
    arrays = (
        pack_codes(codes, op.weight, op.depth, mac.lanes, mac.k, together),
        *(pack_group_scales(of_groups, mac.lanes, together) for of_groups in (scales, *zeros)),
    )
    types = [read, *([terms.out] if terms else []), *(TensorType(a.shape, str(a.dtype)) for a in arrays)]
    func = primfunc([*types, layer.out], {TEMPLATE: _NAME}, _emit(plan, bool(terms), unit))
    sources = (-len(before) if packed else 0, *([-1] if terms else []))
    return (*before, Step(func, (*sources, *arrays), layer.out, f"{op.kind}_{_NAME}"))


def _terms(plan: GroupPlan, x: TensorType, factor: int) -> Step:
    """int8 x [..., K] -> the sum of each group, times a factor: int32 [tokens * groups]."""
    size, count = plan.op.size, plan.tokens * plan.groups

    def emit(source: Flat, terms: Flat) -> None:
        def group(i: Expr) -> None:
            values = cast(source.load(i * size, size), "int32", size)
            total = T.call_llvm_pure_intrin("int32", f"llvm.vector.reduce.add.v{size}i32", values)
            terms.store(i, total * constant(factor, "int32"))

        loop(count, group)

    out = TensorType((count,), "int32")
    return Step(primfunc([x, out], {TEMPLATE: "group_terms"}, emit), (0,), out, "group_terms")


def _emit(plan: GroupPlan, with_terms: bool, unit: VectorUnit) -> Callable[..., None]:
    """Code of (x, terms where there are any, codes, scales, zeros where there are any, y)."""
    size, lanes = plan.tile.pixels, plan.mac.lanes

    def emit(x: Flat, *rest: Flat) -> None:
        terms, (codes, scales, *zeros, y) = rest[:with_terms], rest[with_terms:]
        tensors = _Tensors(x, terms, codes, scales, zeros)

        def tile(turns: Turns, vectors: int, t: Expr) -> None:
            first, v0 = start_of(t, size, plan.tokens), turns.first + turns.at
            sums = [[local(lanes, "float32") for _ in range(vectors)] for _ in range(size)]
            for line in sums:
                for cell in line:
                    cell.store(0, constant(0.0, "float32", lanes), lanes)
            loop(plan.groups, lambda g: _group(plan, tensors, sums, first, turns, g))
            for i, line in enumerate(sums):
                for j, cell in enumerate(line):
                    channel = start_of(v0 + j, lanes, plan.channels)
                    y.store((first + i) * plan.channels + channel, cell.load(0, lanes), lanes)

        def part(own: Part) -> None:
            def block(v0: Expr, together: int) -> None:
                for at, several, vectors in blocks(together, plan.tile.vectors):
                    extents = several, -(-plan.tokens // size)

                    def one(i: Expr, t: Expr, at: int = at, vectors: int = vectors) -> None:
                        tile(Turns(v0, together, at + i * vectors), vectors, t)

                    nest(extents, one)

            each_block(own, plan.vectors, plan.together, block)

        work = unit.shared(plan.op.depth * plan.tokens * plan.channels)
        in_parts(plan.vectors // plan.together, work, part)

    return emit


@dataclass(frozen=True)
class _Tensors:
    """What a kernel reads; terms and zeros: one each, or none."""

    x: Flat
    terms: Sequence[Flat]
    codes: Flat
    scales: Flat
    zeros: Sequence[Flat]


def _starts(plan: GroupPlan, tensors: _Tensors, total: Expr, rows: list[Expr]) -> list[Expr]:
    """What the sums of a token begin with, for each vector, whose scales and zeros are at `rows`."""
    lanes, lowest = plan.mac.lanes, plan.levels[0] if plan.unsigned else 0
    if not tensors.zeros:
        return [T.bind(splat(total, lanes))] * len(rows)
    zeros = [cast(tensors.zeros[0].load(row, lanes), "int32", lanes) for row in rows]
    return [T.bind(splat(total, lanes) * (constant(lowest, "int32", lanes) - zero)) for zero in zeros]


def _group(
    plan: GroupPlan, tensors: _Tensors, sums: list[list[Flat]], first: Expr, turns: Turns, g: Expr
) -> None:
    """sums[token][vector] += float32(products of group g) * scales, by an fma."""
    x, codes = tensors.x, tensors.codes
    mac, lanes, vectors = plan.mac, plan.mac.lanes, len(sums[0])
    acc = [[local(lanes, "int32") for _ in range(vectors)] for _ in sums]
    place = turns.first * plan.groups + g * turns.size + turns.at
    rows = [(place + j) * lanes for j in range(vectors)]  # of scales and zeros
    for i, line in enumerate(acc):
        starts = [constant(0, "int32", lanes)] * vectors
        if tensors.terms:
            total = T.bind(tensors.terms[0].load((first + i) * plan.groups + g))
            starts = _starts(plan, tensors, total, rows)
        for cell, start in zip(line, starts, strict=True):
            cell.store(0, start, lanes)
    step = max(plan.unit.operands, mac.groups)  # operands whose activations are loaded at once
    step = step if plan.op.size % (step * mac.k) == 0 else plan.unit.operands
    per_group = plan.op.size // mac.k

    def products(n: Expr) -> None:
        operand = g * per_group + n * step
        at = T.floordiv(operand, plan.unit.operands)
        weights = _operands(plan, codes, turns, at, vectors, step // plan.unit.operands)
        done = 0
        for count in powers(step, mac.groups):
            begin = (operand + done) * mac.k
            loaded = [
                T.bind(x.load((first + i) * plan.op.depth + begin, count * mac.k)) for i in range(len(acc))
            ]
            for u in range(count):
                columns = weights(done + u)
                for i, line in enumerate(acc):
                    activation = mac.pick([loaded[i]], u, count)
                    for cell, weight in zip(line, columns, strict=True):
                        cell.store(0, mac.accumulate(cell.load(0, lanes), activation, weight), lanes)
            done += count

    loop(per_group // step, products)
    for j in range(vectors):
        scale = T.bind(short_scale(tensors.scales, rows[j], lanes))
        for line, totals in zip(acc, sums, strict=True):
            number = cast(line[j].load(0, lanes), "float32", lanes)
            product = number, scale, totals[j].load(0, lanes)
            value = T.call_llvm_pure_intrin(dtype_of("float32", lanes), "llvm.fma", *product)
            totals[j].store(0, value, lanes)


def _operands(
    plan: GroupPlan, codes: Flat, turns: Turns, at: Expr, vectors: int, units: int
) -> Callable[[int], list[Expr]]:
    """operand -> its weights for each vector of a block, from unit `at` on; `units` are loaded."""
    unit, width = plan.unit, plan.width
    steps = plan.op.depth // (plan.mac.k * unit.operands)
    first = turns.first * steps + turns.at
    rows = [
        [
            [
                T.bind(codes.load(((first + (at + n) * turns.size + j) * unit.rows + r) * width, width))
                for r in range(unit.rows)
            ]
            for j in range(vectors)
        ]
        for n in range(units)
    ]

    def operands(index: int) -> list[Expr]:
        number, place = divmod(index, unit.operands)
        return [_weights(plan, of_vector, place) for of_vector in rows[number]]

    return operands


def _weights(plan: GroupPlan, rows: list[Expr], index: int) -> Expr:
    """The operand `index` of a unit: levels, less the lowest where the instruction takes them unsigned."""
    width, mac = plan.width, plan.mac
    value = codes_above(plan.unit, rows, index, plan.levels, width)
    if plan.unsigned:
        return T.bind(T.reinterpret(dtype_of("int8", width), value))
    wide = cast(value, mac.weight, width)
    return T.bind(wide + constant(plan.levels[0], mac.weight, width))
