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


TURNED = ["permute_dims", "nn.layer_norm", "permute_dims"]


def along(axis: int, seed: int) -> Any:
    """A constant with one value for each element of an axis of SHAPE."""
    return const(*(n if i == axis else 1 for i, n in enumerate(SHAPE)), seed=seed)


@pytest.mark.parametrize("axis", [1, 2])
def test_over_another_axis(axis: int) -> None:
    """As channels of images are normed where they come first."""

    def build(emit: Any, x: Any) -> Any:
        d = emit(op.subtract(x, emit(op.mean(x, [axis], keepdims=True))))
        squares = emit(op.mean(emit(op.power(d, number(2))), [axis], keepdims=True))
        normed = emit(op.divide(d, emit(op.sqrt(emit(op.add(squares, number(EPS)))))))
        scaled = emit(op.multiply(along(axis, seed=1), normed))
        return emit(op.add(scaled, along(axis, seed=2)))

    check(build, TURNED if axis == 1 else ["nn.layer_norm"])


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("keepdims", [False, True])
def test_from_the_mean_of_squares(axis: int, keepdims: bool) -> None:
    """As JAX writes it: E[x^2] - E[x]^2 of sums, not below 0, and gamma beside the root."""
    kept = [1 if i == axis else n for i, n in enumerate(SHAPE)]

    def build(emit: Any, x: Any) -> Any:
        def mean(of: Any) -> Any:
            return emit(op.multiply(emit(op.sum(of, [axis], keepdims=keepdims)), number(1 / SHAPE[axis])))

        def spread(of: Any) -> Any:
            return emit(op.broadcast_to(emit(op.reshape(of, kept)), kept))

        first = mean(x)
        difference = emit(op.subtract(mean(emit(op.multiply(x, x))), emit(op.multiply(first, first))))
        variance = spread(emit(op.maximum(number(0), difference)))
        root = emit(op.rsqrt(emit(op.add(variance, number(EPS)))))
        factor = emit(op.multiply(root, along(axis, seed=1)))
        normed = emit(op.multiply(emit(op.subtract(x, spread(first))), factor))
        return emit(op.add(normed, along(axis, seed=2)))

    check(build, TURNED if axis == 1 else ["nn.layer_norm"])


def test_the_mean_and_the_squares_of_different_axes_are_no_norm() -> None:
    def build(emit: Any, x: Any) -> Any:
        d = emit(op.subtract(x, emit(op.mean(x, [1], keepdims=True))))
        return normal(emit, d, "square", "division")

    check(build, ["mean", "subtract", "nn.rms_norm"])


def test_a_mean_over_half_of_the_elements_is_none() -> None:
    def build(emit: Any, x: Any) -> Any:
        squares = emit(op.multiply(emit(op.sum(emit(op.square(x)), [-1], keepdims=True)), number(2 / 12)))
        return emit(op.divide(x, emit(op.sqrt(squares))))

    check(build, ["square", "sum", "multiply", "sqrt", "divide"])


def test_the_squares_of_something_else_are_no_norm() -> None:
    def build(emit: Any, x: Any) -> Any:
        y = emit(op.abs(x))
        mean = emit(op.mean(emit(op.multiply(y, x)), [-1], keepdims=True))
        return emit(op.divide(x, emit(op.sqrt(emit(op.add(emit(op.abs(mean)), number(EPS)))))))

    check(build, ["abs", "multiply", "mean", "abs", "add", "sqrt", "divide"])
