"""Dense layers that only float operators read: their sums become float32, and no int8 first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from relax_graphs import Emit, apply, const, graph, nn, op, run, samples, stats_of, tensors

from hwptq.ir.dataflow import constant
from hwptq.operators.dense import DenseFloat
from hwptq.passes import CorrectBias, FuseConvRelu, InsertQDQ, LowerToInteger, RoundWeights
from hwptq.report.coverage import bits, coverage, integer_nodes
from hwptq.targets import load_target
from hwptq.targets.op_kinds import STREAM_OPS

_ARM = load_target("arm-cortex-a")
#: Without softmax and norms in integers.
ARM = replace(_ARM, ops=tuple(rule for rule in _ARM.ops if rule.op not in STREAM_OPS))
INT8_ONLY = replace(ARM, ops=tuple(replace(rule, float_output=False) for rule in ARM.ops))
BITS = {"w8": ("int8", "int8"), "w4": ("int8", "int4"), "a4": ("int4", "int4")}


def layer(emit: Emit, x: Any, name: str, seed: int) -> Any:
    """x W + b; a composite has the name of its product."""
    y = emit(op.matmul(x, const(12, 12, seed=seed)), name)
    return emit(op.add(y, const(12, seed=seed + 50)))


def fused(build: Any) -> tvm.IRModule:
    return apply(FuseConvRelu(), graph(build, x=(1, 7, 12)))


def chain() -> tvm.IRModule:
    """first - softmax - second - layer norm - third, whose result is the model's."""

    def build(emit: Emit, x: Any) -> Any:
        y = emit(nn.softmax(layer(emit, x, "first", 0)), "softmax")
        y = layer(emit, y, "second", 1)
        return layer(emit, emit(nn.layer_norm(y, const(12), const(12, seed=5), [-1]), "norm"), "third", 2)

    return fused(build)


def single() -> tvm.IRModule:
    """One layer before a softmax."""
    return fused(lambda emit, x: emit(nn.softmax(layer(emit, x, "first", 0)), "softmax"))


def lowered(mod: tvm.IRModule, target: Any = ARM, **options: Any) -> tuple[tvm.IRModule, tvm.IRModule]:
    """The QDQ and the integer form of a float module."""
    before = apply(InsertQDQ(target, stats_of(mod), **options), mod)
    return before, apply(LowerToInteger(ARM), before)


def kinds(mod: tvm.IRModule) -> list[str]:
    return [node.kind for _, node, _ in integer_nodes(mod)]


def test_layers_before_float_operators():
    mod = chain()
    _, after = lowered(mod)
    dense_float = ["quantize", "dense_float"]
    assert kinds(after) == [*dense_float, *dense_float, "quantize", "dense", "dequantize"]
    assert [row["name"] for row in bits(after)] == ["first", "second", "third"]
    assert {row["op"] for row in bits(after)} == {"dense"}
    found = coverage(mod, after)
    assert found["macs_quantized"] == found["macs_total"]
    assert [row["name"] for row in found["nodes_float"]] == ["softmax", "norm"]


def test_only_where_the_target_offers_it():
    _, after = lowered(chain(), INT8_ONLY)
    assert kinds(after) == ["quantize", "dense", "dequantize"] * 3


def _clamped(emit: Emit, x: Any) -> Any:
    return emit(nn.softmax(emit(nn.relu(layer(emit, x, "first", 0)))))


def _read_in_integers_too(emit: Emit, x: Any) -> Any:
    y = layer(emit, x, "first", 0)
    return emit(op.add(layer(emit, y, "second", 1), emit(nn.softmax(y))))


@pytest.mark.parametrize("build", [_clamped, _read_in_integers_too])
def test_other_layers_keep_their_int8(build: Any):
    _, after = lowered(fused(build))
    assert "dense_float" not in kinds(after)


@pytest.mark.parametrize("pair", BITS)
def test_the_sums_are_those_of_qdq(pair: str):
    before, after = lowered(single(), assignment={"first": BITS[pair]})
    (found,) = (n for n in integer_nodes(after) if isinstance(n[1], DenseFloat))
    _, node, args = found
    assert (f"int{node.activation_bits}", f"int{node.weight_bits}") == BITS[pair]
    step = float(np.max(constant(args[3])))  # the bias is rounded to one of the accumulator
    data = samples(before, 8)
    for (a,), (b,) in zip(run(before, data), run(after, data), strict=True):
        np.testing.assert_allclose(np.log(a), np.log(b), atol=step, rtol=1e-5)


def results(mod: tvm.IRModule, data: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([out for (out,) in run(mod, data)])


def test_rounded_weights_lose_less():
    mod, data = single(), samples(single(), 24)
    before, after = lowered(mod, assignment={"first": BITS["w4"]})
    rounded = apply(LowerToInteger(ARM), apply(RoundWeights(mod, data, ARM), before))
    exact = results(mod, data)
    plain, new = (np.square(results(m, data) - exact).sum() for m in (after, rounded))
    assert new < 0.8 * plain


def test_a_corrected_bias_gives_the_mean_in_float():
    mod, data = single(), samples(single(), 24)
    before, _ = lowered(mod, assignment={"first": BITS["w4"]})
    after = apply(LowerToInteger(ARM), apply(CorrectBias(mod, data, ARM), before))
    args = next(a for _, node, a in integer_nodes(after) if isinstance(node, DenseFloat))
    step = float(np.max(constant(args[3])))

    def mean(m: tvm.IRModule, name: str) -> np.ndarray:
        seen: list[np.ndarray] = []
        for sample in data:
            seen.append(tensors(m, sample)[name])
        return np.concatenate(seen).reshape(-1, 12).mean(axis=0, dtype=np.float64)

    np.testing.assert_allclose(mean(after, "first"), mean(mod, "first"), atol=step)
