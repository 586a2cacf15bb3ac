"""Where the tensors of a static program lie."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax

from hwptq.backends.static_c.memory_plan import plan_memory
from hwptq.tir.vector_unit import THREADS

BIG, SMALL = 2 * 256 * 4, 256 * 4  # bytes


def _chain() -> tvm.IRModule:
    """Two tensors of BIG bytes, then one of SMALL in the memory of the first."""
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
    mod = _chain().with_attr(THREADS, threads)
    with tvm.target.Target("llvm"):
        plan = plan_memory(mod, ("y",), 64)
    first, second, small = (call.args[-1] for call in plan.calls[:3])
    assert {place.kind for place in (first, second, small)} == {"arena"}
    assert small.at - first.at == start
    assert abs(second.at - first.at) == BIG == plan.arena_bytes // 2
