"""Residual streams, gates and what norms read are int16; products, and tables, read bytes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from relax_graphs import Emit, apply, const, graph, nn, op, sqnr, stats_of

from hwptq.ir.dataflow import bindings, op_name
from hwptq.passes import FuseConvRelu, InsertQDQ, LowerToInteger
from hwptq.report.coverage import integer_nodes
from hwptq.targets import load_target

ARM = load_target("arm-cortex-a")
IN_BYTES = ("layer_norm", "lookup")
BYTES = replace(
    ARM, ops=tuple(replace(r, pairs=(("int8", "int8"),)) if r.op in IN_BYTES else r for r in ARM.ops)
)


def dense(emit: Emit, x: Any, name: str, seed: int) -> Any:
    return emit(op.matmul(x, const(12, 12, seed=seed)), name)


def block() -> tvm.IRModule:
    """x + dense(norm(x)), twice, the second dense layer of a gate."""

    def build(emit: Emit, x: Any) -> Any:
        for i in range(2):
            y = emit(nn.layer_norm(x, const(12, seed=5), const(12, seed=6), [-1]), f"norm{i}")
            if i:
                gate = emit(op.sigmoid(dense(emit, y, "gate", 7)), "sigmoid")
                y = emit(op.multiply(gate, dense(emit, y, "up", 8)), "gated")
            x = emit(op.add(x, dense(emit, y, f"dense{i}", i)), f"sum{i}")
        return emit(nn.layer_norm(x, const(12, seed=9), const(12, seed=10), [-1]), "last")

    return apply(FuseConvRelu(), graph(build, x=(1, 7, 12)))


def dtypes(target: Any) -> dict[str, str]:
    """Name of what is quantized -> the dtype it is quantized to first."""
    mod = block()
    after = apply(InsertQDQ(target, stats_of(mod)), mod)
    found: dict[str, str] = {}
    for _, value in bindings(after["main"]):
        if op_name(value) == "quantize":
            found.setdefault(str(value.args[0].name), str(value.ty.dtype))
    return found


def test_what_sums_and_norms_read_is_wide() -> None:
    found = dtypes(ARM)
    for name in ("x", "sum0", "sum1", "dense0", "dense1", "up", "sigmoid", "last", "gate_clip"):
        assert found[name] == "int16", name
    for name in ("norm0", "norm1", "gated"):
        assert found[name] == "int8", name


def test_what_a_product_gives_to_the_user_is_wide_where_there_are_streams() -> None:
    def end(normed: bool) -> str:
        def build(emit: Emit, x: Any) -> Any:
            y = emit(nn.layer_norm(x, const(12, seed=5), const(12, seed=6), [-1]), "norm") if normed else x
            return dense(emit, y, "embedding", 1)

        mod = apply(FuseConvRelu(), graph(build, x=(1, 7, 12)))
        after = apply(InsertQDQ(ARM, stats_of(mod)), mod)
        values = [value for _, value in bindings(after["main"]) if op_name(value) == "quantize"]
        return str(values[-1].ty.dtype)

    assert (end(normed=True), end(normed=False)) == ("int16", "int8")


def test_the_end_of_a_head_is_wide_where_a_table_could_read_it() -> None:
    """Of a convolution that a float operator or nobody reads; not of one that another one reads."""

    def build(emit: Emit, x: Any) -> Any:
        y = emit(nn.relu(emit(nn.conv2d(x, const(4, 3, 1, 1)))), "neck")
        scores = emit(nn.conv2d(y, const(6, 4, 1, 1, seed=1)), "scores")
        return emit(nn.softmax(emit(op.reshape(scores, (1, 2, 3 * 25))), axis=1))

    mod = apply(FuseConvRelu(), graph(build, x=(1, 3, 5, 5)))
    for target, end in ((ARM, "int16"), (BYTES, "int8")):
        after = apply(InsertQDQ(target, stats_of(mod)), mod)
        values = [value for _, value in bindings(after["main"]) if op_name(value) == "quantize"]
        assert [str(v.ty.dtype) for v in values] == ["int8", "int8", end, end]  # x, neck, scores, moved


def test_a_target_whose_norms_read_bytes_has_no_streams() -> None:
    assert set(dtypes(BYTES).values()) == {"int8"}


def test_all_of_it_computes_in_integers_and_keeps_its_values() -> None:
    mod = block()
    after = apply(LowerToInteger(ARM), apply(InsertQDQ(ARM, stats_of(mod)), mod))
    kinds = {node.kind for _, node, _ in integer_nodes(after)}
    assert kinds == {"quantize", "layer_norm", "dense", "lookup", "mul", "add", "dequantize"}

    assert sqnr(mod, after) > 30
    assert np.isfinite(sqnr(mod, after))
