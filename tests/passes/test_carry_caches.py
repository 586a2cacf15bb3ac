"""Caches are found by what computes an output from an input, and written where they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from tvm import relax

from hwptq import passes
from hwptq.backends.write_caches import WriteCachesInPlace
from hwptq.evaluate.steps import Steps
from hwptq.ir.caches import Cache, Caches, caches_of, fed_inputs, given_outputs, with_caches
from hwptq.operators.rows import RowQuantize, RowScale
from hwptq.targets import load_target

ROWS, WIDTH = 5, 3
op = relax.op


def function(shapes: dict[str, tuple[tuple[int, ...], str]], body: Callable[..., list[Any]]) -> tvm.IRModule:
    """`body` gets an emitter and the params, and gives the outputs."""
    builder = relax.BlockBuilder()
    params = [relax.Var(name, relax.TensorType(shape, dtype)) for name, (shape, dtype) in shapes.items()]
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit_output(relax.Tuple(body(builder.emit, *params)))
        builder.emit_func_output(out)
    return builder.get()


PAST = ((1, ROWS, WIDTH), "float32")
PLACES = relax.const(np.arange(ROWS)[None, :, None])
INPUTS = {"a": PAST, "new": ((1, 1, WIDTH), "float32"), "at": ((1,), "int64"), "b": PAST, "other": PAST}


def two_caches() -> tvm.IRModule:
    """Their outputs come in another order than their inputs; a third tensor is only passed on."""

    def body(emit: Any, a: Any, new: Any, at: Any, b: Any, other: Any) -> list[Any]:
        here = emit(op.equal(PLACES, at))
        now_a = emit(op.where(here, new, a))
        now_b = emit(op.where(here, emit(op.multiply(new, relax.const(np.float32(2)))), b))
        total = emit(op.sum(emit(op.add(now_a, now_b)), axis=[1]))
        return [now_b, total, now_a, other]

    return function(INPUTS, body)


def test_pairs_are_found_by_structure_and_the_rest_is_the_callers() -> None:
    mod = passes.CarryCaches()(two_caches())
    func = mod["main"]
    assert caches_of(func) == Caches((Cache(0, 2), Cache(3, 0)), 2, ROWS)
    assert fed_inputs(func, list(INPUTS)) == ["new", "at", "other"]
    assert given_outputs(func, "wxyz") == ["x", "z"]
    assert caches_of(with_caches(func, None)) is None
    tvm.ir.assert_structural_equal(with_caches(func, None), two_caches()["main"])


def doubtful(kind: str) -> tvm.IRModule:
    def body(emit: Any, a: Any, new: Any, at: Any, b: Any, other: Any) -> list[Any]:
        here = emit(op.equal(PLACES, at))
        if kind == "of two inputs":
            return [emit(op.where(here, a, b))]
        if kind == "given twice":
            return [emit(op.where(here, new, a)), emit(op.where(here, new, a))]
        if kind == "computed from it":
            return [emit(op.where(here, new, emit(op.negative(a))))]
        return [a]

    return function(INPUTS, body)


@pytest.mark.parametrize("kind", ["of two inputs", "given twice", "computed from it", "as it is"])
def test_what_is_no_cache(kind: str) -> None:
    assert caches_of(passes.CarryCaches()(doubtful(kind))["main"]) is None


def test_steps_carry_them_and_begin_anew() -> None:
    steps, zeros = Steps(passes.CarryCaches()(two_caches())), np.zeros(PAST[0], np.float32)
    totals = []
    for at in (0, 1, 2, 0):
        new = np.full((1, 1, WIDTH), at + 1, np.float32)
        totals.append(float(steps.run({"new": new, "at": np.array([at]), "other": zeros})[0][0, 0]))
    assert totals == [3.0, 9.0, 18.0, 3.0]


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_a_row_is_written_in_place_as_where_gives_it(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 4))
    shape = tuple(data.draw(st.integers(1, 4)) for _ in range(rank))
    some = st.lists(st.booleans(), min_size=rank, max_size=rank)
    here_shape, new_shape = (
        tuple(n if kept else 1 for n, kept in zip(shape, data.draw(some), strict=True)) for _ in range(2)
    )
    shapes = {"here": (here_shape, "bool"), "new": (new_shape, "float32"), "past": (shape, "float32")}
    mod = function(shapes, lambda emit, here, new, past: [emit(op.where(here, new, past))])
    mod["main"] = with_caches(mod["main"], Caches((Cache(2, 0),), None, 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    here, new = rng.random(here_shape) < 0.5, rng.standard_normal(new_shape).astype(np.float32)
    past = rng.standard_normal(shape).astype(np.float32)
    written = WriteCachesInPlace()(mod)
    assert "call_tir_inplace" in str(written["main"])
    kernel = tvm.compile(
        next(f for gv, f in written.functions.items() if "write" in gv.name_hint).with_attr(
            "global_symbol", "k"
        )
    )
    held = tvm.runtime.tensor(past)
    kernel["k"](tvm.runtime.tensor(here), tvm.runtime.tensor(new), held)
    assert np.array_equal(held.numpy(), np.where(here, new, past))


def test_caches_in_bytes_are_codes_and_scales_of_each_row() -> None:
    """[1, heads, N, D]: what a step reads is what RowQuantize makes of each row that was written."""
    shapes = {"new": ((1, 2, 1, 4), "float32"), "at": ((1,), "int64"), "past": ((1, 2, 3, 4), "float32")}
    places = relax.const(np.arange(3)[:, None])

    def body(emit: Any, new: Any, at: Any, past: Any) -> list[Any]:
        return [emit(op.where(emit(op.equal(places, at)), new, past)), emit(op.sum(past, axis=[2]))]

    def with_sum(emit: Any, new: Any, at: Any, past: Any) -> list[Any]:
        now, before = body(emit, new, at, past)
        return [now, emit(op.sum(now, axis=[2])), before]

    target = load_target("x86-64-avx2")
    mod = passes.CarryCaches()(function(shapes, with_sum))
    small = passes.CachesInBytes(target)(mod)
    found = caches_of(small["main"])
    assert found == Caches((Cache(2, 0), Cache(3, 1)), 1, 3)
    assert [str(p.ty.dtype) for p in small["main"].params] == ["float32", "int64", "int8", "float32"]
    steps, rng, total = Steps(small), np.random.default_rng(0), np.zeros((1, 2, 4), np.float32)
    for at in range(3):
        new = rng.standard_normal(shapes["new"][0]).astype(np.float32)
        scale = RowScale().reference(new)
        row = RowQuantize().reference(new, scale).astype(np.float32) * scale
        now, before = steps.run({"new": new, "at": np.array([at])})
        np.testing.assert_allclose(before, total, rtol=1e-6, atol=1e-6)
        total = total + row[:, :, 0]
        np.testing.assert_allclose(now, total, rtol=1e-6, atol=1e-6)


def test_what_writes_no_whole_rows_can_not_be_in_bytes() -> None:
    with pytest.raises(ValueError, match="whole rows"):
        passes.CachesInBytes(load_target("x86-64-avx2"))(function(INPUTS, lambda emit, a, *_: [a]))
