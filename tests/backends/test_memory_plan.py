"""Where the tensors of a static program lie, and which results take the memory of an operand."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from hwptq.backends.program import Stay
from hwptq.backends.static_c.memory_plan import MemoryPlan, plan_memory
from hwptq.operators.lookup import Lookup
from hwptq.tir.builder import OVERLAYS
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import THREADS

BIG, SMALL = 2 * 256 * 4, 256 * 4  # bytes
SIZE = 64


def _plan(mod: tvm.IRModule) -> MemoryPlan:
    with tvm.target.Target("llvm"):
        return plan_memory(mod, ("y",), 64)


def _chain() -> tvm.IRModule:
    """Two tensors of BIG bytes, then one of SMALL."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 256), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            first = builder.emit(relax.op.exp(x))
            second = builder.emit(relax.op.exp(first))
            small = builder.emit(relax.op.max(second, axis=0))
            out = builder.emit_output(relax.op.exp(small))
        builder.emit_func_output(out)
    return builder.get()


@pytest.mark.parametrize(("threads", "start"), [(1, 0), (2, (BIG - SMALL) // 2)])
def test_tensors_of_shared_memory_have_a_common_middle_for_threads(threads: int, start: int) -> None:
    plan = _plan(_chain().with_attr(THREADS, threads))
    first, second, small = (call.args[-1] for call in plan.calls[:3])
    assert {place.kind for place in (first, second, small)} == {"arena"}
    assert small.at - first.at == start
    assert abs(second.at - first.at) == BIG == plan.arena_bytes // 2
    assert plan.least_bytes == 2 * BIG


def _lookups(readers: int, threads: int = 1) -> tvm.IRModule:
    """Three lookups in a row; the result of the second one is read by so many others."""
    table = relax.const(np.arange(256, dtype=np.int8))
    types = [TensorType((SIZE,), "int8"), TensorType((256,), "int8")]
    func = Lookup().primfunc(types, types[0])
    assert func.attrs[OVERLAYS] == "0"
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((SIZE,), "int8"))
    with builder.function("main", [x]):
        lookup = builder.add_func(func, "lookup")

        def looked_up(tensor: relax.Expr) -> relax.Expr:
            return relax.call_tir(lookup, [tensor, table], relax.TensorType((SIZE,), "int8"))

        with builder.dataflow():
            first = builder.emit(looked_up(x))
            second = builder.emit(looked_up(first))
            third = builder.emit(looked_up(second))
            if readers > 1:
                third = builder.emit(relax.op.concat([third, second]))
            fourth = builder.emit(relax.op.exp(relax.op.astype(third, "float32")))
            out = builder.emit_output(fourth)
        builder.emit_func_output(out)
    return builder.get().with_attr(THREADS, threads)


def test_a_result_takes_the_memory_of_an_operand_that_nobody_reads_any_more() -> None:
    plan = _plan(_lookups(readers=1))
    assert [call.symbol for call in plan.calls[:3]] == ["lookup", "lookup_over_0", "lookup_over_0"]
    assert [len(call.args) for call in plan.calls[:3]] == [3, 2, 2]  # the input is not ours to change
    assert len({call.args[-1] for call in plan.calls[:3]}) == 1
    assert len(plan.functions["lookup_over_0"].params) == 2
    at = plan.calls[0].args[-1].at
    assert plan.stays[:3] == (Stay(at, SIZE, 0, 0), Stay(at, SIZE, 1, 1), Stay(at, SIZE, 2, 3))


def test_an_operand_that_is_read_later_keeps_its_memory() -> None:
    plan = _plan(_lookups(readers=2))
    assert [call.symbol for call in plan.calls[:3]] == ["lookup", "lookup_over_0", "lookup"]
    second, third = (call.args[-1] for call in plan.calls[1:3])
    assert second != third


def test_threads_share_no_memory_of_operands_and_results() -> None:
    plan = _plan(_lookups(readers=1, threads=2))
    assert all(call.over is None for call in plan.calls)
