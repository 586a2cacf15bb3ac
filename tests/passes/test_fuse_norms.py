"""Norms that are written out become operators: the same values, by every way that exports write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from relax_graphs import apply, const, graph, op, run
from tvm import relax

from hwptq.ir.dataflow import bindings, op_name
from hwptq.passes import FuseNorms

SHAPE = (2, 5, 12)
EPS = 1e-5


def number(value: float) -> Any:
    return relax.const(np.float32(value))


SQUARES = {
    "power": lambda x: op.power(x, number(2)),
    "product": lambda x: op.multiply(x, x),
    "square": op.square,
}
QUOTIENTS = {
    "division": lambda emit, x, s: op.divide(x, emit(op.sqrt(s))),
    "reciprocal": lambda emit, x, s: op.multiply(x, emit(op.divide(number(1), emit(op.sqrt(s))))),
    "rsqrt": lambda emit, x, s: op.multiply(emit(op.rsqrt(s)), x),
    "power": lambda emit, x, s: op.multiply(x, emit(op.power(s, number(-0.5)))),
}


def normal(emit: Any, x: Any, square: str, quotient: str) -> Any:
    mean = emit(op.mean(emit(SQUARES[square](x)), [-1], keepdims=True))
    return emit(QUOTIENTS[quotient](emit, x, emit(op.add(mean, number(EPS)))))


def check(build: Any, kinds: list[str]) -> None:
    """Fail unless FuseNorms leaves operators of these kinds, and the values."""
    before = graph(build, x=SHAPE)
    after = apply(FuseNorms(), before)
    assert [op_name(v) for _, v in bindings(after["main"]) if op_name(v)] == kinds
    x = [{"x": np.random.default_rng(0).normal(1, 3, SHAPE).astype(np.float32)}]
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("quotient", QUOTIENTS)
def test_rms_norm(square: str, quotient: str) -> None:
    check(
        lambda emit, x: emit(op.multiply(const(12, seed=3), normal(emit, x, square, quotient))),
        ["nn.rms_norm"],
    )


def test_rms_norm_without_a_scale() -> None:
    check(lambda emit, x: normal(emit, x, "power", "division"), ["nn.rms_norm"])


@pytest.mark.parametrize("quotient", QUOTIENTS)
def test_layer_norm(quotient: str) -> None:
    def build(emit: Any, x: Any) -> Any:
        d = emit(op.subtract(x, emit(op.mean(x, [2], keepdims=True))))
        scaled = emit(op.multiply(normal(emit, d, "power", quotient), const(12, seed=1)))
        return emit(op.add(scaled, const(12, seed=2)))

    check(build, ["nn.layer_norm"])


def test_l2_norm() -> None:
    def build(emit: Any, x: Any) -> Any:
        length = emit(op.sqrt(emit(op.sum(emit(op.multiply(x, x)), [-1], keepdims=True))))
        return emit(op.divide(x, emit(op.maximum(length, number(1e-12)))))

    check(build, ["nn.rms_norm"])


def test_another_axis_is_no_norm() -> None:
    def build(emit: Any, x: Any) -> Any:
        mean = emit(op.mean(emit(op.multiply(x, x)), [1], keepdims=True))
        return emit(op.divide(x, emit(op.sqrt(emit(op.add(mean, number(EPS)))))))

    check(build, ["multiply", "mean", "add", "sqrt", "divide"])


def test_the_squares_of_something_else_are_no_norm() -> None:
    def build(emit: Any, x: Any) -> Any:
        y = emit(op.abs(x))
        mean = emit(op.mean(emit(op.multiply(y, x)), [-1], keepdims=True))
        return emit(op.divide(x, emit(op.sqrt(emit(op.add(emit(op.abs(mean)), number(EPS)))))))

    check(build, ["abs", "multiply", "mean", "abs", "add", "sqrt", "divide"])
