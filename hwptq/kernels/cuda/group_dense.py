"""Dense layers and tables on weights that have a scale for each group of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.formats import format_of
from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.quant.group_codes import BYTE_SCALE_BIAS, BYTE_SCALE_PLACE, group_count
from hwptq.targets.gpu import Gpu
from hwptq.tir.builder import Expr, Flat, cast, constant
from hwptq.tir.kernel import TensorType

from .element import Element, element_of
from .rows import row_kernel
from .sourced import Source, sourced_kernel

_FILES = ("fixed_point.cuh", "group_dense.cuh")
_WARPS, _LANES = 4, 32
_OUTPUTS = 16  # of a block
_MOST_ROWS = 8
_ROUNDS = 4  # groups of a lane at once, where there is one row
_PIECE = 32  # codes that are unpacked together
_SHORT = 3  # bits of codes whose levels are looked up


@row_kernel.register(GroupDense)
def _group_dense(
    op: GroupDense, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu
) -> tvm.tirx.PrimFunc | None:
    """None of formats that have more than 3 bits and are no integers."""
    levels = _levels(op.weight)
    if levels is None:
        return None
    x, codes, scales, *zeros = inputs
    groups, rows = group_count(op.depth, op.size), prod(x.shape[:-1])
    in_words = op.size % _PIECE == 0 and op.depth % op.size == 0
    at_once, chunk = _sizes(rows, groups, op.size if in_words else 0, gpu)
    place, bias = (BYTE_SCALE_PLACE, BYTE_SCALE_BIAS) if scales.dtype == "uint8" else (16, 0)
    constants: dict[str, Any] = {
        "DEPTH": op.depth, "SIZE": op.size, "GROUPS": groups, "BITS": op.weight_bits,
        "WIDTH": codes.shape[1], "OUTPUTS": out.shape[-1], "ALL_ROWS": rows, "OUTS": _OUTPUTS,
        "ROWS": at_once, "CHUNK": chunk, "WARPS": _WARPS, "IN_WORDS": in_words, "ZEROS": bool(zeros),
        "LOW": levels[0], "HIGH": levels[1], "PLACE": place, "BIAS": bias,
    }  # fmt: skip
    name = "hwptq_group_dense" if zeros else "hwptq_group_dense_without_zeros"
    blocks = -(-out.shape[-1] // _OUTPUTS) * -(-rows // at_once)
    return sourced_kernel(
        Source(name, _FILES), constants, inputs, [out], blocks, _LANES * _WARPS, "group_dense"
    )


def _sizes(rows: int, groups: int, words: int, gpu: Gpu) -> tuple[int, int]:
    """(rows, groups) that a block takes at once, so that their sums and inputs fit its shared memory.

    words: bytes of a group of x that lie there.
    """
    at_once, rounds = min(rows, _MOST_ROWS), min(-(-groups // _LANES), _ROUNDS if rows == 1 else 1)

    def size() -> int:
        chunk = rounds * _LANES
        return at_once * chunk * words + 4 * (chunk + 1) * _OUTPUTS * (at_once + 1)

    while size() > gpu.shared_memory and rounds > 1:
        rounds -= 1
    while size() > gpu.shared_memory and at_once > 1:
        at_once //= 2
    return at_once, rounds * _LANES


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
