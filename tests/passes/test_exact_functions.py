"""ExactFunctions: what is left in float becomes operators; what it has no operator for stays."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from relax_graphs import apply, graph, samples
from tvm import relax

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.composite import read_composite
from hwptq.ir.dataflow import bindings, op_name
from hwptq.operators.real_arithmetic import RealArithmetic
from hwptq.operators.real_norm import RealLayerNorm, RealRmsNorm
from hwptq.operators.real_sigmoid import RealSigmoid
from hwptq.report.coverage import integer_nodes
from hwptq.targets import load_target

VECTOR = np.linspace(-1, 2, 6, dtype=np.float32)


def module(make) -> tvm.IRModule:
    return graph(lambda emit, x: make(x), x=(2, 3, 6))


def exact(mod: tvm.IRModule) -> tvm.IRModule:
    return apply(passes.ExactFunctions(load_target("x86-64-avx2")), mod)


def operators(mod: tvm.IRModule) -> list[object]:
    return [op for _, op, _ in integer_nodes(mod)]


def names(mod: tvm.IRModule) -> list[str]:
    return [op_name(value) for _, value in bindings(mod["main"]) if op_name(value)]


CASES = {
    "sigmoid": (relax.op.sigmoid, RealSigmoid()),
    "sum": (lambda x: relax.op.add(x, x), RealArithmetic("add")),
    "difference that broadcasts": (
        lambda x: relax.op.subtract(relax.const(VECTOR), x),
        RealArithmetic("subtract"),
    ),
    "product with a number": (
        lambda x: relax.op.multiply(x, relax.const(np.float32(0.3))),
        RealArithmetic("multiply"),
    ),
    "negative": (relax.op.negative, RealArithmetic("multiply")),
    "RMS norm": (
        lambda x: relax.op.nn.rms_norm(x, relax.const(VECTOR), axes=[-1], epsilon=1e-5),
        RealRmsNorm(1e-5),
    ),
    "layer norm": (
        lambda x: relax.op.nn.layer_norm(x, relax.const(VECTOR), relax.const(VECTOR), axes=[2], epsilon=1e-5),
        RealLayerNorm(1e-5),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_becomes_an_operator(case: str) -> None:
    make, expected = CASES[case]
    before = module(make)
    after = exact(before)
    assert operators(after) == [expected]
    for sample in samples(before, 2):
        was, now = (Interpreter(mod).run(sample)[0] for mod in (before, after))
        np.testing.assert_allclose(now, was, rtol=1e-6, atol=1e-6)


STAYS = {
    "integers": lambda x: relax.op.add(relax.op.astype(x, "int32"), relax.const(1)),
    "another function": relax.op.exp,
    "a norm of two axes": lambda x: relax.op.nn.rms_norm(
        x, relax.const(np.ones((3, 6), np.float32)), axes=[1, 2], epsilon=1e-5
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_what_stays(case: str) -> None:
    before = module(STAYS[case])
    assert operators(exact(before)) == []
    assert names(exact(before)) == names(before)


def test_a_sum_in_a_composite_becomes_one_and_a_clamped_one_stays() -> None:
    size = (2, 3, 6)
    alone = graph(lambda emit, x, z: relax.op.add(x, z), x=size, z=size)
    assert operators(exact(apply(passes.FuseConvRelu(), alone))) == [RealArithmetic("add")]
    clamped = graph(lambda emit, x, z: relax.op.nn.relu(emit(relax.op.add(x, z))), x=size, z=size)
    fused = apply(passes.FuseConvRelu(), clamped)
    assert any(read_composite(fused, value) for _, value in bindings(fused["main"]))
    assert operators(exact(fused)) == []
