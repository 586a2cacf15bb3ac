"""Dense layers and tables on weights that have a scale for each group of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any

import numpy as np
import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.formats import format_of
from hwptq.kernels.joins import Joined
from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.operators.rows import RowRescale
from hwptq.quant.group_codes import BYTE_SCALE_BIAS, BYTE_SCALE_PLACE, group_count
from hwptq.targets.gpu import Gpu
from hwptq.tir.builder import Expr, Flat, cast, constant
from hwptq.tir.kernel import TensorType

from .element import Element, element_of
from .rows import row_kernel
from .sourced import Source, sourced_kernel

_FILES = ("fixed_point.cuh", "group_dense.cuh")
_WARPS, _LANES = 4, 32
_OUTPUTS, _FEW_OUTPUTS = 16, 8  # of a block
_MOST_ROWS = 8
_WORDS = 32  # of codes that a lane reads at once
_PIECE = 32  # codes that are unpacked together
_SHORT = 3  # bits of codes whose levels are looked up


@row_kernel.register(GroupDense)
def _group_dense(
    op: GroupDense, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu
) -> tvm.tirx.PrimFunc | None:
    x, *weights = inputs
    return group_dense(op, x, weights, None, gpu)


def group_dense(
    op: GroupDense, x: TensorType, weights: Sequence[TensorType], by: RowRescale | None, gpu: Gpu
) -> tvm.tirx.PrimFunc | None:
    """(x, codes, scales, zeros where there are any) -> sums; where something rescales them (x, scales of its
    rows, codes, scales, zeros, bias) -> that. None of formats that have more than 3 bits and are no integers.
    """
    levels = _levels(op.weight)
    if levels is None:
        return None
    codes, scales, *zeros = weights
    groups, rows, outputs = group_count(op.depth, op.size), prod(x.shape[:-1]), codes.shape[0]
    in_words = op.size % _PIECE == 0 and op.depth % op.size == 0
    block = _block(rows, groups, op.size if in_words else 0, gpu)
    pieces = max(1, op.size // _PIECE) * op.weight_bits
    together = max(1, min(block.chunk // _LANES, _WORDS // pieces))
    place, bias = (BYTE_SCALE_PLACE, BYTE_SCALE_BIAS) if scales.dtype == "uint8" else (16, 0)
    constants: dict[str, Any] = {
        "DEPTH": op.depth, "SIZE": op.size, "GROUPS": groups, "BITS": op.weight_bits,
        "WIDTH": codes.shape[1], "OUTPUTS": outputs, "ALL_ROWS": rows, "OUTS": block.outs,
        "ROWS": block.rows, "CHUNK": block.chunk, "TOGETHER": together, "WARPS": _WARPS,
        "IN_WORDS": in_words, "ZEROS": bool(zeros),
        "LOW": levels[0], "HIGH": levels[1], "PLACE": place, "BIAS": bias, "RESCALED": by is not None,
        "LO": by.lo if by else -inf, "HI": by.hi if by else inf,
    }  # fmt: skip
    inputs = [x, *weights]
    if by is not None:
        of_rows = TensorType((*x.shape[:-1], 1), "float32"), TensorType((outputs,), "float32")
        inputs = [x, of_rows[0], *weights, of_rows[1]]
    name = f"hwptq_group_dense{'_zeros' if zeros else ''}{'_rescaled' if by else ''}"
    source = Source(name if zeros or by else f"{name}_alone", _FILES)
    blocks, threads = -(-outputs // block.outs) * -(-rows // block.rows), _LANES * _WARPS
    out = TensorType((*x.shape[:-1], outputs), "float32")
    return sourced_kernel(source, constants, inputs, [out], blocks, threads, "group_dense")


def rescaled_group_dense(
    op: GroupDense, by: RowRescale, x: TensorType, constants: Sequence[np.ndarray], gpu: Gpu
) -> Joined | None:
    """The kernel of a layer with the rescale behind it."""
    *weights, _ = (TensorType(c.shape, str(c.dtype)) for c in constants)
    func = group_dense(op, x, weights, by, gpu)
    out = TensorType((*x.shape[:-1], weights[0].shape[0]), "float32")
    return None if func is None else Joined(func, (), [out], "group_dense_rescaled")


@dataclass(frozen=True)
class _Block:
    """outs: outputs, rows: of x, chunk: groups, that a block takes at once."""

    outs: int
    rows: int
    chunk: int

    def bytes(self, words: int) -> int:
        """Shared memory. words: bytes of a group of x that lie there."""
        return self.rows * self.chunk * words + 8 * (self.chunk + 1) * self.outs * self.rows


def _block(rows: int, groups: int, words: int, gpu: Gpu) -> _Block:
    """Of one row a block takes few outputs and many groups: so many loads are under way at once."""
    chunk = -(-groups // _LANES) * _LANES
    found = _Block(_FEW_OUTPUTS, 1, chunk) if rows == 1 else _Block(_OUTPUTS, min(rows, _MOST_ROWS), _LANES)
    while found.bytes(words) > gpu.shared_memory and found.chunk > _LANES:
        found = replace(found, chunk=found.chunk - _LANES)
    while found.bytes(words) > gpu.shared_memory and found.rows > 1:
        found = replace(found, rows=found.rows // 2)
    return found


def _levels(weight: str) -> tuple[int, int] | None:
    """The levels of up to eight patterns as bytes of two words; None where no word has them and they are no
    integers. Those of more bits need none."""
    found = format_of(weight)
    levels = found.from_bit_patterns(np.arange(2**found.bits)).astype(np.int8)
    if found.bits > _SHORT:
        half = 2 ** (found.bits - 1)
        plain = (np.arange(2**found.bits) ^ half) - half
        return (0, 0) if np.array_equal(levels, plain) else None
    low, high = np.pad(levels, (0, 8 - len(levels))).view(np.int32)
    return int(low), int(high)


@element_of.register(GroupEmbedding)
def _embedding(op: GroupEmbedding, inputs: Sequence[TensorType], out: TensorType) -> Element:
    dtype, (rows, width) = inputs[0].dtype, inputs[1].shape

    def element(at: Expr, index: Flat, *arrays: Flat) -> Expr:
        wanted = index.load(T.floordiv(at, op.depth))
        row = T.bind(cast(T.max(T.min(wanted, constant(rows - 1, dtype)), constant(0, dtype)), "int32"))
        return op.value(row, T.floormod(at, op.depth), arrays, width)

    return element
