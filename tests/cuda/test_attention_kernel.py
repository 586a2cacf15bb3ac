"""Attention on int8 as one CUDA kernel, its threads emulated: equal to the operators that it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import pytest
from emulated_source import emulated

from hwptq.kernels.cuda.attention import attention_kernel
from hwptq.kernels.joins import AttentionJoin, View
from hwptq.operators.matmul import MatMul
from hwptq.operators.softmax import Softmax
from hwptq.quant.integer_softmax import exponent
from hwptq.targets.gpu import Gpu
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import row_major


@dataclass(frozen=True)
class Shape:
    """heads of `batch` samples; keys of `depth`."""

    batch: int
    heads: int
    queries: int
    keys: int
    depth: int


def _heads(s: Shape, positions: int, first: int = 0, across: int = 1) -> View:
    """[batch, heads, positions, depth], stored as [batch, positions, across, heads, depth]."""
    width = s.heads * s.depth * across
    stored = TensorType((s.batch, positions, width), "int8")
    return View(stored, (s.batch, s.heads, positions, s.depth), (positions * width, s.depth, width, 1), first)


def _turned(view: View) -> View:
    b, h, p, d = view.strides
    return View(view.stored, (*view.shape[:2], view.shape[3], view.shape[2]), (b, h, d, p), view.first)


def _read(view: View, array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)[view.first :]
    return np.lib.stride_tricks.as_strided(flat, view.shape, view.strides)


@pytest.mark.parametrize(
    ("shape", "mask", "scale"),
    [
        (Shape(2, 3, 20, 20, 32), (2, 1, 1, 20), 0.002),
        (Shape(1, 2, 17, 40, 64), None, 0.01),
        (Shape(1, 1, 70, 33, 32), (70, 33), 0.1),
        (Shape(1, 2, 64, 128, 32), (1, 1, 1, 128), 0.0001),
        (Shape(1, 2, 64, 128, 32), (1, 1, 1, 128), 0.01),
    ],
    ids=["mask of a sample", "no mask", "mask of each query", "long reach", "table"],
)
@pytest.mark.parametrize("alike", [False, True])
def test_equal_to_its_operators(
    shape: Shape, mask: tuple[int, ...] | None, scale: float, alike: bool
) -> None:
    rng = np.random.default_rng(shape.queries + alike)
    by = exponent(scale)
    scores = MatMul(-7, 12, 1316477058, 3, 0, -32768, 32767, 8, "int16")
    softmax = Softmax(by.factor, by.shift, by.reach, mask is not None, alike)
    mean = MatMul(-128, -15, 1661145379, 7, -3, -128, 127)
    q, v = _heads(shape, shape.queries), _heads(shape, shape.keys, shape.heads * shape.depth, across=2)
    k = _turned(_heads(shape, shape.keys))
    out = _heads(shape, shape.queries)
    hidden = TensorType(mask, "int8") if mask else None
    made = attention_kernel(AttentionJoin(scores, softmax, mean, q, k, v, hidden, out), Gpu())
    assert made is not None
    arrays = [rng.integers(-128, 128, t.stored.shape).astype(np.int8) for t in (q, k, v)]
    given = []
    if mask:
        given = [(rng.random(mask) < 0.4).astype(np.int8)]
        given[0].reshape(-1, mask[-1])[0] = 1  # a row that is hidden whole
    (found,) = emulated(made.func, [*arrays, *given, *made.constants], made.results)
    p = softmax.reference(scores.reference(_read(q, arrays[0]), _read(k, arrays[1])), *given)
    expected = mean.reference(p, _read(v, arrays[2]))
    assert prod(expected.shape) == found.size
    np.testing.assert_array_equal(_read(out, found), expected)


def test_what_it_does_not_take() -> None:
    by = exponent(0.01)
    scores = MatMul(0, 0, 2**30, 3, 0, -32768, 32767, 8, "int16")
    softmax = Softmax(by.factor, by.shift, by.reach)
    mean = MatMul(-128, 0, 2**30, 7, 0, -128, 127)
    for s in (Shape(1, 1, 8, 8, 20), Shape(1, 1, 8, 300, 32), Shape(1, 1, 8, 8, 256)):
        q, k, v = _heads(s, s.queries), _turned(_heads(s, s.keys)), _heads(s, s.keys)
        assert attention_kernel(AttentionJoin(scores, softmax, mean, q, k, v, None, q), Gpu()) is None
    s = Shape(1, 1, 8, 8, 32)
    q, v = _heads(s, 8), _heads(s, 8)
    join = AttentionJoin(scores, softmax, mean, q, _turned(_heads(s, 8)), v, None, q)
    assert attention_kernel(join, Gpu())
    assert attention_kernel(join, Gpu(shared_memory=2**10)) is None
    keys = View(v.stored, (1, 1, 32, 8), row_major((1, 1, 32, 8)))  # the depth does not lie together
    assert attention_kernel(AttentionJoin(scores, softmax, mean, q, keys, v, None, q), Gpu()) is None
