"""Weights that have a scale for each group of inputs: dense layers on int8 codes, and rows of tables.

    acc = fma(float32(sum of group g), scale[o, g], acc), from 0, in the order of the groups

The sum of x * (level - zero) over a group is an exact int32 that a float32 holds; each fma rounds once. What
a code, a level, a zero and a scale are says quant/group_codes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.formats import Format, format_of
from hwptq.ir.dataflow import constant as array_of
from hwptq.ir.dataflow import op_name, shape_of
from hwptq.ir.operator import Operator, Shape, WeightedOperator, along_rows, integer_operator
from hwptq.ir.provenance import Origin
from hwptq.lowering.emitter import Emitter
from hwptq.quant.fma import fma
from hwptq.quant.group_codes import GroupedRows, group_count, group_levels, group_values, real_scales
from hwptq.quant.integer_sums import exact_matmul
from hwptq.tir.builder import Expr, Flat, cast, constant, local, loop, nest, share
from hwptq.tir.kernel import TensorType
from hwptq.tir.packed_codes import level, short_scale
from hwptq.tir.vector_unit import VectorUnit

_COST = 4  # multiply-accumulates that take as long as to unpack a code


@dataclass(frozen=True)
class _Grouped(Operator):
    """What operators on such rows share: `depth` codes of the format `weight` a row, in groups of `size`."""

    weight: str
    size: int
    depth: int

    def rows(self, arrays: Sequence[np.ndarray]) -> GroupedRows:
        """Its arrays (codes, scales, perhaps zeros) as what they are."""
        return GroupedRows(self.weight, self.size, self.depth, *arrays)

    @property
    def format(self) -> Format:
        """That of the codes."""
        return format_of(self.weight)

    @property
    def weight_bits(self) -> int:
        """Bits of a code."""
        return self.format.bits

    def element_by_element(self, unit: VectorUnit) -> bool:
        return True

    def _level(self, row: Expr, index: Expr, codes: Flat, width: int, zeros: Sequence[Flat]) -> Expr:
        """level - zero, an int32, of a code of a row of `width` bytes."""
        found = level(codes, row * width, index, self.weight)
        return found - cast(zeros[0].load(self._group(row, index)), "int32") if zeros else found

    def _group(self, row: Expr, index: Expr) -> Expr:
        """The number of the group of a code among those of all rows."""
        return row * group_count(self.depth, self.size) + T.floordiv(index, self.size)

    def value(self, row: Expr, index: Expr, arrays: Sequence[Flat], width: int) -> Expr:
        """A weight, float32."""
        codes, scales, *zeros = arrays
        number = cast(self._level(row, index, codes, width, zeros), "float32")
        return number * short_scale(scales, self._group(row, index))


@dataclass(frozen=True)
class GroupDense(_Grouped, WeightedOperator):
    """(x int8 [..., K], codes uint8 [O, bytes], scales float32 or uint16 [O, G], zeros int8 [O, G] or none)
    -> float32 [..., O].
    """

    kind: ClassVar[str] = "group_dense"
    without_rule: ClassVar[str] = "a dense layer on rows with a scale each, by weights with a scale a group"

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        return prod(out) * self.depth

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        return along_rows(axis, self.activations)

    def reference(self, x, codes, scales, zeros=None) -> np.ndarray:
        levels = group_levels(codes, zeros, self.weight, self.size, self.depth)
        factors = real_scales(scales)
        acc = np.zeros((*x.shape[:-1], len(codes)), np.float32)
        for group in range(group_count(self.depth, self.size)):
            part = slice(group * self.size, (group + 1) * self.size)
            sums = exact_matmul(x[..., part], levels[:, part].T, 2**15)
            acc = fma(sums.astype(np.float32), factors[:, group], acc)
        return acc

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        channels, width = inputs[1].shape
        full, rest = divmod(self.depth, self.size)

        def emit(x: Flat, codes: Flat, scales: Flat, *others: Flat) -> None:
            *zeros, y = others

            def value(row: Expr, o: Expr) -> None:
                acc, total = local(1, "int32"), local(1, "float32")
                total.store(0, constant(0.0, "float32"))

                def group(g: Expr, size: int) -> None:
                    acc.store(0, constant(0, "int32"))

                    def step(i: Expr) -> None:
                        at = g * self.size + i
                        a = cast(x.load(row * self.depth + at), "int32")
                        acc.store(0, acc.load(0) + a * self._level(o, at, codes, width, zeros))

                    loop(size, step)
                    factor = short_scale(scales, self._group(o, g * self.size))
                    terms = cast(acc.load(0), "float32"), factor, total.load(0)
                    total.store(0, T.call_llvm_pure_intrin("float32", "llvm.fma", *terms))

                if full:
                    loop(full, lambda g: group(g, self.size))
                if rest:
                    group(full, rest)
                y.store(row * channels + o, total.load(0))

            rows = y.size // channels
            work = unit.shared(_COST * y.size * self.depth)
            share(channels, work, lambda first, n: nest((rows, n), lambda r, o: value(r, first + o)))

        return emit


@dataclass(frozen=True)
class GroupEmbedding(_Grouped):
    """(index int32 or int64 [...], codes uint8 [V, bytes], scales [V, G], zeros or none) -> the weights of
    those rows, float32 [..., C]. An index below 0 or beyond the table takes its first or last row.
    """

    kind: ClassVar[str] = "group_embedding"
    without_rule: ClassVar[str] = "a look-up in a table with a scale for each group"

    def rule(self, constants: Sequence[np.ndarray]) -> str:
        """Kernels of dense layers on the same rows say how those lie."""
        return GroupDense.kind

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        """The index has no axis of channels."""
        return None if axis == -1 else (axis + 1,)

    def reference(self, index, codes, scales, zeros=None) -> np.ndarray:
        row = np.clip(index, 0, len(codes) - 1).astype(np.int64).reshape(-1)
        chosen = (codes[row], scales[row], None if zeros is None else zeros[row])
        values = group_values(*chosen, self.weight, self.size, self.depth)
        return values.reshape(*index.shape, self.depth)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        dtype, (rows, width) = inputs[0].dtype, inputs[1].shape

        def emit(index: Flat, *rest: Flat) -> None:
            *arrays, y = rest

            def one(number: Expr) -> None:
                last, first = (constant(v, dtype) for v in (rows - 1, 0))
                row = T.bind(cast(T.max(T.min(index.load(number), last), first), "int32"))
                loop(
                    self.depth,
                    lambda i: y.store(number * self.depth + i, self.value(row, i, arrays, width)),
                )

            loop(index.size, one)

        return emit


@dataclass(frozen=True)
class GroupDequantize(_Grouped):
    """(codes uint8 [R, bytes], scales [R, G], zeros or none) -> the weights, float32 [R, depth], or
    [depth, R] where they are `transposed`, as Relax has the weight of a dense layer.

    So a graph that is to be lowered says what its weights are.
    """

    kind: ClassVar[str] = "group_dequantize"
    without_rule: ClassVar[str] = "the weights of a layer that has a scale for each group"
    transposed: bool

    def reference(self, codes, scales, zeros=None) -> np.ndarray:
        values = group_values(codes, scales, zeros, self.weight, self.size, self.depth)
        return np.ascontiguousarray(values.T) if self.transposed else values

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        rows, width = inputs[0].shape

        def emit(*tensors: Flat) -> None:
            *arrays, y = tensors

            def value(row: Expr, i: Expr) -> None:
                at = i * rows + row if self.transposed else row * self.depth + i
                y.store(at, self.value(row, i, arrays, width))

            nest((rows, self.depth), value)

        return emit


def grouped_rows(mod: tvm.IRModule, value: Any) -> GroupedRows | None:
    """The rows that a GroupDequantize of constants stands for; None for another node."""
    found = integer_operator(mod, value)
    if not isinstance(found, GroupDequantize):
        return None
    arrays = [array_of(a) for a in value.args[1].fields]
    return None if any(a is None for a in arrays) else found.rows([a for a in arrays if a is not None])


def emit_rows(e: Emitter, rows: GroupedRows, transposed: bool, origin: Origin) -> Any:
    """The weights of rows as a GroupDequantize: how a graph that is to be lowered says what they are."""
    op = GroupDequantize(rows.weight, rows.size, rows.depth, transposed)
    shape = (rows.depth, len(rows.codes)) if transposed else (len(rows.codes), rows.depth)
    return e.call(op, [rows.codes], rows.arrays[1:], shape, "float32", origin)


def lower_table(e: Emitter, call: Any, origin: Origin) -> Any | None:
    """A look-up of rows in such a table; None where `call` is something else."""
    if op_name(call) != "take" or call.attrs.axis is None or int(call.attrs.axis) != 0:
        return None
    rows = grouped_rows(e.mod, e.values.get(call.args[0]))
    if rows is None or shape_of(call.args[0]) != (len(rows.codes), rows.depth):
        return None
    op, index = GroupEmbedding(rows.weight, rows.size, rows.depth), e.r.get(call.args[1])
    return e.call(op, [index], rows.arrays, shape_of(call), "float32", origin)
