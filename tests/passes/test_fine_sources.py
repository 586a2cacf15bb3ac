"""What a layer gives to functions by table alone has 12 bits; what layers read, 8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tvm
from relax_graphs import Emit, apply, const, graph, nn, op, sqnr, stats_of

from hwptq.formats import INT12
from hwptq.ir.dataflow import bindings
from hwptq.ir.operator import integer_operator
from hwptq.passes import FuseConvRelu, InsertQDQ, LowerToInteger
from hwptq.targets import load_target

ARM = load_target("arm-cortex-a")
BYTES = replace(
    ARM, ops=tuple(replace(r, pairs=(("int8", "int8"),)) if r.op == "lookup" else r for r in ARM.ops)
)


def network(act: Callable[[Any], Any], also_read: bool = False) -> tvm.IRModule:
    """Conv, a function, conv; also_read: a third convolution reads the first."""

    def build(emit: Emit, x: Any) -> Any:
        a = emit(nn.conv2d(x, const(8, 3, 3, 3, seed=1), padding=1), "first")
        y = emit(nn.conv2d(emit(act(a), "act"), const(8, 8, 3, 3, seed=2), padding=1), "second")
        if also_read:
            y = emit(op.add(y, emit(nn.conv2d(a, const(8, 8, 1, 1, seed=3)), "third")), "sum")
        return y

    return apply(FuseConvRelu(), graph(build, x=(1, 3, 9, 9)))


def tables(mod: tvm.IRModule, target: Any) -> list[int]:
    """The entries of each lookup of the integer graph."""
    after = apply(LowerToInteger(target), apply(InsertQDQ(target, stats_of(mod)), mod))
    calls = [(integer_operator(after, v), v.args) for _, v in bindings(after["main"]) if hasattr(v, "args")]
    return [int(args[1].fields[1].ty.shape[0]) for node, args in calls if node and node.kind == "lookup"]


ACTS = {
    "silu": nn.silu,
    "leaky": lambda a: nn.leakyrelu(a, 0.1),
    "gelu": nn.gelu,
    "tanh": op.tanh,
    "spelled out": lambda a: op.multiply(a, op.sigmoid(a)),
}


@pytest.mark.parametrize("name", ACTS)
def test_functions_behind_a_layer_read_12_bits(name: str) -> None:
    assert tables(network(ACTS[name]), ARM) == [2**INT12.bits]


def test_a_target_that_lists_bytes_alone_reads_bytes() -> None:
    assert tables(network(nn.silu), BYTES) == [256]


def test_what_a_layer_reads_too_stays_a_byte() -> None:
    assert tables(network(nn.silu, also_read=True), ARM) == [256]


def test_a_layer_joined_with_a_function_of_it_has_one_dtype_with_it() -> None:
    """The two have one scale, and what the function gives is what it reads."""

    def build(emit: Emit, x: Any) -> Any:
        a = emit(nn.conv2d(x, const(8, 3, 3, 3, seed=1), padding=1), "first")
        joined = emit(op.concat([emit(nn.leakyrelu(a, 0.1), "act"), a], axis=1), "joined")
        return emit(nn.leakyrelu(joined, 0.1), "second")

    mod = apply(FuseConvRelu(), graph(build, x=(1, 3, 9, 9)))
    after = apply(LowerToInteger(ARM), apply(InsertQDQ(ARM, stats_of(mod)), mod))
    assert sqnr(mod, after) > 30


def test_one_rounding_is_less_than_two() -> None:
    mod = network(ACTS["leaky"])
    errors = []
    for target in (ARM, BYTES):
        qdq = apply(InsertQDQ(target, stats_of(mod)), mod)
        errors.append(sqnr(mod, apply(LowerToInteger(target), qdq)))
    assert errors[0] > errors[1] + 0.5


def test_a_limit_that_has_joined_the_layer_still_makes_a_small_table() -> None:
    """So it is in a QDQ file of ours that is compiled again."""
    mod = apply(FuseConvRelu(), apply(InsertQDQ(ARM, stats_of(network(nn.silu))), network(nn.silu)))
    after = apply(LowerToInteger(ARM), mod)
    calls = [(integer_operator(after, v), v.args) for _, v in bindings(after["main"]) if hasattr(v, "args")]
    found = [int(args[1].fields[1].ty.shape[0]) for node, args in calls if node and node.kind == "lookup"]
    assert found == [2**INT12.bits]
