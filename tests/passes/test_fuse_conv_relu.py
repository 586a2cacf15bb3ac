"""FuseConvRelu: which chains become one composite, and that outputs stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from relax_graphs import apply, const, graph, network, nn, op, operators, outputs_preserved, same
from tvm import relax

from hwptq.ir.composite import Composite, read_composite
from hwptq.ir.dataflow import bindings
from hwptq.passes import FoldBatchNorm, FuseConvRelu

IMAGE = (1, 4, 5, 6)


def fuse(build: Any, expected: list[str], **shapes: tuple[int, ...]) -> list[Composite]:
    """The composites of the fused graph; fails unless it is `expected` and computes the same."""
    before = graph(build, **shapes)
    after = apply(FuseConvRelu(), before)
    assert [n.removeprefix("hwptq.") for n in operators(after)] == expected
    outputs_preserved(before, after)
    assert same(apply(FuseConvRelu(), after), after)
    found = [read_composite(after, value) for _, value in bindings(after["main"])]
    return [c for c in found if c is not None]


CLAMPS = {
    "none": (lambda x: x, (-np.inf, np.inf)),
    "relu": (nn.relu, (0, np.inf)),
    "relu6": (lambda x: op.clip(x, 0, 6), (0, 6)),
    "clip": (lambda x: op.clip(x, -0.5, 1.25), (-0.5, 1.25)),
}


@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("bias", [None, (1, 6, 1, 1), (6, 1, 1), (1,)], ids=str)
def test_conv(bias: tuple[int, ...] | None, clamp: str):
    function, bounds = CLAMPS[clamp]

    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(6, 4, 3, 3), padding=1))
        return emit(function(emit(op.add(y, const(*bias, seed=1))) if bias else y))

    (found,) = fuse(build, ["conv2d"], x=IMAGE)
    assert found.kind == "conv2d"
    assert found.bounds == bounds
    assert (found.bias is None) == (bias is None)
    if bias and found.bias is not None:
        assert found.bias.shape == (max(bias),)


@pytest.mark.parametrize("clamp", CLAMPS)
def test_dense(clamp: str):
    def build(emit: Any, x: Any) -> Any:
        y = emit(op.add(emit(op.matmul(x, const(4, 6))), const(6, seed=1)))
        return emit(CLAMPS[clamp][0](y))

    (found,) = fuse(build, ["matmul"], x=(3, 4))
    assert found.bounds == CLAMPS[clamp][1]
    np.testing.assert_array_equal(found.bias, const(6, seed=1).value.numpy())


@pytest.mark.parametrize("clamp", CLAMPS)
def test_residual(clamp: str):
    (found,) = fuse(lambda emit, a, b: emit(CLAMPS[clamp][0](emit(op.add(a, b)))), ["add"], a=IMAGE, b=IMAGE)
    assert (found.bounds, len(found.args)) == (CLAMPS[clamp][1], 2)


def test_matmul_of_two_activations():
    (found,) = fuse(
        lambda emit, a, b: emit(nn.relu(emit(op.matmul(a, b)))), ["matmul"], a=(2, 3, 4), b=(2, 4, 5)
    )
    assert found.bias is None


def test_a_bias_of_two_activations_is_an_addition():
    def build(emit: Any, a: Any, b: Any) -> Any:
        return emit(op.add(emit(op.matmul(a, b)), const(5)))

    fuse(build, ["matmul", "add"], a=(3, 4), b=(4, 5))


def test_a_second_reader_ends_the_chain():
    """The value that two nodes read must exist; a reader of the last link does no harm."""

    def build(emit: Any, x: Any) -> Any:
        a = emit(nn.conv2d(x, const(4, 4, 1, 1)))
        b = emit(op.add(a, const(1, 4, 1, 1)))
        c = emit(nn.relu(b))
        return relax.Tuple([emit(op.add(a, c)), emit(op.sigmoid(c))])

    fuse(build, ["conv2d", "add", "add", "sigmoid"], x=IMAGE)


def test_an_output_ends_the_chain():
    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(4, 4, 1, 1)))
        return relax.Tuple([y, emit(nn.relu(y))])

    fuse(build, ["conv2d", "nn.relu"], x=IMAGE)


def test_only_the_first_clamp():
    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.relu(emit(nn.conv2d(x, const(4, 4, 1, 1)))))
        return emit(op.clip(y, -1, 0.5))

    fuse(build, ["conv2d", "clip"], x=IMAGE)


@pytest.mark.parametrize("shape", [(1, 1, 1, 6), (1, 4, 5, 6), (6,), (5, 1)])
def test_a_constant_that_is_no_bias(shape: tuple[int, ...]):
    def build(emit: Any, x: Any) -> Any:
        return emit(op.add(emit(nn.conv2d(x, const(4, 4, 1, 1))), const(*shape)))

    fuse(build, ["conv2d", "add"], x=IMAGE)


def test_adding_a_scalar_is_a_function_of_one_tensor():
    fuse(lambda emit, x: emit(nn.relu(emit(op.add(x, relax.const(3.0))))), ["add", "nn.relu"], x=IMAGE)


@pytest.mark.parametrize("clamp", CLAMPS)
def test_group_norm(clamp: str):
    """With a clamp only; what is added to it is no bias."""
    function, bounds = CLAMPS[clamp]

    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.group_norm(x, const(4), const(4, seed=1), 2, 1, [2, 3]))
        return emit(op.add(emit(function(y)), const(4, 1, 1)))

    found = fuse(build, ["nn.group_norm" if clamp == "none" else "group_norm", "add"], x=IMAGE)
    assert [(c.kind, c.bounds) for c in found[:-1]] == ([] if clamp == "none" else [("group_norm", bounds)])


def test_a_network():
    before = apply(FoldBatchNorm(), network())
    after = apply(FuseConvRelu(), before)
    expected = ["hwptq.conv2d", "hwptq.conv2d", "hwptq.add", "sigmoid", "concat", "nn.max_pool2d", "mean"]
    assert operators(after) == [*expected, "hwptq.matmul"]
    outputs_preserved(before, after)
    names = [str(var.name) for var, _ in bindings(after["main"])]
    assert names[:3] == ["stem", "depthwise", "residual"]


def test_an_add_inside_a_function_of_one_tensor_is_a_step_of_its_table():
    """As in a GELU by tanh; beside another tensor it is an add."""

    def build(emit: Any, x: Any, other: Any) -> Any:
        cube = emit(op.multiply(x, emit(op.multiply(x, x))))
        inner = emit(op.add(x, emit(op.multiply(cube, relax.const(np.float32(0.044715))))))
        gate = emit(op.add(emit(op.tanh(inner)), relax.const(np.float32(1))))
        return emit(op.add(emit(op.multiply(x, gate)), other))

    steps = ["multiply", "multiply", "multiply", "add", "tanh", "add", "multiply", "add"]
    (found,) = fuse(build, steps, x=IMAGE, other=IMAGE)
    assert found.kind == "add"
