"""Masks of every kind become masks of the softmax: the same values, and no mask in any range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from relax_graphs import apply, graph, nn, op, run
from tvm import relax

from hwptq.calibration import calibrate
from hwptq.ir.composite import composite_kind
from hwptq.ir.dataflow import bindings, op_name
from hwptq.passes import FuseMasks, InsertQDQ, LowerToInteger
from hwptq.targets import load_target

SHAPE = (2, 3, 5, 5)
LOWEST = float(np.finfo(np.float32).min)
CAUSAL = np.tril(np.ones((5, 5), bool))
BIAS = np.random.default_rng(5).normal(0, 2, (1, 3, 5, 5)).astype(np.float32)


def number(value: float) -> Any:
    return relax.const(np.float32(value))


def added(low: float) -> np.ndarray:
    return np.where(CAUSAL, 0, low).astype(np.float32)


def padding(emit: Any, low: float) -> Any:
    """(1 - mask) * low of a mask of ones and zeros."""
    kept = relax.const(np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int64))
    real = emit(op.astype(op.expand_dims(kept, [1, 2]), "float32"))
    return emit(op.multiply(op.subtract(number(1), real), number(low)))


MASKS: dict[str, Callable[[Any, Any], Any]] = {
    "a constant": lambda emit, x: op.add(x, relax.const(added(-1e4))),
    "the least float": lambda emit, x: op.add(relax.const(added(LOWEST)), x),
    "small ones": lambda emit, x: op.add(x, relax.const(added(-100))),
    "computed": lambda emit, x: op.add(x, padding(emit, -1e4)),
    "two": lambda emit, x: op.add(op.add(x, relax.const(added(-1e9))), padding(emit, LOWEST)),
    "joined": lambda emit, x: op.add(x, emit(op.minimum(padding(emit, LOWEST), relax.const(added(LOWEST))))),
    "where": lambda emit, x: op.where(relax.const(CAUSAL), x, number(LOWEST)),
    "where not": lambda emit, x: op.where(relax.const(~CAUSAL), number(-1e4), x),
    "a filled tensor beside a condition": lambda emit, x: op.add(
        x, emit(op.where(relax.const(CAUSAL), relax.const(np.zeros((1, 3, 5, 5), "float32")), number(LOWEST)))
    ),
    "a filled tensor beside a mask": lambda emit, x: op.add(
        x, emit(op.multiply(padding(emit, 1.0), relax.const(np.full((2, 3, 5, 5), -1e9, "float32"))))
    ),
    "a bias beside a mask": lambda emit, x: op.add(
        x, relax.const(added(LOWEST) + np.eye(5, dtype=np.float32))
    ),
    "a masked bias": lambda emit, x: op.add(
        x, emit(op.where(relax.const(CAUSAL), relax.const(BIAS), number(LOWEST)))
    ),
    "a mask added to a bias": lambda emit, x: op.add(
        x, emit(op.add(emit(op.multiply(relax.const(BIAS), number(0.5))), padding(emit, LOWEST)))
    ),
    "a mask added to a constant": lambda emit, x: op.add(
        x, emit(op.add(padding(emit, LOWEST), relax.const(BIAS)))
    ),
    "a masked sum": lambda emit, x: op.where(
        relax.const(CAUSAL),
        emit(op.add(x, emit(op.add(relax.const(BIAS), padding(emit, -1e9))))),
        number(LOWEST),
    ),
    "where added": lambda emit, x: op.add(x, emit(op.where(relax.const(CAUSAL), number(0), number(LOWEST)))),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_leaves_the_values(kind: str) -> None:
    before = graph(lambda emit, x: emit(nn.softmax(emit(MASKS[kind](emit, x)))), x=SHAPE)
    after = apply(FuseMasks(), before)
    values = [value for _, value in bindings(after["main"])]
    assert any(composite_kind(after, v) == "softmax" for v in values)
    assert not any(op_name(v) == "nn.softmax" for v in values)
    x = [{"x": np.random.default_rng(0).normal(0, 3, SHAPE).astype(np.float32)}]
    np.testing.assert_allclose(run(after, x), run(before, x), atol=1e-6)


@pytest.mark.parametrize("low", [-1e9, LOWEST])
def test_rows_hidden_whole_stay_uniform(low: float) -> None:
    hidden = np.array([1, 0, 1, 0, 0], bool)[:, None] | ~CAUSAL
    mask = relax.const(np.where(hidden, low, 0).astype(np.float32))
    before = graph(lambda emit, x: emit(nn.softmax(emit(op.add(x, mask)))), x=SHAPE)
    x = [{"x": np.random.default_rng(0).normal(0, 0.1, SHAPE).astype(np.float32)}]
    after = apply(FuseMasks(), before)
    np.testing.assert_allclose(run(after, x), run(before, x), atol=1e-6 if low == LOWEST else 0.05)
    target = load_target("arm-cortex-a")
    integer = apply(LowerToInteger(target), apply(InsertQDQ(target, calibrate(after, x)), after))
    np.testing.assert_allclose(run(integer, x), run(before, x), atol=0.05)


OTHERS: dict[str, Callable[[Any, Any], Any]] = {
    "a bias": lambda emit, x: op.add(x, relax.const(added(-3))),
    "something positive": lambda emit, x: op.add(x, padding(emit, 1e4)),
    "a float": lambda emit, x: op.add(x, op.multiply(x, number(-1e4))),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_mask_stays(kind: str) -> None:
    before = graph(lambda emit, x: emit(nn.softmax(emit(OTHERS[kind](emit, x)))), x=SHAPE)
    after = apply(FuseMasks(), before)
    assert any(op_name(v) == "nn.softmax" for _, v in bindings(after["main"]))


def test_what_replaces_nan_behind_a_softmax_goes() -> None:
    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.softmax(emit(op.add(x, relax.const(added(LOWEST))))))
        return emit(op.where(emit(op.isnan(y)), number(0), y))

    after = apply(FuseMasks(), graph(build, x=SHAPE))
    assert not {op_name(v) for _, v in bindings(after["main"])} & {"isnan", "where", "add"}
