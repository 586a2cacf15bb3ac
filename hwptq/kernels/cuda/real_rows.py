"""Kernels of float32 rows with one order of their sums: scales of rows, norms, attention."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import tvm

from hwptq.kernels.joins import Joined, RowsJoin
from hwptq.operators.attention import Attention, AttentionOnRows
from hwptq.operators.real_norm import RealLayerNorm, RealRmsNorm
from hwptq.operators.rows import LEAST, MOST, QMAX, RowScale
from hwptq.quant.float_attention import LANES
from hwptq.targets.gpu import Gpu
from hwptq.tir.kernel import TensorType

from .rows import row_kernel
from .sourced import Source, sourced_kernel

_REAL = ("fixed_point.cuh", "real.cuh")
_WARPS = 4
_THREADS = 128  # of attention
_MOST_QUERIES = 4  # that a block of attention takes
_MOST_THREADS, _EACH, _ROOM = 512, 8, 64  # of a row with its codes: elements of a thread, words beside it
_LIMITS = {"LEAST": float(LEAST), "MOST": float(MOST), "QMAX": float(QMAX)}
_NO_NORM = {"SIZE": 1.0, "SHARE": 1.0, "EPS": 0.0}
_PER_QUERY = 16  # bytes beside its scores


@row_kernel.register(RowScale)
def _row_scale(op: RowScale, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu) -> tvm.tirx.PrimFunc:
    rows, count = prod(out.shape), inputs[0].shape[-1]
    constants: dict[str, Any] = {
        "COUNT": count, "ROWS": rows, "WARPS": _WARPS, **_LIMITS
    }  # fmt: skip
    source = Source("hwptq_row_scale", (*_REAL, "row_scale.cuh"))
    return sourced_kernel(source, constants, inputs, [out], -(-rows // _WARPS), 32 * _WARPS, "row_scale")


def rows_kernel(join: RowsJoin, gpu: Gpu) -> Joined | None:
    """Codes and scales of rows with what gives the rows; None where a row of a norm does not fit shared
    memory, and for sums without a norm."""
    *lead, count = join.x.shape
    if (join.norm and 4 * (count + _ROOM) > gpu.shared_memory) or (join.adds and not join.norm):
        return None
    threads = min(_MOST_THREADS, -(-count // (_EACH * 32)) * 32)
    constants: dict[str, Any] = {
        "COUNT": count, "THREADS": threads, "ADDS": join.adds,
        "NORM": 0 if join.norm is None else 1 + join.norm.centered, "KEEPS_SUM": join.keeps_sum,
        "KEEPS": join.keeps, **_LIMITS, **(_norm_constants(join.norm, count) if join.norm else _NO_NORM),
    }  # fmt: skip
    each = TensorType((count,), "float32")
    inputs = [join.x] * (1 + join.adds) + [each] * (0 if join.norm is None else 1 + join.norm.centered)
    results = [join.x] * (join.keeps_sum + join.keeps)
    results += [TensorType(join.x.shape, "int8"), TensorType((*lead, 1), "float32")]
    source = Source("hwptq_row_codes_of", (*_REAL, "row_codes.cuh"))
    func = sourced_kernel(source, constants, inputs, results, prod(lead), threads, "row_codes")
    return Joined(func, (), results, "row_codes")


def _norm_constants(op: RealRmsNorm | RealLayerNorm, count: int) -> dict[str, float]:
    share = float(np.float32(1) / np.float32(count))
    return {"SIZE": float(count), "SHARE": share, "EPS": float(np.float32(op.eps))}


@row_kernel.register(RealRmsNorm)
@row_kernel.register(RealLayerNorm)
def _norm(
    op: RealRmsNorm | RealLayerNorm, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu
) -> tvm.tirx.PrimFunc:
    *lead, count = out.shape
    rows = prod(lead)
    constants: dict[str, Any] = {
        "COUNT": count, "ROWS": rows, "WARPS": _WARPS, **_norm_constants(op, count)
    }  # fmt: skip
    source = Source(f"hwptq_{op.kind}", (*_REAL, "real_norm.cuh"))
    blocks = -(-rows * LANES // (32 * _WARPS))
    return sourced_kernel(source, constants, inputs, [out], blocks, 32 * _WARPS, "real_norm")


@row_kernel.register(Attention)
@row_kernel.register(AttentionOnRows)
def _attention(
    op: Attention | AttentionOnRows, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu
) -> tvm.tirx.PrimFunc:
    """Raises ValueError where the scores of one query don't fit shared memory."""
    (batch, heads, rows, depth), keys, _, hidden = (t.shape for t in inputs[:4])
    room = gpu.shared_memory // (4 * keys[2] + _PER_QUERY)
    if room < 1:
        raise ValueError(
            f"attention over {keys[2]} positions: a block has {gpu.shared_memory} bytes for them"
        )
    queries = min(_MOST_QUERIES, rows, room)
    constants: dict[str, Any] = {
        "HEADS": heads, "SHARED": keys[1], "ROWS": rows, "POSITIONS": keys[2], "DEPTH": depth,
        "WIDTH": out.shape[-1], "QUERIES": queries, "THREADS": _THREADS, "EMPTIES": op.empties,
        "FACTOR": float(np.float32(op.factor)),
        "MASK_BATCH": prod(hidden[1:]) if hidden[0] > 1 else 0, "MASK_ROW": keys[2] if hidden[2] > 1 else 0,
    }  # fmt: skip
    name = "hwptq_attention_in_float" if op.in_float else "hwptq_attention_on_rows"
    source = Source(name, (*_REAL, "real_attention.cuh"))
    blocks = batch * heads * -(-rows // queries)
    return sourced_kernel(source, constants, inputs, [out], blocks, _THREADS, "real_attention")
