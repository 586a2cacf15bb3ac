"""Kernels with a warp for each row, softmax and norms, and tables in shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from math import prod
from typing import Any

import tvm

from hwptq.ir.operator import Operator
from hwptq.kernels.joins import Joined, NormJoin
from hwptq.operators.add import Add
from hwptq.operators.lookup import Lookup
from hwptq.operators.masked_pool import MaskedMean
from hwptq.operators.norm import LayerNorm, RmsNorm
from hwptq.operators.rescale import Rescale
from hwptq.operators.softmax import Softmax
from hwptq.quant.fixed_point import STEPS
from hwptq.quant.integer_norm import NORMALIZED_BITS, fraction_bits
from hwptq.quant.integer_softmax import probability_of_alike
from hwptq.targets.gpu import Gpu
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import broadcast_strides

from .sourced import Index, Source, offset, sourced_kernel

_WARPS = 4  # rows of a block
#: Of a norm: lanes of a row share its root and its division, and fewer lanes do so for more rows at once, as
#: long as their values fit registers, and threads fill the chip.
_LEAST_LANES, _MOST_VALUES = 8, 48
_NORM = ("fixed_point.cuh", "norm.cuh")
_MEAN_WARPS = 8
_LOOKUP_THREADS, _MOST_ENTRIES = 256, 2**12


@singledispatch
def row_kernel(
    op: Operator, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu
) -> tvm.tirx.PrimFunc | None:
    """The PrimFunc (inputs…, out) of an operator that several threads compute together; None of any other."""
    return None


def exponential_constants(op: Softmax) -> dict[str, int]:
    """The numbers of exponential.cuh."""
    return {"FACTOR": op.factor, "SHIFT": op.shift, "REACH": op.reach}


@row_kernel.register(Softmax)
def _softmax(op: Softmax, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu) -> tvm.tirx.PrimFunc:
    *lead, count = out.shape
    rows = prod(lead)
    steps = broadcast_strides(inputs[1].shape, out.shape) if op.masked else (0,) * len(out.shape)
    constants: dict[str, Any] = {
        "COUNT": count, "ROWS": rows, "WARPS": _WARPS, "MASKED": op.masked, "STRIDE": steps[-1],
        "ALIKE": op.alike, "P_ALIKE": probability_of_alike(count), **exponential_constants(op),
        "hidden": offset(lead, steps[:-1]) if op.masked else Index("0"),
    }  # fmt: skip
    source = Source(
        "hwptq_softmax" if op.masked else "hwptq_softmax_plain",
        ("fixed_point.cuh", "exponential.cuh", "softmax.cuh"),
    )
    return sourced_kernel(source, constants, inputs, [out], -(-rows // _WARPS), 32 * _WARPS, "softmax")


@row_kernel.register(LayerNorm)
@row_kernel.register(RmsNorm)
def _norm(
    op: LayerNorm | RmsNorm, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu
) -> tvm.tirx.PrimFunc | None:
    made = norm_kernel(NormJoin(None, op, None, inputs[0], None, False, True, out.dtype), gpu)
    return None if made is None else made.func


@row_kernel.register(MaskedMean)
def _masked_mean(
    op: MaskedMean, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu
) -> tvm.tirx.PrimFunc:
    samples, tokens, channels = inputs[0].shape
    across = -(-channels // 32)
    constants: dict[str, Any] = {
        "TOKENS": tokens, "CHANNELS": channels, "ACROSS": across, "WARPS": _MEAN_WARPS,
        "IN_ZERO": op.in_zero_point, "Out": {"ZERO": op.out_zero_point, "LO": op.lo, "HI": op.hi},
    }  # fmt: skip
    source = Source("hwptq_masked_mean", ("fixed_point.cuh", "masked_mean.cuh"))
    return sourced_kernel(source, constants, inputs, [out], samples * across, 32 * _MEAN_WARPS, "masked_mean")


@row_kernel.register(Lookup)
def _lookup(op: Lookup, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu) -> tvm.tirx.PrimFunc | None:
    x, table = inputs
    (entries,), size = table.shape, prod(x.shape)
    if (x.dtype, out.dtype) != ("int16", "int8") or entries > _MOST_ENTRIES or entries % 32 or size % 8:
        return None
    blocks = min(2 * gpu.busy_threads // _LOOKUP_THREADS, -(-size // (8 * _LOOKUP_THREADS)))
    constants = {"SIZE": size, "ENTRIES": entries, "BLOCKS": blocks, "THREADS": _LOOKUP_THREADS}
    source = Source("hwptq_lookup", ("fixed_point.cuh", "lookup.cuh"))
    return sourced_kernel(source, constants, inputs, [out], blocks, _LOOKUP_THREADS, "lookup")


def norm_kernel(join: NormJoin, gpu: Gpu) -> Joined | None:
    """A norm with what stands before and behind it; None where the sum is no int16 of equal rows."""
    if not _sums(join) or (
        join.rescale and (join.rescale.out, join.rescale.rounding, join.out) != ("int8", STEPS, "int16")
    ):
        return None
    *lead, count = join.x.shape
    bits, room = fraction_bits(join.norm_input), 31 - count.bit_length()
    lanes = 32
    while (
        lanes > _LEAST_LANES and count <= lanes // 2 * _MOST_VALUES and prod(lead) * lanes > gpu.busy_threads
    ):
        lanes //= 2
    constants: dict[str, Any] = {
        "COUNT": count, "ROWS": prod(lead), "WARPS": _WARPS, "LANES": lanes,
        "CENTERED": join.norm.centered, "BITS": bits,
        "ROOM": room, "SHIFT": join.norm.shift, "EPS": join.norm.eps,
        "BITS_OF_SHIFT": room - NORMALIZED_BITS + bits, "KEEPS_SUM": join.keeps_sum, "KEEPS": join.keeps,
        "Out": {"ZERO": join.norm.out_zero_point, "LO": join.norm.lo, "HI": join.norm.hi},
        "Sum": _sum_constants(join.add, join.other), "Bytes": _bytes_constants(join.rescale),
    }  # fmt: skip
    factors = TensorType((count,), "int32")
    inputs = [join.x, *([join.other] if join.other else []), factors, factors]
    kept = [TensorType(join.x.shape, "int16")] if join.keeps_sum else []
    results = [*kept, TensorType(join.x.shape, join.out)]
    results += [TensorType(join.x.shape, "int8")] if join.rescale else []
    source = Source(f"hwptq_norm_{_name(join)}", _NORM)
    blocks = -(-prod(lead) * lanes // (32 * _WARPS))
    func = sourced_kernel(source, constants, inputs, results, blocks, 32 * _WARPS, "norm")
    return Joined(func, (), results, "norm_rows")


def _name(join: NormJoin) -> str:
    if join.add is None:
        return "alone" if join.rescale is None else "and_bytes"
    if join.keeps_sum:
        return "and_sum"
    return "of_sum" if join.rescale is None else "of_sum_and_bytes"


def _sums(join: NormJoin) -> bool:
    if join.add is None or join.other is None:
        return True
    alike = join.x.shape[-1] == join.other.shape[-1] and _whole_rows(join.other.shape, join.x.shape)
    return alike and (join.add.out, join.add.rounding) == ("int16", STEPS)


def _whole_rows(shape: Sequence[int], out: Sequence[int]) -> bool:
    """Whether a tensor is the rows of `out`, or the last ones of them again and again."""
    own = tuple(shape)
    while own[:1] == (1,):
        own = own[1:]
    return bool(own) and tuple(out)[len(out) - len(own) :] == own


def _sum_constants(add: Add | None, other: TensorType | None) -> dict[str, int]:
    if add is None or other is None:
        names = ("ROWS", "A_ZERO", "B_ZERO", "A_FACTOR", "B_FACTOR", "MULTIPLIER", "SHIFT")
        return {"IS": 0, **dict.fromkeys(names, 1), "ZERO": 0, "LO": 0, "HI": 0}
    return {
        "IS": 1, "ROWS": prod(other.shape[:-1]), "A_ZERO": add.a_zero_point, "B_ZERO": add.b_zero_point,
        "A_FACTOR": add.a_factor, "B_FACTOR": add.b_factor, "MULTIPLIER": add.multiplier, "SHIFT": add.shift,
        "ZERO": add.out_zero_point, "LO": add.lo, "HI": add.hi,
    }  # fmt: skip


def _bytes_constants(op: Rescale | None) -> dict[str, int]:
    if op is None:
        return {"IS": 0, "MULTIPLIER": 1, "SHIFT": 1, "ZERO": 0, "LO": 0, "HI": 0}
    return {
        "IS": 1, "MULTIPLIER": op.multiplier, "SHIFT": op.shift, "ZERO": op.out_zero_point, "LO": op.lo,
        "HI": op.hi,
    }  # fmt: skip
