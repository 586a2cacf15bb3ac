"""Attention that is left in float becomes one operator, whatever an export writes around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from relax_graphs import apply, graph, samples
from tvm import relax

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.operators.attention import Attention
from hwptq.report.coverage import integer_nodes
from hwptq.targets import load_target

op = relax.op
TARGET = load_target("x86-64-avx2")
Q, KV = (1, 4, 5, 8), (1, 2, 5, 8)
CAUSAL = np.where(np.tri(5, dtype=bool), 0, -np.inf).astype(np.float32)


def repeated(emit: Any, x: Any) -> Any:
    wide = emit(op.broadcast_to(emit(op.expand_dims(x, 2)), (1, 2, 2, 5, 8)))
    return emit(op.reshape(wide, Q))


def attention(kind: str = ""):
    """softmax(q kT / 2 + causal mask) v, keys and values for two heads each."""
    half, twice = (relax.const(np.float32(n)) for n in (0.5, 2))

    def build(emit: Any, q: Any, k: Any, v: Any) -> Any:
        keys, values = repeated(emit, k), repeated(emit, v)
        if kind == "keys of their own":
            keys = emit(op.tanh(keys))
        if kind == "roots":
            q, keys = emit(op.multiply(q, twice)), emit(op.divide(keys, twice))
        keys = emit(op.permute_dims(keys, [0, 1, 3, 2]))
        if kind == "roots":
            q, keys = emit(op.multiply(half, q)), emit(op.multiply(keys, half))
        scores = emit(op.matmul(q, keys), "scores")
        scores = emit(op.multiply(scores, relax.const(np.float32(0.5))))
        shares = emit(op.nn.softmax(emit(op.add(scores, relax.const(CAUSAL))), axis=-1), "shares")
        y = emit(op.matmul(shares, values), "y")
        if kind == "shares read twice":
            return emit(op.add(y, emit(op.sum(shares, axis=[-1], keepdims=True))))
        return y

    mod = graph(build, q=Q, k=KV, v=KV)
    return apply(passes.FuseConvRelu(), apply(passes.FuseMasks(), mod))


def operators(mod: Any) -> list[Any]:
    return [op for _, op, _ in integer_nodes(mod)]


@pytest.mark.parametrize(
    ("kind", "factor", "shared"),
    [("", 0.5, KV), ("roots", 0.125, KV), ("keys of their own", 0.5, Q)],
)
def test_one_operator_of_what_is_not_repeated(kind: str, factor: float, shared: tuple[int, ...]) -> None:
    """Keys and values are read with as many heads each, whatever multiplies them."""
    mod = attention(kind)
    fused = apply(passes.FuseAttention(TARGET), mod)
    assert operators(fused) == [Attention(factor, False)]
    ((_, _, args),) = integer_nodes(fused)
    assert [tuple(map(int, a.ty.shape.values)) for a in args] == [Q, shared, shared, (1, 1, 5, 5)]
    for sample in samples(mod, 3):
        exact, found = (Interpreter(m).run(sample)[0] for m in (mod, fused))
        assert np.linalg.norm(exact - found) <= 1e-6 * np.linalg.norm(exact)


def test_what_others_read_stays() -> None:
    assert not operators(apply(passes.FuseAttention(TARGET), attention("shares read twice")))
