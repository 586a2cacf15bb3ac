"""Blocks end at tensors that all behind them depends on."""

from __future__ import annotations

from relax_graphs import const, graph
from tvm import relax

from hwptq.ir.dataflow import bindings, op_name
from hwptq.passes.graph.blocks import beside, blocks

op, nn = relax.op, relax.op.nn


def _two_residuals(emit, x):
    x = emit(op.matmul(x, const(8, 8, seed=6)), "stem")
    for number in range(2):
        y = emit(nn.rms_norm(x, const(8, seed=1), axes=[-1]))
        y = emit(nn.relu(emit(op.matmul(y, const(8, 6, seed=number)), f"up{number}")))
        y = emit(op.multiply(y, emit(op.exp(const(6, seed=4)), f"beside{number}")))
        x = emit(op.add(x, emit(op.matmul(y, const(6, 8, seed=5)), f"down{number}")), f"sum{number}")
    return emit(nn.relu(x))


def _layers(mod):
    return {var for var, value in bindings(mod["main"]) if op_name(value) == "matmul"}


def test_a_residual_stream_is_cut_where_nothing_goes_past_it() -> None:
    mod = graph(_two_residuals, x=(1, 3, 8))
    layers = _layers(mod)
    found = blocks(mod["main"], layers, layers)
    values = dict(bindings(mod["main"]))
    assert [op_name(values[block.end]) for block in found] == ["matmul", "add", "add"]
    assert [block.start for block in found] == [None, *(block.end for block in found[:-1])]
    assert [len(block.layers) for block in found] == [1, 2, 2]


def test_what_no_layer_touches_lies_beside_the_blocks() -> None:
    mod = graph(_two_residuals, x=(1, 3, 8))
    layers = _layers(mod)
    apart = beside(mod["main"], layers)
    inside = [v for block in blocks(mod["main"], layers, layers) for v, _ in block.steps]
    assert [op_name(value) for _, value in apart] == ["exp", "exp"]
    assert not {var for var, _ in apart} & set(inside)


def test_a_tensor_that_goes_past_the_others_lets_no_block_end() -> None:
    def across(emit, x):
        a = emit(op.matmul(x, const(8, 8, seed=1)))
        b = emit(nn.relu(emit(op.matmul(a, const(8, 8, seed=2)))))
        c = emit(nn.relu(emit(op.matmul(b, const(8, 8, seed=3)))))
        return emit(op.add(a, c))

    mod = graph(across, x=(1, 3, 8))
    layers = _layers(mod)
    first, whole = blocks(mod["main"], layers, layers)
    assert [len(b.layers) for b in (first, whole)] == [1, 2]
    assert op_name(dict(bindings(mod["main"]))[whole.end]) == "add"


def test_no_block_ends_at_parts_of_a_tensor() -> None:
    def parted(emit, x):
        parts = emit(op.split(emit(op.matmul(x, const(8, 8, seed=1))), 2, axis=2))
        y = emit(op.multiply(emit(parts[0]), emit(parts[1])))
        return emit(op.matmul(y, const(4, 8, seed=2)))

    mod = graph(parted, x=(1, 3, 8))
    layers, values = _layers(mod), dict(bindings(mod["main"]))
    ends = [op_name(values[block.end]) for block in blocks(mod["main"], layers, layers)]
    assert ends == ["matmul", "matmul"]
