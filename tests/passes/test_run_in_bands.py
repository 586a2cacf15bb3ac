"""Stretches of an integer graph in bands of rows: the same values, whatever the windows."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
import tvm
from onnx_models import normal
from operator_graphs import extreme
from relax_graphs import Emit, const, graph, nn, op, stats_of
from tvm import relax

from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.dataflow import bindings, op_name
from hwptq.passes import FuseConvRelu, InsertQDQ, LowerToInteger, RunInBands
from hwptq.passes.graph.bands import (
    Bound,
    Stretch,
    bound,
    computable,
    extra_macs,
    plain_bytes,
    rows_of_bands,
    stretch_bytes,
)
from hwptq.passes.select_kernels import integer_node
from hwptq.search.bands import choose
from hwptq.targets import load_target


@cache
def _integer() -> tvm.IRModule:
    """Windows of many kinds, and a residual sum: [1,3,19,11] -> [1,6,4,6]."""

    def build(emit: Emit, x: relax.Expr) -> relax.Expr:
        a = emit(nn.relu(emit(nn.conv2d(x, const(8, 3, 3, 3), strides=(2, 1), padding=(1, 1, 0, 1)))))
        b = emit(nn.conv2d(a, const(8, 1, 3, 3, seed=1), padding=(2, 1, 2, 1), dilation=(2, 1), groups=8))
        c = emit(op.add(a, b))
        d = emit(nn.conv2d(c, const(24, 8, 1, 1, seed=2)))
        e = emit(nn.max_pool2d(emit(op.sigmoid(d)), (3, 3), (2, 2), padding=(1, 1, 1, 1)))
        return emit(nn.conv2d(e, const(6, 24, 2, 1, seed=3), padding=(0, 0, 0, 0)))

    fused = FuseConvRelu()(graph(build, x=(1, 3, 19, 11)))
    target = load_target("arm-cortex-m4")
    return tvm.ir.transform.Sequential([InsertQDQ(target, stats_of(fused)), LowerToInteger(target)])(fused)


def _nodes(mod: tvm.IRModule) -> list[Bound]:
    return bound(mod["main"], partial(integer_node, mod))


def _stretches(bands: int) -> list[Stretch]:
    """All that are computable, with one result each, which is high enough."""
    nodes = _nodes(_integer())
    readers = {tensor: n for n, node in enumerate(nodes) for tensor in node.reads}
    return [
        Stretch(first, last, bands)
        for first in range(len(nodes))
        for last in range(first, len(nodes))
        if computable(nodes[first : last + 1])
        and all(readers[node.var] <= last for node in nodes[first:last])
        and nodes[last].shape[1] >= bands
    ]


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_every_stretch_gives_the_same_values(bands: int) -> None:
    mod, found = _integer(), _stretches(bands)
    inputs = [extreme(mod), {"x": normal(7, 1, 3, 19, 11)}]
    expected = [Interpreter(mod).run(one) for one in inputs]
    longest = max(found, key=lambda s: s.last - s.first)
    assert longest.last - longest.first >= 5
    for stretch in [*found[:: max(1, len(found) // 4)], longest]:
        banded = RunInBands([stretch])(mod)
        assert sum(op_name(value) == "concat" for _, value in bindings(banded["main"])) == 1
        for one, values in zip(inputs, expected, strict=True):
            np.testing.assert_array_equal(Interpreter(banded).run(one), values, err_msg=str(stretch))


def test_what_is_computed_again_is_counted() -> None:
    mod = _integer()
    nodes, longest = _nodes(mod), max(_stretches(3), key=lambda s: s.last - s.first)
    banded = _nodes(RunInBands([longest])(mod))
    before, after = (sum(node.macs for node in found) for found in (nodes, banded))
    assert after - before == extra_macs(nodes[longest.first : longest.last + 1], 3) > 0


def test_bands_hold_less_and_an_estimate_is_that_of_the_graph_itself() -> None:
    mod = _integer()
    nodes, longest = _nodes(mod), max(_stretches(4), key=lambda s: s.last - s.first)
    held = stretch_bytes(nodes, longest)
    assert held < max(plain_bytes(nodes)[longest.first : longest.last + 1])
    banded = plain_bytes(_nodes(RunInBands([longest])(mod)))
    assert held == max(banded[longest.first : -(len(nodes) - 1 - longest.last) or None])


def test_the_choice_stays_below_its_aim_at_the_least_extra_work() -> None:
    nodes = _nodes(_integer())
    most = max(plain_bytes(nodes))
    assert choose(nodes, most) == []
    works = []
    for share in (0.95, 0.8, 0.6):
        (chosen,) = choose(nodes, share * most)
        assert stretch_bytes(nodes, chosen) <= share * most
        works.append(extra_macs(nodes[chosen.first : chosen.last + 1], chosen.bands))
    assert works[0] == 0 < works[1] < works[2]


def test_bands_are_even() -> None:
    assert rows_of_bands(7, 3) == [range(0, 3), range(3, 5), range(5, 7)]
