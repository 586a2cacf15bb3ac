"""Kernels that join what stays in float32 beside dynamic layers: what its operators give, to the bit."""

from __future__ import annotations

from math import inf
from random import Random

import group_cases
import numpy as np
import on_processor
import pytest
from emulated_source import emulated
from kernel_cases import Case, type_of

from hwptq.kernels.cuda.elements import elements_kernel
from hwptq.kernels.cuda.group_dense import rescaled_group_dense
from hwptq.kernels.cuda.real_rows import rows_kernel
from hwptq.kernels.joins import ElementsJoin, ElementsNode, Operand, RowsJoin, View
from hwptq.operators.real_arithmetic import RealArithmetic
from hwptq.operators.real_norm import RealLayerNorm, RealRmsNorm
from hwptq.operators.real_sigmoid import RealSigmoid
from hwptq.operators.rows import RowQuantize, RowRescale, RowScale
from hwptq.targets.gpu import Gpu
from hwptq.tir.loops import row_major

GPU = Gpu()
NORMS = (None, RealRmsNorm(1e-5), RealLayerNorm(1e-5))


def equal(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found.view(np.uint8), np.ascontiguousarray(expected).view(np.uint8))


@pytest.mark.parametrize("norm", NORMS, ids=("plain", "rms_norm", "layer_norm"))
@pytest.mark.parametrize(
    ("adds", "keeps", "count"), [(False, False, 7), (True, False, 300), (True, True, 70)]
)
def test_codes_of_rows(norm: RealRmsNorm | RealLayerNorm | None, adds: bool, keeps: bool, count: int) -> None:
    rng = np.random.default_rng(count)
    x, other = (rng.standard_normal((2, 2, count)).astype(np.float32) for _ in range(2))
    x[0, 0], other[0, 0] = 0, 0
    gamma, beta = (rng.standard_normal(count).astype(np.float32) for _ in range(2))
    total = x + other if adds else x
    factors = () if norm is None else (gamma, beta)[: 1 + norm.centered]
    rows = total if norm is None else norm.reference(total, *factors)
    scale = RowScale().reference(rows)
    expected = [*([total] if adds else []), *([rows] if keeps and norm else [])]
    expected += [RowQuantize().reference(rows, scale), scale]
    joined = rows_kernel(RowsJoin(adds, norm, type_of(x), adds, keeps and norm is not None), GPU)
    assert (joined is None) == (adds and norm is None)
    if joined is None:
        return
    given = [x, *([other] if adds else []), *factors]
    for found, wanted in zip(emulated(joined.func, given, joined.results), expected, strict=True):
        equal(found, wanted)


def test_a_row_of_a_norm_that_does_not_fit() -> None:
    x = type_of(np.zeros((1, 2**14), np.float32))
    assert rows_kernel(RowsJoin(False, RealRmsNorm(1e-5), x, False, False), GPU) is None
    assert rows_kernel(RowsJoin(False, None, x, False, False), GPU) is not None


@pytest.mark.parametrize("seed", range(6))
def test_a_layer_by_group_with_its_rescale(seed: int) -> None:
    case, rng = group_cases.dense(Random(seed)), np.random.default_rng(seed)
    sums = case.expected()
    scale = np.exp(rng.uniform(-5, 0, (*sums.shape[:-1], 1))).astype(np.float32)
    bias = rng.standard_normal(sums.shape[-1]).astype(np.float32)
    by = RowRescale(*((-inf, inf), (0.0, 4.0), (-1.0, inf))[seed % 3])
    constants = [*case.constants, bias]
    joined = rescaled_group_dense(case.op, by, type_of(case.activations[0]), constants, GPU)
    assert joined is not None
    (found,) = emulated(joined.func, [case.activations[0], scale, *constants], joined.results)
    equal(found, Case(by, (sums, scale), (bias,)).expected())


def whole(array: np.ndarray) -> View:
    return View(type_of(array), array.shape, row_major(array.shape))


@pytest.mark.usefixtures("intrinsics")
def test_a_gate() -> None:
    gate, up = (np.random.default_rng(i).standard_normal((2, 9)).astype(np.float32) * 5 for i in (1, 2))
    out, times = type_of(gate), RealArithmetic("multiply")
    nodes = (
        ElementsNode(RealSigmoid(), (Operand(0, False, whole(gate)),), out),
        ElementsNode(times, (Operand(0, False, whole(gate)), Operand(0, True, whole(gate))), out),
        ElementsNode(times, (Operand(1, True, whole(gate)), Operand(1, False, whole(up))), out),
    )
    joined = elements_kernel(ElementsJoin((out, out), nodes))
    found = on_processor.run(joined.func, [gate, up], out)
    equal(found, times.reference(times.reference(gate, RealSigmoid().reference(gate)), up))


@pytest.mark.usefixtures("intrinsics")
def test_rotary_positions_of_moved_heads() -> None:
    """x [1,T,H*D] as heads [1,H,T,D], half of whose channels change places."""
    tokens, heads, size = 3, 2, 4
    x = np.random.default_rng(0).standard_normal((1, tokens, heads * size)).astype(np.float32)
    turns = [
        np.random.default_rng(i).standard_normal((1, 1, tokens, size)).astype(np.float32) for i in (1, 2)
    ]
    minus = np.array(-1, np.float32)
    shape, half = (1, heads, tokens, size), (1, heads, tokens, size // 2)
    strides = (tokens * heads * size, size, heads * size, 1)
    view = View(type_of(x), shape, strides)
    low, high = (View(type_of(x), half, strides, first) for first in (0, size // 2))
    out, times, part = (
        type_of(np.zeros(shape, np.float32)),
        RealArithmetic("multiply"),
        np.zeros(half, np.float32),
    )
    here = View(out, shape, row_major(shape))
    cos, sin = (Operand(i, False, whole(turn)) for i, turn in enumerate(turns, 1))
    nodes = (
        ElementsNode(times, (Operand(0, False, high), Operand(3, False, whole(minus))), type_of(part)),
        ElementsNode(None, (Operand(0, True, whole(part)), Operand(0, False, low)), out, 3),
        ElementsNode(times, (Operand(1, True, here), sin), out),
        ElementsNode(times, (Operand(0, False, view), cos), out),
        ElementsNode(RealArithmetic("add"), tuple(Operand(i, True, here) for i in (3, 2)), out),
    )  # fmt: skip
    joined = elements_kernel(ElementsJoin(tuple(map(type_of, (x, *turns, minus))), nodes))
    moved = x.reshape(1, tokens, heads, size).transpose(0, 2, 1, 3)
    across = np.concatenate([-moved[..., size // 2 :], moved[..., : size // 2]], -1)
    equal(on_processor.run(joined.func, [x, *turns, minus], out), moved * turns[0] + across * turns[1])
