"""FoldBatchNorm: where it folds, where it must not, and that outputs stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_models import normal
from relax_graphs import apply, batch_norm, const, graph, network, nn, op, operators, outputs_preserved, same
from tvm import relax

from hwptq.passes import FoldBatchNorm


def fold(mod: Any, expected: list[str]) -> Any:
    """The folded module; fails unless it consists of the `expected` operators and computes the same."""
    after = apply(FoldBatchNorm(), mod)
    assert [name for name in operators(after) if name] == expected
    outputs_preserved(mod, after)
    assert same(apply(FoldBatchNorm(), after), after)
    return after


CONVOLUTIONS = {
    "conv": ((6, 4, 3, 3), {"padding": 1}),
    "strided": ((6, 4, 2, 3), {"strides": (2, 1), "padding": (0, 1, 1, 0)}),
    "grouped": ((6, 2, 3, 3), {"groups": 2}),
    "depthwise": ((4, 1, 3, 3), {"groups": 4}),
    "depthwise twice": ((8, 1, 3, 3), {"groups": 4, "dilation": 2}),
}


#: Shapes of a bias; -1 stands for the channels.
BIASES = (None, (1, -1, 1, 1), (-1, 1, 1), (1,))


@pytest.mark.parametrize(
    ("kind", "bias"), [*(("conv", b) for b in BIASES), *((k, BIASES[1]) for k in CONVOLUTIONS if k != "conv")]
)
def test_convolutions(kind: str, bias: tuple[int, ...] | None):
    shape, attributes = CONVOLUTIONS[kind]

    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(*shape), **attributes), "conv")
        if bias:
            y = emit(op.add(y, const(*(shape[0] if n < 0 else n for n in bias), seed=3)))
        return batch_norm(emit, y, shape[0])

    fold(graph(build, x=(1, 4, 7, 8)), ["nn.conv2d", "add"])


@pytest.mark.parametrize("bias", [None, (6,), (1, 6), (1,)], ids=str)
def test_matmul(bias: tuple[int, ...] | None):
    def build(emit: Any, x: Any) -> Any:
        y = emit(op.matmul(x, const(4, 6)))
        y = emit(op.add(y, const(*bias, seed=3))) if bias else y
        return batch_norm(emit, y, 6)

    fold(graph(build, x=(3, 4)), ["matmul", "add"])


def test_the_folded_weight_is_the_formula():
    def before(emit: Any, x: Any) -> Any:
        return batch_norm(emit, emit(nn.conv2d(x, const(2, 3, 1, 1))), 2)

    gamma, beta, mean, noise = (normal(9 + i, 2).astype(np.float64) for i in range(4))
    scale = (gamma / np.sqrt(np.float32(np.abs(noise).astype(np.float32) + np.float32(0.1)) + 1e-3)).astype(
        np.float32
    )
    shift = (beta - mean * scale).astype(np.float32).reshape(1, 2, 1, 1)

    def after(emit: Any, x: Any) -> Any:
        weight = normal(0, 2, 3, 1, 1, spread=0.5) * scale.reshape(2, 1, 1, 1)
        return emit(op.add(emit(nn.conv2d(x, relax.const(weight))), relax.const(shift)))

    assert same(fold(graph(before, x=(1, 3, 2, 2)), ["nn.conv2d", "add"]), graph(after, x=(1, 3, 2, 2)))


def test_a_network():
    before = ["nn.conv2d", "add", "clip", "nn.conv2d", "add", "add", "nn.relu", "sigmoid", "concat"]
    after = fold(network(), [*before, "nn.max_pool2d", "mean", "matmul", "add"])
    assert str(after["main"].body.blocks[0].bindings[0].var.name) == "stem"


def test_a_convolution_with_a_second_reader_is_left_alone():
    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(4, 4, 1, 1)))
        return emit(op.add(batch_norm(emit, y, 4), y))

    fold(graph(build, x=(1, 4, 3, 3)), ["nn.conv2d", "multiply", "add", "add"])


def test_a_bias_with_a_second_reader_is_left_alone():
    def build(emit: Any, x: Any) -> Any:
        y = emit(op.add(emit(nn.conv2d(x, const(4, 4, 1, 1))), const(1, 4, 1, 1)))
        return emit(op.add(batch_norm(emit, y, 4), y))

    fold(graph(build, x=(1, 4, 3, 3)), ["nn.conv2d", "add", "multiply", "add", "add"])


def test_a_convolution_that_is_an_output_is_left_alone():
    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(4, 4, 1, 1)))
        return relax.Tuple([batch_norm(emit, y, 4), y])

    fold(graph(build, x=(1, 4, 3, 3)), ["nn.conv2d", "multiply", "add"])


def test_one_weight_of_two_convolutions():
    weight = const(4, 4, 1, 1)

    def build(emit: Any, x: Any) -> Any:
        y = batch_norm(emit, emit(nn.conv2d(x, weight)), 4)
        return emit(op.add(y, emit(nn.conv2d(x, weight))))

    fold(graph(build, x=(1, 4, 3, 3)), ["nn.conv2d", "add", "nn.conv2d", "add"])


def test_two_in_a_row():
    def build(emit: Any, x: Any) -> Any:
        y = batch_norm(emit, emit(nn.conv2d(x, const(4, 4, 1, 1))), 4)
        return batch_norm(emit, y, 4, seed=20)

    fold(graph(build, x=(1, 4, 3, 3)), ["nn.conv2d", "add"])


def test_one_with_nothing_before_it():
    fold(graph(lambda emit, x: batch_norm(emit, x, 4), x=(1, 4, 3, 3)), ["multiply", "add"])


def test_a_relu_between():
    def build(emit: Any, x: Any) -> Any:
        return batch_norm(emit, emit(nn.relu(emit(nn.conv2d(x, const(4, 4, 1, 1))))), 4)

    fold(graph(build, x=(1, 4, 3, 3)), ["nn.conv2d", "nn.relu", "multiply", "add"])


def test_another_layout_or_axis():
    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(4, 4, 1, 1), data_layout="NHWC", kernel_layout="OIHW"))
        return batch_norm(emit, y, 4, axis=3)

    fold(graph(build, x=(1, 3, 3, 4)), ["permute_dims", "nn.conv2d", "add", "permute_dims"])

    def across(emit: Any, x: Any) -> Any:
        return batch_norm(emit, emit(nn.conv2d(x, const(3, 3, 1, 1))), 3, axis=2)

    fold(graph(across, x=(1, 3, 3, 3)), ["nn.conv2d", "multiply", "add"])


def test_statistics_that_are_computed():
    def build(emit: Any, x: Any, gamma: Any) -> Any:
        y = emit(nn.conv2d(x, const(4, 4, 1, 1)))
        stats = (gamma, *(relax.const(np.full(4, v, np.float32)) for v in (0, 0.5, 2)))
        return emit(emit(nn.batch_norm(y, *stats, 1, training=False))[0])

    fold(graph(build, x=(1, 4, 3, 3), gamma=(4,)), ["nn.conv2d", "nn.batch_norm"])


def test_a_negative_variance_is_named():
    values = [relax.const(np.full(4, v, "float32")) for v in (1, 0, 0, -1)]
    mod = graph(
        lambda emit, x: emit(nn.batch_norm(emit(nn.relu(x)), *values, axis=1)[0], "norm"), x=(1, 4, 3, 3)
    )
    with pytest.raises(ValueError, match="a variance of this batch norm is negative"):
        apply(FoldBatchNorm(), mod)


def test_behind_a_concatenation_it_goes_to_the_parts() -> None:
    """Into the weights of one, beside the other; a constant part holds its own."""

    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(6, 4, 1, 1)), "conv")
        fixed = relax.const(normal(7, 1, 2, 7, 8))
        return batch_norm(emit, emit(op.concat([y, x, fixed], axis=1), "concat"), 12)

    fold(graph(build, x=(1, 4, 7, 8)), ["nn.conv2d", "add", "multiply", "add", "concat"])


def test_parts_that_others_read_stay() -> None:
    def build(emit: Any, x: Any) -> Any:
        joined = emit(op.concat([x, emit(nn.relu(x))], axis=1), "concat")
        return emit(op.add(batch_norm(emit, joined, 8), joined))

    fold(graph(build, x=(1, 4, 7, 8)), ["nn.relu", "concat", "multiply", "add", "add"])


@pytest.mark.parametrize("links", [("multiply",), ("subtract", "divide", "add")])
def test_behind_a_look_up_it_goes_into_the_table(links: tuple[str, ...]) -> None:
    given = {name: const(6, seed=i + 4) for i, name in enumerate(links)}

    def build(emit: Any, x: Any) -> Any:
        y = emit(op.take(const(9, 6), emit(op.astype(emit(op.abs(x)), "int32")), axis=0), "rows")
        for name in links:
            y = emit(getattr(op, name)(y, given[name]))
        return y

    fold(graph(build, x=(3, 5)), ["abs", "astype", "take"])


def test_a_number_behind_a_look_up_stays_beside_a_table_that_others_may_share() -> None:
    def build(emit: Any, x: Any) -> Any:
        y = emit(op.take(const(9, 6), emit(op.astype(emit(op.abs(x)), "int32")), axis=0))
        return emit(op.multiply(y, relax.const(np.float32(3))))

    fold(graph(build, x=(3, 5)), ["abs", "astype", "take", "multiply"])
