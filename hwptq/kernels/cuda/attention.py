"""Attention on int8 as one kernel: products on tensor cores, and the softmax between them in registers."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from hwptq.kernels.joins import AttentionJoin, Joined, View
from hwptq.operators.matmul import MatMul
from hwptq.operators.softmax import Softmax
from hwptq.quant.fixed_point import STEPS
from hwptq.quant.integer_softmax import Exponent, exponential, probability_of_alike
from hwptq.targets.gpu import Gpu
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import broadcast_strides

from .rows import exponential_constants
from .sourced import Index, Source, offset, sourced_kernel

_FILES = ("fixed_point.cuh", "exponential.cuh", "mma_int8.cuh", "attention.cuh")
_ROWS = 16  # queries of a warp
_MOST_WARPS = 4
_MOST_ROUNDS = 2
_MOST_KEYS = 256  # scores of 16 queries fit a warp's registers
_MOST_DEPTH = 128
_MOST_ENTRIES = 2**14  # of a table in shared memory
#: The functions of attention.cuh, by whether there are a mask and a table.
_FORMS = {(True, True): "", (True, False): "_masked", (False, True): "_by_table", (False, False): "_plain"}
_LIMIT = 2**31


def attention_kernel(join: AttentionJoin, gpu: Gpu) -> Joined | None:
    """The kernel, or None where the tensors do not lie so that it could read them, or are too large."""
    if not _takes(join):
        return None
    queries, depth, keys = join.q.shape[-2], join.q.shape[-1], join.k.shape[-1]
    warps = min(_MOST_WARPS, -(-queries // _ROWS))
    rounds = min(_MOST_ROUNDS, -(-queries // (_ROWS * warps)))
    blocks = prod(join.q.shape[:-2]) * -(-queries // (_ROWS * warps * rounds))
    padded = -(-keys // 32) * 32
    room = (gpu.shared_memory - _shared_bytes(depth, padded)) // 2
    if room < 0:
        return None
    table = _exponentials(join.softmax, min(rounds * warps * _ROWS * padded, room))
    constants: dict[str, Any] = {
        "QUERIES": queries, "KEYS": keys, "PADDED": padded, "DEPTH": depth, "WARPS": warps, "ROUNDS": rounds,
        "ROW_OF_Q": join.q.strides[-2], "ROW_OF_K": join.k.strides[-1], "ROW_OF_V": join.v.strides[-2],
        "ROW_OF_OUT": join.out.strides[-2],
        **{name: _begin(view) for name, view in zip("qkv", (join.q, join.k, join.v), strict=True)},
        "out": _begin(join.out),
        **_hidden(join),
        "Q_ZERO": join.scores.a_zero_point, "K_ZERO": join.scores.b_zero_point,
        "V_ZERO": join.mean.b_zero_point,
        "ALIKE": join.softmax.alike, "P_ALIKE": probability_of_alike(keys), "ENTRIES": len(table),
        **exponential_constants(join.softmax), "Scores": _scales(join.scores), "Values": _scales(join.mean),
    }  # fmt: skip
    inputs = [view.stored for view in (join.q, join.k, join.v)]
    inputs += [] if join.hidden is None else [join.hidden]
    inputs += [TensorType(table.shape, "int16")] if len(table) else []
    source = Source(f"hwptq_attention{_FORMS[join.hidden is not None, len(table) > 0]}", _FILES)
    func = sourced_kernel(source, constants, inputs, [join.out.stored], blocks, 32 * warps, "attention")
    return Joined(func, [table] if len(table) else [], [join.out.stored], "attention_mma")


def _exponentials(op: Softmax, most: int) -> np.ndarray:
    """Those of 0 … reach, int16, filled up to a multiple of 8; none where there are more than `most`."""
    by = Exponent(op.factor, op.shift, op.reach)
    entries = -(-(by.reach + 1) // 8) * 8
    if entries > min(most, _MOST_ENTRIES):
        return np.zeros(0, np.int16)
    return exponential(np.minimum(np.arange(entries), by.reach), by).astype(np.int16)


def _shared_bytes(depth: int, padded: int) -> int:
    """Of keys, values, and what stands for each key; see attention.cuh."""
    return 4 * (padded * (depth // 4 + 4) + depth * (padded // 4 + 4)) + 12 * padded + 32


def _takes(join: AttentionJoin) -> bool:
    depth, keys = join.q.shape[-1], join.k.shape[-1]
    lead = join.q.shape[:-2]
    views, inner = (
        (join.q, join.k, join.v, join.out),
        (join.q.strides[-1], join.k.strides[-2], join.v.strides[-1]),
    )
    return (
        depth % 32 == 0 and depth <= _MOST_DEPTH and join.v.shape[-1] == depth and keys <= _MOST_KEYS
        and lead == join.k.shape[:-2] == join.v.shape[:-2] == join.out.shape[:-2]
        and all(stride == 1 for stride in (*inner, join.out.strides[-1]))
        and all(_aligned(view) for view in views)
        and all(_in_bytes(op) for op in (join.scores, join.mean))
        and join.mean.a_zero_point == -128 and join.mean.out == "int8"
        and all(view.stored.dtype == "int8" and prod(view.stored.shape) < _LIMIT for view in views)
    )  # fmt: skip


def _in_bytes(op: MatMul) -> bool:
    return op.activation_bits == 8 and op.acc_shift == 0 and op.rounding == STEPS


def _aligned(view: View) -> bool:
    """Whether 16 bytes from each position on can be loaded at once."""
    return view.first % 16 == 0 and all(
        s % 16 == 0 for s, n in zip(view.strides, view.shape, strict=True) if s != 1 and n > 1
    )


def _begin(view: View) -> Index:
    found = offset(view.shape[:-2], view.strides[:-2])
    return Index(f"{found.expression} + {view.first}") if view.first else found


def _hidden(join: AttentionJoin) -> dict[str, Any]:
    if join.hidden is None:
        return {"MASKED": 0, "ROW_OF_HIDDEN": 0, "COLUMN_OF_HIDDEN": 0, "hidden": Index("0")}
    scores = (*join.q.shape[:-1], join.k.shape[-1])
    *lead, row, column = broadcast_strides(join.hidden.shape, scores)
    return {
        "MASKED": 1,
        "ROW_OF_HIDDEN": row,
        "COLUMN_OF_HIDDEN": column,
        "hidden": offset(scores[:-2], lead),
    }


def _scales(op: MatMul) -> dict[str, int]:
    return {
        "MULTIPLIER": op.multiplier,
        "SHIFT": op.shift,
        "ZERO": op.out_zero_point,
        "LO": op.lo,
        "HI": op.hi,
    }
