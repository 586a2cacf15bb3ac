"""Weights per group through the passes: InsertQDQ, RoundWeights, CorrectBias, LowerToInteger."""

from __future__ import annotations

import numpy as np
import pytest
from relax_graphs import apply, const, graph, samples, stats_of
from tvm import relax

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.passes.graph.quantizable import weight_groups
from hwptq.passes.graph.quantized_layers import quantized_layers
from hwptq.passes.round_weights import RoundingOptions, RoundWeights
from hwptq.quant.weight_groups import split_factors
from hwptq.report.coverage import bits, integer_nodes
from hwptq.targets import load_target

op, nn = relax.op, relax.op.nn
TARGET = load_target("x86-64-vnni")
SIZE = TARGET.weight_group("conv2d")
LAYERS = ("narrow", "grouped", "windows", "dense")


def uneven(*shape: int, axis: int, seed: int = 0):
    """A weight whose size differs between groups of input channels."""
    weight = np.array(const(*shape, seed=seed).value.numpy())
    size = np.repeat([1.0, 0.15, 0.4], SIZE)[: shape[axis]]
    return relax.const(
        (weight * size.reshape([-1 if i == axis else 1 for i in range(len(shape))])).astype("f4")
    )


def fused():
    """[1,3,6,6] -> [1,5]: an input too narrow for groups, 1x1 with a short last group, 3x3, and dense."""

    def build(emit, x):
        a = emit(nn.relu(emit(nn.conv2d(x, const(72, 3, 3, 3), padding=1), "narrow")))
        b = emit(nn.conv2d(a, uneven(96, 72, 1, 1, axis=1, seed=1)), "grouped")
        b = emit(nn.relu(emit(op.add(b, const(1, 96, 1, 1)))))
        c = emit(nn.relu(emit(nn.conv2d(b, uneven(64, 96, 3, 3, axis=1, seed=2)), "windows")))
        d = emit(op.mean(c, axis=[2, 3]), "mean")
        return emit(op.add(emit(op.matmul(d, uneven(64, 5, axis=0, seed=3)), "dense"), const(5)))

    return apply(passes.FuseConvRelu(), graph(build, x=(1, 3, 6, 6)))


def inserted(mod, granularity: str):
    pairs = dict.fromkeys(LAYERS, ("int8", "int4"))
    return apply(passes.InsertQDQ(TARGET, stats_of(mod), granularity, None, pairs), mod)


def noise(mod, qdq, data) -> float:
    """Energy of the difference between the float module and the integer graph, over `data`."""
    first, second = Interpreter(mod), Interpreter(apply(passes.LowerToInteger(TARGET), qdq))
    pairs = [zip(first.run(s), second.run(s), strict=True) for s in data]
    return sum(float(np.square(a - b).sum()) for pair in pairs for a, b in pair)


def holds_int4(layer) -> bool:
    """Whether the values of a grouped layer are int4 times factors."""
    values = layer.values.transpose(0, 2, 3, 1) if layer.values.ndim == 4 else layer.values.T
    w, f = split_factors(values, layer.group)
    return np.abs(w).max() <= 7 and len(np.unique(f)) > 1


@pytest.mark.parametrize("repair", ["none", "round", "correct"])
def test_layers_with_groups_hold_int4_values_times_factors(repair):
    mod, data = fused(), samples(fused(), 4)
    qdq = inserted(mod, "group")
    assert weight_groups(qdq["main"]) == {"grouped": SIZE, "windows": SIZE, "dense": SIZE}
    if repair == "round":
        qdq = apply(RoundWeights(mod, data, TARGET), qdq)
    if repair == "correct":
        qdq = apply(passes.CorrectBias(mod, data, TARGET), qdq)
    layers = quantized_layers(qdq)
    assert not layers["main", "narrow"].group
    assert np.abs(layers["main", "narrow"].values).max() <= 7
    assert all(holds_int4(layers["main", name]) for name in ("grouped", "windows", "dense"))
    nodes = [op for _, op, _ in integer_nodes(apply(passes.LowerToInteger(TARGET), qdq))]
    operators = {op.weight_group: op.weight_bits for op in nodes if hasattr(op, "weight_group")}
    assert operators == {0: 4, SIZE: 4}


@pytest.mark.parametrize("method", ["nearest", "adaround", "descent", "clamped"])
def test_groups_lose_less_than_one_scale_a_channel(method):
    mod, data = fused(), samples(fused(), 12)
    found = [
        noise(
            mod,
            apply(RoundWeights(mod, data, TARGET, RoundingOptions(method)), inserted(mod, granularity)),
            data,
        )
        for granularity in ("group", "channel")
    ]
    assert found[0] < 0.7 * found[1]


def test_the_mean_is_corrected_in_units_of_the_held_values():
    mod, data = fused(), samples(fused(), 12)
    plain = inserted(mod, "group")
    assert noise(mod, apply(passes.CorrectBias(mod, data, TARGET), plain), data) < noise(mod, plain, data)


def test_the_report_counts_factors():
    rows = {
        row["name"]: row for row in bits(apply(passes.LowerToInteger(TARGET), inserted(fused(), "group")))
    }
    assert rows["grouped"]["weight"] == "int4"
    assert rows["grouped"]["weight_bytes"] == 96 * 72 // 2 + 96 * 3
    assert rows["windows"]["weight_bytes"] == 64 * 96 * 9 // 2 + 64 * 9 * 3


def test_int8_weights_have_no_groups():
    mod = fused()
    pairs = dict.fromkeys(LAYERS, ("int8", "int8"))
    qdq = apply(passes.InsertQDQ(TARGET, stats_of(mod), "group", None, pairs), mod)
    assert weight_groups(qdq["main"]) == {}
