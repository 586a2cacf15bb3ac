"""Dense layers by weights with a scale for each group of inputs, by registers that hold matrices (AMX).

The codes of a vector of channels are unpacked once for all tokens, as rows of registers, levels less zeros.
The sums of a group leave the registers, and an fma adds them, times the scales, to the float32 of a token.
Several groups are on their way at a time, since a product takes long until its sums can be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.quant.group_codes import group_count
from hwptq.targets.templates.tile_registers import TileRegistersKernel
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
    primfunc,
    shuffle,
    start_of,
    workspace,
)
from hwptq.tir.float_steps import fma
from hwptq.tir.kernel import PREVIOUS, Step, TensorType
from hwptq.tir.layout import PLAIN
from hwptq.tir.packed_codes import short_scale
from hwptq.tir.vector_unit import VectorUnit

from .layer import Layer
from .pack_codes import Unit, codes_above, levels_of, pack_codes, pack_group_scales, unit_of_bits
from .pack_input import Packing, pack_input
from .pack_weights import vector_count
from .staggered import staggered
from .tile_instructions import K, clear, configure, move, multiply, release
from .vector_blocks import Turns, each_block, even

_NAME = "group_tile_registers"
_BYTE = 2**7


@dataclass(frozen=True)
class TileGroupPlan:
    """A layer of `tokens` x `channels`; the codes of `together` vectors of channels are packed in turns."""

    op: GroupDense
    kernel: TileRegistersKernel
    tokens: int
    channels: int
    together: int

    @property
    def lanes(self) -> int:
        """Channels of a vector."""
        return self.kernel.columns

    @property
    def width(self) -> int:
        """Bytes of a row of weights."""
        return self.lanes * K

    @property
    def rows(self) -> int:
        """Tokens of a register."""
        return even(self.tokens, self.kernel.rows)

    @property
    def chunk(self) -> int:
        """Inputs of a register."""
        return even(self.op.size, self.kernel.row_bytes)

    @property
    def groups(self) -> int:
        """Of a row."""
        return group_count(self.op.depth, self.op.size)

    @property
    def accumulators(self) -> int:
        """Groups on their way at a time: two registers each hold activations and weights."""
        return self.kernel.registers - 4

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(bytes of a row, rows) of each register: accumulators, activations, weights."""
        wide = self.kernel.row_bytes
        sums, activations = [(wide, self.rows)] * self.accumulators, [(self.chunk, self.rows)] * 2
        return [*sums, *activations, *[(wide, self.chunk // K)] * 2]

    @property
    def unit(self) -> Unit:
        """How codes share bytes."""
        found = unit_of_bits(self.op.weight_bits)
        assert found is not None  # the template has asked
        return found

    @property
    def vectors(self) -> int:
        """Vectors of channels."""
        return vector_count(self.channels, self.lanes)


def takes_tile_groups(
    op: GroupDense | GroupEmbedding, constants: Sequence[np.ndarray], kernel: TileRegistersKernel
) -> bool:
    """Whether the groups fill registers evenly, and levels less zeros are bytes; of a table without zeros."""
    codes, _, *zeros = constants
    unit = unit_of_bits(op.weight_bits)
    if unit is None or op.size % (unit.operands * K) or op.depth % op.size:
        return False
    if zeros and isinstance(op, GroupEmbedding):
        return False
    registers = -(-op.size // kernel.row_bytes)
    levels = levels_of(op.weight)
    least, most = (int(f(zeros[0])) if zeros else 0 for f in (np.min, np.max))
    return (
        op.size % (registers * K) == 0
        and kernel.registers > 5
        and len(codes) >= kernel.columns
        and levels[0] - most >= -_BYTE
        and levels[-1] - least < _BYTE
    )


def tile_groups(layer: Layer, kernel: TileRegistersKernel, unit: VectorUnit) -> tuple[Step, ...]:
    """The steps of a GroupDense: plain activations, where they are not, and the product."""
    op, x, (codes, scales, *zeros) = layer.op, layer.activations[0], layer.constants
    assert isinstance(op, GroupDense)
    tokens, channels = prod(layer.out.shape[:-1]), layer.out.shape[-1]
    together = min(kernel.group_vectors, vector_count(channels, kernel.columns))
    plan = TileGroupPlan(op, kernel, tokens, channels, together)
    packed = pack_input(Packing(x, PLAIN, unit))
    arrays = (
        pack_codes(codes, op.weight, op.depth, plan.lanes, K, together),
        *(pack_group_scales(of_groups, plan.lanes, together) for of_groups in (scales, *zeros)),
    )
    types = [packed.out if packed else x, *(TensorType(a.shape, str(a.dtype)) for a in arrays), layer.out]
    func = primfunc(types, {TEMPLATE: _NAME}, _emit(plan, unit))
    product = Step(func, (PREVIOUS if packed else 0, *arrays), layer.out, f"{op.kind}_{_NAME}")
    return (packed, product) if packed else (product,)


def _emit(plan: TileGroupPlan, unit: VectorUnit) -> Callable[..., None]:
    """Code of (x, codes, scales, zeros where there are any, y)."""

    def emit(x: Flat, codes: Flat, scales: Flat, *rest: Flat) -> None:
        *zeros, y = rest

        def part(own: Part) -> None:
            configure(plan.kernel, plan.sizes)
            rows = workspace(plan.op.depth * plan.lanes, "int8")
            sums = workspace(plan.accumulators * (plan.rows + 1) * plan.lanes, "int32")
            vector = _Vector(plan, x, codes, scales, zeros, y, rows, sums)

            def block(v0: Expr, together: int) -> None:
                loop(together, lambda at: vector.emit(Turns(v0, together, at)))

            each_block(own, plan.vectors, plan.together, block)
            release(plan.kernel)

        work = unit.shared(plan.op.depth * plan.tokens * plan.channels)
        in_parts(plan.vectors // plan.together, work, part)

    return emit


@dataclass(frozen=True)
class _Vector:
    """The code for a vector of channels and all tokens; `rows` and `sums` are memory of its own."""

    plan: TileGroupPlan
    x: Flat
    codes: Flat
    scales: Flat
    zeros: Sequence[Flat]
    y: Flat
    rows: Flat
    sums: Flat

    def emit(self, turns: Turns) -> None:
        """Unpack its codes, multiply tile by tile."""
        plan = self.plan
        loop(plan.groups, lambda g: self._unpack(turns, g))
        loop(-(-plan.tokens // plan.rows), lambda t: self._tile(turns, start_of(t, plan.rows, plan.tokens)))

    def _place(self, turns: Turns, group: Expr) -> Expr:
        """Where scales and zeros of a group begin."""
        return (turns.first * self.plan.groups + group * turns.size + turns.at) * self.plan.lanes

    def _unpack(self, turns: Turns, group: Expr) -> None:
        """Levels less zeros of a group as rows of registers."""
        plan, unit, width, levels = self.plan, self.plan.unit, self.plan.width, levels_of(self.plan.op.weight)
        units = plan.op.size // (unit.operands * K)
        lowest = constant(levels[0], "int8", width)
        if self.zeros:
            zeros = self.zeros[0].load(self._place(turns, group), plan.lanes)
            lowest = T.bind(lowest - shuffle([zeros] * K, [i // K for i in range(width)]))

        def of_unit(n: Expr) -> None:
            number = turns.first * plan.groups * units + (group * units + n) * turns.size + turns.at
            packed = [
                T.bind(self.codes.load((number * unit.rows + r) * width, width)) for r in range(unit.rows)
            ]
            for i in range(unit.operands):
                above = T.reinterpret(dtype_of("int8", width), codes_above(unit, packed, i, levels, width))
                self.rows.store(((group * units + n) * unit.operands + i) * width, above + lowest, width)

        loop(units, of_unit)

    def _tile(self, turns: Turns, token: Expr) -> None:
        """The products of a tile of tokens."""
        plan, lanes = self.plan, self.plan.lanes
        totals = [local(lanes, "float32") for _ in range(plan.rows)]
        for total in totals:
            total.store(0, constant(0.0, "float32", lanes), lanes)

        def add(group: Expr, number: int) -> None:
            scale = T.bind(short_scale(self.scales, self._place(turns, group), lanes))
            self._add(scale, number, totals)

        def product(group: Expr, number: int) -> None:
            self._multiply(number, token, group)

        staggered(plan.groups, plan.accumulators, [product, self._store, add])
        channel = start_of(turns.first + turns.at, lanes, plan.channels)
        for row, total in enumerate(totals):
            self.y.store((token + row) * plan.channels + channel, total.load(0, lanes), lanes)

    def _sums(self, accumulator: int) -> int:
        """Where those of an accumulator are stored."""
        return accumulator * (self.plan.rows * self.plan.lanes + self.plan.lanes)

    def _store(self, _: Expr, accumulator: int) -> None:
        """The sums of a group to memory, from where they can't be read at once."""
        address = self.sums.address(self._sums(accumulator))
        move(self.plan.kernel.store, accumulator, address, self.plan.lanes * 4)

    def _add(self, scale: Expr, accumulator: int, totals: Sequence[Flat]) -> None:
        """The sums of a group, times their scales, to those of the tile."""
        lanes, first = self.plan.lanes, self._sums(accumulator)
        for row, total in enumerate(totals):
            found = cast(self.sums.load(first + row * lanes, lanes), "float32", lanes)
            total.store(0, fma(found, scale, total.load(0, lanes), lanes), lanes)

    def _multiply(self, accumulator: int, token: Expr, group: Expr) -> None:
        """The sums of a group in a register."""
        plan, kernel = self.plan, self.plan.kernel
        clear(kernel, accumulator)
        for c in range(plan.op.size // plan.chunk):
            begin, turn = group * plan.op.size + c * plan.chunk, (accumulator + c) % 2
            activations = plan.accumulators + turn
            move(kernel.load, activations, self.x.address(token * plan.op.depth + begin), plan.op.depth)
            move(kernel.load, activations + 2, self.rows.address(begin * plan.lanes), plan.width)
            multiply(kernel, accumulator, activations, activations + 2)
