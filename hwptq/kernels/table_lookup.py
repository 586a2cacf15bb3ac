"""Lookup by an instruction that selects bytes from a table in registers (vlut32 of Hexagon).

A vector of entries holds 128 of them: entry e in byte e / 64 of the pair e % 64. One instruction serves the
indices of one block of 32; eight of them, whose results are joined by or, serve all 256.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from hwptq.operators.lookup import Lookup
from hwptq.targets.templates.table_lookup import TableLookupKernel
from hwptq.tir.builder import TEMPLATE, Expr, Flat, dtype_of, primfunc
from hwptq.tir.encoding import decoded, encoded
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import Layout
from hwptq.tir.lookup import Find, emit_lookup
from hwptq.tir.vector_unit import VectorUnit

from .layer import Layer
from .template import Template
from .wishes import ANY, Wish

_ENTRIES = 128  # in a vector
_BLOCK = 32  # indices that one instruction serves


class TableLookup(Template[TableLookupKernel]):
    """Lookups, from any layout in rows to any."""

    table = TableLookupKernel

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        op, x, constants, out = layer.op, layer.activations[0], layer.constants, layer.out
        assert isinstance(op, Lookup)
        return table_lookup(op, x, constants, out, self.kernel, self.unit)

    def wishes(self, layer: Layer) -> list[Wish]:
        return [ANY]

    def writes(self, layer: Layer, layout: Layout) -> bool:
        return layout.rows == 1


def table_lookup(
    op: Lookup,
    x: TensorType,
    constants: Sequence[np.ndarray],
    out: TensorType,
    kernel: TableLookupKernel,
    unit: VectorUnit,
) -> tuple[Step, ...]:
    """The step of a Lookup; `constants` are its table."""
    (table,) = constants
    packed = _pack(table)
    words = dtype_of("int32", _ENTRIES // 4)

    def prepare(entries: Flat) -> Find:
        vectors = [T.bind(T.reinterpret(words, entries.load(i * _ENTRIES, _ENTRIES))) for i in range(2)]

        def find(stored: Expr, lanes: int) -> Expr:
            indices = T.bind(T.reinterpret(words, decoded(stored, x.layout.dtype, lanes)))
            found = None
            for b in range(256 // _BLOCK):
                operands = (indices, vectors[b * _BLOCK // _ENTRIES], tirx.const(b, "int32"))
                name = kernel.intrinsic if found is None else kernel.joining
                joined = operands if found is None else (found, *operands)
                found = T.call_llvm_pure_intrin(words, name, *joined)
            return encoded(T.reinterpret(dtype_of("int8", lanes), found), out.layout.dtype, lanes)

        return find

    types = [x, TensorType(packed.shape, "int8"), out]
    func = primfunc(types, {TEMPLATE: kernel.template}, emit_lookup(x, out, unit, prepare, _ENTRIES))
    return (Step(func, (0, packed), out, f"{op.kind}_{kernel.template}"),)


def _pack(table: np.ndarray) -> np.ndarray:
    """int8 [256], its entry i for the value i - 128 -> [2, 128], by the value's bits as an unsigned byte."""
    by_bits = np.roll(table, 128)
    return np.ascontiguousarray(by_bits.reshape(2, 2, 64).transpose(0, 2, 1).reshape(2, _ENTRIES))
