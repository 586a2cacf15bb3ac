"""Lookup by an instruction that permutes bytes of registers: pshufb and vpermi2b of x86-64, tbl of AArch64.

An instruction selects from a block of the 256 entries, by the low bits of the indices; what it makes of an
index beyond its block says how the blocks are joined:

- it gives 0 (tbl): the indices are moved by exclusive or, so that each block meets its own, and the results
  are joined by or, or by an instruction that leaves what is there (tbx);
- it ignores the high bits (vpermi2b): the high bits select between the results of the blocks;
- it gives 0 for a negative index only (pshufb): block i holds its differences to block i - 1, and the indices
  are lowered block by block until they are negative. The exclusive or of all results is the sum of the
  differences up to an index's block. Negative indices do the same after their sign is flipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.operators.lookup import Lookup
from hwptq.targets.templates.table_permute import TablePermuteKernel
from hwptq.tir.builder import TEMPLATE, Expr, Flat, constant, dtype_of, primfunc, shuffle, splat
from hwptq.tir.encoding import decoded, encoded
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import Layout
from hwptq.tir.lookup import Find, emit_lookup
from hwptq.tir.vector_unit import VectorUnit

from .layer import Layer
from .template import Template
from .wishes import ANY, Wish

_VALUES = 256
_SIGN = -128
_VECTORS = 4  # of an iteration

#: (indices, blocks) -> entries; both as vectors of int8.
Join = Callable[[TablePermuteKernel, Expr, Sequence[Sequence[Expr]]], Expr]


class TablePermute(Template[TablePermuteKernel]):
    """Lookups, from any layout in rows to any."""

    table = TablePermuteKernel

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        op, x, constants, out = layer.op, layer.activations[0], layer.constants, layer.out
        assert isinstance(op, Lookup)
        return table_permute(op, x, constants, out, self.kernel, self.unit)

    def wishes(self, layer: Layer) -> list[Wish]:
        return [ANY]

    def writes(self, layer: Layer, layout: Layout) -> bool:
        return layout.rows == 1


def table_permute(
    op: Lookup,
    x: TensorType,
    constants: Sequence[np.ndarray],
    out: TensorType,
    kernel: TablePermuteKernel,
    unit: VectorUnit,
) -> tuple[Step, ...]:
    """The step of a Lookup; `constants` are its table. x and its result may have any layout in rows."""
    (table,) = constants
    packed = pack_table(table, x.layout.dtype == "uint8", out.layout.dtype == "uint8", kernel)

    def prepare(entries: Flat) -> Find:
        blocks = _loaded(entries, kernel)
        lanes = kernel.lanes

        def find(stored: Expr, width: int) -> Expr:
            if x.layout.dtype == "uint8":
                stored = T.reinterpret(dtype_of("int8", width), stored)
            else:
                stored = decoded(stored, x.layout.dtype, width)
            indices = T.bind(_repeated(stored, width, lanes))
            found = _JOINS[kernel.outside](kernel, indices, blocks)
            found = found if width == lanes else shuffle([found], range(width))
            if out.layout.dtype == "uint8":
                return T.reinterpret(dtype_of("uint8", width), found)
            return encoded(found, out.layout.dtype, width)

        return find

    types = [x, TensorType(packed.shape, "int8"), out]
    emit = emit_lookup(x, out, unit, prepare, kernel.lanes, _VECTORS)
    func = primfunc(types, {TEMPLATE: kernel.template}, emit)
    return (Step(func, (0, packed), out, f"{op.kind}_{kernel.template}"),)


def pack_table(
    table: np.ndarray, unsigned_in: bool, unsigned_out: bool, kernel: TablePermuteKernel
) -> np.ndarray:
    """int8 [256], entry i for the value i - 128 -> [256] by the bits of a stored value, as blocks need it.

    `unsigned_in`, `unsigned_out`: values are stored as uint8, with 128 added.
    """
    stored = table ^ np.int8(_SIGN) if unsigned_out else table
    by_bits = stored if unsigned_in else np.roll(stored, _VALUES // 2)
    if kernel.outside != "zero_if_negative":
        return np.ascontiguousarray(by_bits)
    blocks = by_bits.reshape(2, -1, kernel.entries)
    before = np.concatenate([np.zeros_like(blocks[:, :1]), blocks[:, :-1]], axis=1)
    return (blocks ^ before).reshape(-1)


def _loaded(entries: Flat, kernel: TablePermuteKernel) -> list[list[Expr]]:
    """The registers of each block; where one holds fewer entries than it has bytes, they are repeated."""
    size = kernel.entries // kernel.registers

    def register(start: int) -> Expr:
        loaded = T.bind(entries.load(start, size))
        return T.bind(_repeated(loaded, size, kernel.lanes))

    return [
        [register(block + i * size) for i in range(kernel.registers)]
        for block in range(0, _VALUES, kernel.entries)
    ]


def _repeated(value: Expr, width: int, lanes: int) -> Expr:
    """A vector of `lanes` that holds one of `width`, or a scalar, again and again."""
    if width == lanes:
        return value
    return splat(value, lanes) if width == 1 else shuffle([value] * (lanes // width), range(lanes))


def _selected(kernel: TablePermuteKernel, indices: Expr, block: Sequence[Expr]) -> Expr:
    """What the instruction gives."""
    operands = list(block)
    operands.insert(kernel.indices, indices)
    return T.bind(T.call_llvm_pure_intrin(dtype_of("int8", kernel.lanes), kernel.intrinsic, *operands))


def _zeros(kernel: TablePermuteKernel, indices: Expr, blocks: Sequence[Sequence[Expr]]) -> Expr:
    dtype = dtype_of("int8", kernel.lanes)
    found = _selected(kernel, indices, blocks[0])
    for i, block in enumerate(blocks[1:], 1):
        start = (i * kernel.entries + 128) % 256 - 128  # as int8
        own = T.bind(T.bitwise_xor(indices, constant(start, "int8", kernel.lanes)))
        if kernel.joining:
            found = T.bind(T.call_llvm_pure_intrin(dtype, kernel.joining, found, *block, own))
        else:
            found = T.bind(T.bitwise_or(found, _selected(kernel, own, block)))
    return found


def _low_bits(kernel: TablePermuteKernel, indices: Expr, blocks: Sequence[Sequence[Expr]]) -> Expr:
    lanes = kernel.lanes
    found = [_selected(kernel, indices, block) for block in blocks]
    bit = kernel.entries
    while len(found) > 1:
        mask, zero = constant((bit + 128) % 256 - 128, "int8", lanes), constant(0, "int8", lanes)
        is_set = T.bitwise_and(indices, mask) != zero  # not bound: TVM 0.27 fails on vectors of bool
        pairs = zip(found[::2], found[1::2], strict=True)
        found, bit = [T.Select(is_set, high, low) for low, high in pairs], 2 * bit
    return found[0]


def _differences(kernel: TablePermuteKernel, indices: Expr, blocks: Sequence[Sequence[Expr]]) -> Expr:
    lanes = kernel.lanes
    lower = f"llvm.ssub.sat.v{lanes}i8"
    step = constant(kernel.entries, "int8", lanes)
    half = len(blocks) // 2
    results = []
    for start, own in ((0, indices), (half, T.bind(T.bitwise_xor(indices, constant(_SIGN, "int8", lanes))))):
        for i, block in enumerate(blocks[start : start + half]):
            if i:
                own = T.bind(T.call_llvm_pure_intrin(dtype_of("int8", lanes), lower, own, step))
            results.append(_selected(kernel, own, block))
    found = results[0]
    for result in results[1:]:
        found = T.bind(T.bitwise_xor(found, result))
    return found


_JOINS: dict[str, Join] = {"zero": _zeros, "low_bits": _low_bits, "zero_if_negative": _differences}
