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

_NAME = "group_lookup"


def group_lookup(layer: Layer, lanes: int, k: int, block: int) -> tuple[Step, ...]:
    """The step of a GroupEmbedding: a row of operands has k inputs of `lanes` channels, `block` such vectors
    are packed in turns."""
    op, index, (codes, scales) = layer.op, layer.activations[0], layer.constants
    assert isinstance(op, GroupEmbedding)
    block = min(block, vector_count(len(codes), lanes))
    arrays = (
        pack_codes(codes, op.weight, op.depth, lanes, k, block),
        pack_group_scales(scales, lanes, block),
    )
    place = _Places(op, len(codes), lanes, k, block)

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

    def __init__(self, op: GroupEmbedding, rows: int, lanes: int, k: int, block: int):
        unit = unit_of_bits(op.weight_bits)
        assert unit is not None  # the template has asked
        self._op, self._rows, self._block, self._unit = op, rows, block, unit
        self._lanes, self._k = lanes, k
        self._vectors = vector_count(rows, lanes)
        self._groups = group_count(op.depth, op.size)

    def emit(self, row: Expr, packed: Flat, factors: Flat, y: Flat) -> None:
        """Code that writes a row of weights."""
        op, unit, lanes, k = self._op, self._unit, self._lanes, self._k
        vector = T.floordiv(row, lanes)
        lane = T.bind(row - start_of(vector, lanes, self._rows))
        first = T.bind(T.floordiv(vector, self._block) * self._block)
        turn, size = T.bind(vector - first), T.bind(T.min(self._block, self._vectors - first))
        units, each = op.depth // (unit.operands * k), unit.operands * k
        levels = levels_of(op.weight)

        def of_unit(n: Expr) -> None:
            begin = (first * units + n * size + turn) * unit.rows
            rows = [T.bind(packed.load(((begin + r) * lanes + lane) * k, k)) for r in range(unit.rows)]
            group = T.floordiv(n * each, op.size)
            place = (first * self._groups + group * size + turn) * lanes + lane
            scale = T.bind(splat(short_scale(factors, place), k))
            for i in range(unit.operands):
                above = cast(codes_above(unit, rows, i, levels, k), "int32", k)
                number = cast(above + constant(levels[0], "int32", k), "float32", k)
                y.store(n * each + i * k, number * scale, k)

        loop(units, of_unit)
