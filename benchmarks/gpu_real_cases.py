"""Operators in float32 with one order of their sums, and on weights by group, for gpu_operators.py."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import numpy as np
from gpu_operator_case import Case, Values

from hwptq.formats import format_of
from hwptq.operators.attention import Attention, AttentionOnRows
from hwptq.operators.dense import DenseFloat
from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.operators.real_arithmetic import FUNCTIONS, RealArithmetic
from hwptq.operators.real_norm import RealLayerNorm, RealRmsNorm
from hwptq.operators.real_sigmoid import RealSigmoid
from hwptq.operators.rows import RowQuantize, RowRescale, RowScale
from hwptq.operators.write_rows import WriteRows
from hwptq.quant.group_codes import byte_scales, group_count, pack_rows, short_scales

_WEIGHTS = ("int8", "int4", "int3", "int2", "levels_1_3", "levels_1_4")
#: Batch, heads, heads of keys, rows, positions, depth, width.
_ATTENTIONS = ((1, 4, 2, 1, 129, 64, 64), (2, 3, 3, 37, 37, 32, 48), (1, 8, 1, 5, 700, 128, 128))


def real_cases(v: Values) -> Iterator[Case]:
    """Of each kind a few; their names begin with real."""
    for number, case in enumerate((*_rows(v), *_functions(v), *_attention(v), *_groups(v))):
        yield Case(f"real{number}_{case.name}", case.op, case.activations, case.constants)


def _normal(v: Values, *shape: int) -> np.ndarray:
    return (v.rng.standard_normal(shape) * 10.0 ** v.rng.uniform(-2, 2)).astype(np.float32)


def _rows(v: Values) -> Iterator[Case]:
    for shape in ((1, 1, 256), (3, 7, 100), (5, 4096)):
        x = _normal(v, *shape)
        x[0, 0] = 0
        yield Case("scale", RowScale(), (x,))
        scale = RowScale().reference(x)
        yield Case("codes", RowQuantize(), (x, scale))
        bias = _normal(v, shape[-1])
        for bounds in ((-inf, inf), (-0.5, 3.0)):
            yield Case("rescale", RowRescale(*bounds), (x, scale), (bias,))
        gamma = _normal(v, shape[-1])
        yield Case("rms_norm", RealRmsNorm(1e-5), (x,), (gamma,))
        yield Case("layer_norm", RealLayerNorm(1e-5), (x,), (gamma, bias))
    past, new = _normal(v, 1, 4, 9, 8), _normal(v, 1, 4, 2, 8)
    at, count = np.array([3]), np.array([1])
    yield Case("write_rows", WriteRows(-2), (past, new, at, count))


def _functions(v: Values) -> Iterator[Case]:
    x = _normal(v, 2, 3, 50)
    yield Case("sigmoid", RealSigmoid(), (x * 10,))
    for function in FUNCTIONS:
        yield Case(function, RealArithmetic(function), (x, _normal(v, 3, 1)))
        yield Case(function, RealArithmetic(function), (x, _normal(v, 50)))


def _attention(v: Values) -> Iterator[Case]:
    for batch, heads, shared, rows, positions, depth, width in _ATTENTIONS:
        shapes = (
            (batch, heads, rows, depth),
            (batch, shared, positions, depth),
            (batch, shared, positions, width),
        )
        tensors = [v.rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        hidden = v.rng.random((batch, 1, rows, positions)) < 0.3
        hidden[0, 0, 0] = True
        for empties in (True, False):
            op = Attention(0.125, empties)
            yield Case("attention", op, (*tensors, hidden.astype(np.int8)))
        codes = [v.rng.integers(-127, 128, shape).astype(np.int8) for shape in shapes]
        scales = [np.exp(v.rng.uniform(-6, -3, (*shape[:3], 1))).astype(np.float32) for shape in shapes]
        behind = (np.arange(positions) > positions // 2).astype(np.int8).reshape(1, 1, 1, -1)
        yield Case("attention_on_rows", AttentionOnRows(0.125, True), (*codes, behind, *scales))


def _groups(v: Values) -> Iterator[Case]:
    for weight in _WEIGHTS:
        for rows, depth, size, outputs in (
            (1, 512, 32, 96), (3, 100, 16, 17), (11, 4096, 64, 33), (1, 1024, 128, 130), (9, 512, 256, 64),
        ):  # fmt: skip
            arrays = _weights(v, weight, outputs, depth, size)
            x = v.rng.integers(-127, 128, (rows, depth)).astype(np.int8)
            yield Case(f"dense_{weight}", GroupDense(weight, size, depth), (x,), arrays)
        index = v.rng.integers(-1, outputs + 1, (2, 5))
        yield Case(f"rows_{weight}", GroupEmbedding(weight, size, depth), (index,), arrays)
    x, w = v.int8(9, 384), v.int8(130, 384)
    yield Case("dense_float", DenseFloat(), (x,), (w, v.fixed(130, 384)[0], v.reals(0.01, 2, 130)))


def _weights(v: Values, weight: str, count: int, depth: int, size: int) -> tuple[np.ndarray, ...]:
    found, shape = format_of(weight), (count, group_count(depth, size))
    codes = pack_rows(found.from_codes(v.rng.integers(0, 2**found.bits, (count, depth))), found)
    scales = np.abs(_normal(v, *shape)) + np.float32(2.0**-20)
    form = v.rng.integers(0, 3)
    made = scales if form == 0 else (short_scales, byte_scales)[form - 1](scales)
    zeros = v.rng.integers(-9, 9, shape).astype(np.int8)
    return (codes, made, zeros) if v.rng.random() < 0.5 else (codes, made)
