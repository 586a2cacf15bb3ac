"""Kernels of float32 rows with one order of their sums: scales of rows, norms, attention."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import tvm

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
_PER_QUERY = 16  # bytes beside its scores


@row_kernel.register(RowScale)
def _row_scale(op: RowScale, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu) -> tvm.tirx.PrimFunc:
    rows, count = prod(out.shape), inputs[0].shape[-1]
    constants: dict[str, Any] = {
        "COUNT": count, "ROWS": rows, "WARPS": _WARPS, "LEAST": float(LEAST), "MOST": float(MOST),
        "QMAX": float(QMAX),
    }  # fmt: skip
    source = Source("hwptq_row_scale", (*_REAL, "row_scale.cuh"))
    return sourced_kernel(source, constants, inputs, [out], -(-rows // _WARPS), 32 * _WARPS, "row_scale")


@row_kernel.register(RealRmsNorm)
@row_kernel.register(RealLayerNorm)
def _norm(
    op: RealRmsNorm | RealLayerNorm, inputs: Sequence[TensorType], out: TensorType, gpu: Gpu
) -> tvm.tirx.PrimFunc:
    *lead, count = out.shape
    rows = prod(lead)
    constants: dict[str, Any] = {
        "COUNT": count, "ROWS": rows, "WARPS": _WARPS, "SIZE": float(count),
        "SHARE": float(np.float32(1) / np.float32(count)), "EPS": float(np.float32(op.eps)),
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
