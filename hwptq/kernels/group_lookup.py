"""Rows of a table in the bytes that a dense layer of the same rows multiplies: see group_dot.py.

The arrays are packed as that layer's are, so a program whose head is its table of embeddings holds them once.
"""

from __future__ import annotations

from math import prod

from tvm.script.ir_builder import tirx as T

from hwptq.operators.group_dense import GroupEmbedding
from hwptq.quant.group_codes import group_count
from hwptq.tir.builder import TEMPLATE, Expr, Flat, cast, constant, loop, primfunc, splat, start_of
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.packed_codes import short_scale

from .layer import Layer
from .pack_codes import codes_above, levels_of, pack_codes, pack_group_scales, unit_of_bits
from .pack_weights import vector_count
from .register_tile import Mac

_NAME = "group_lookup"


def group_lookup(layer: Layer, mac: Mac, block: int) -> tuple[Step, ...]:
    """The step of a GroupEmbedding, whose layer takes `block` vectors of channels at once."""
    op, index, (codes, scales) = layer.op, layer.activations[0], layer.constants
    assert isinstance(op, GroupEmbedding)
    block = min(block, vector_count(len(codes), mac.lanes))
    arrays = (
        pack_codes(codes, op.weight, op.depth, mac.lanes, mac.k, block),
        pack_group_scales(scales, mac.lanes, block),
    )
    place = _Places(op, len(codes), mac, block)

    def emit(index: Flat, packed: Flat, factors: Flat, y: Flat) -> None:
        def one(number: Expr) -> None:
            last, first = (constant(v, index.dtype) for v in (len(codes) - 1, 0))
            row = T.bind(cast(T.max(T.min(index.load(number), last), first), "int32"))
            place.emit(row, packed, factors, y.behind(number * op.depth))

        loop(prod(layer.activations[0].shape), one)

    types = [index, *(TensorType(a.shape, str(a.dtype)) for a in arrays), layer.out]
    return (Step(primfunc(types, {TEMPLATE: _NAME}, emit), (0, *arrays), layer.out, _NAME),)


class _Places:
    """Where the weights of a row lie among the vectors of blocks."""

    def __init__(self, op: GroupEmbedding, rows: int, mac: Mac, block: int):
        unit = unit_of_bits(op.weight_bits)
        assert unit is not None  # the template has asked
        self._op, self._rows, self._mac, self._block, self._unit = op, rows, mac, block, unit
        self._vectors = vector_count(rows, mac.lanes)
        self._groups = group_count(op.depth, op.size)

    def emit(self, row: Expr, packed: Flat, factors: Flat, y: Flat) -> None:
        """Code that writes a row of weights."""
        op, mac, unit, lanes = self._op, self._mac, self._unit, self._mac.lanes
        vector = T.floordiv(row, lanes)
        lane = T.bind(row - start_of(vector, lanes, self._rows))
        first = T.bind(T.floordiv(vector, self._block) * self._block)
        turn, size = T.bind(vector - first), T.bind(T.min(self._block, self._vectors - first))
        units, each = op.depth // (unit.operands * mac.k), unit.operands * mac.k
        levels = levels_of(op.weight)

        def of_unit(n: Expr) -> None:
            begin = (first * units + n * size + turn) * unit.rows
            rows = [
                T.bind(packed.load(((begin + r) * lanes + lane) * mac.k, mac.k)) for r in range(unit.rows)
            ]
            group = T.floordiv(n * each, op.size)
            place = (first * self._groups + group * size + turn) * lanes + lane
            scale = T.bind(splat(short_scale(factors, place), mac.k))
            for i in range(unit.operands):
                above = cast(codes_above(unit, rows, i, levels, mac.k), "int32", mac.k)
                number = cast(above + constant(levels[0], "int32", mac.k), "float32", mac.k)
                y.store(n * each + i * mac.k, number * scale, mac.k)

        loop(units, of_unit)
