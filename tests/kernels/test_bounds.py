"""Kernels touch their buffers only: shown from the index expressions, for every load and store."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_targets import INTEGER_TARGETS
from kernel_cases import Case, depthwise_case, matmul_case, random_case
from tvm import tirx
from tvm.target.codegen import llvm_lookup_intrinsic_id
from tvm_ffi import structural_walk

from hwptq.kernels.mac import Mac
from hwptq.operators.conv2d import Conv2d
from hwptq.targets import load_target

PREFETCH = llvm_lookup_intrinsic_id("llvm.prefetch")


def accesses(func: Any, readable_behind: int = 0) -> Iterator[tuple[str, int, int, int]]:
    """(buffer, first element, last element, size) of every load and store, over all iterations.

    To a load, a buffer is longer by `readable_behind` bytes. What is asked for ahead is no access.
    """
    analyzer = tvm.sym.Analyzer()
    found: list[Any] = []
    ahead: list[Any] = []
    named: list[Any] = []

    def bind(loop: Any) -> None:
        analyzer.bind(loop.loop_var, tvm.ir.Range.from_min_extent(loop.min, loop.extent))

    def ask(call: Any) -> None:
        first = call.args[0] if call.args else None
        if isinstance(first, tirx.IntImm) and int(first) == PREFETCH:
            ahead.extend(call.args[1].args)

    structural_walk(
        func.body,
        (
            (tirx.stmt.For, bind),
            (tirx.stmt.Bind, named.append),
            (tvm.ir.Call, ask),
            (tvm.ir.TensorLoad, found.append),
            (tirx.stmt.BufferStore, found.append),
        ),
    )
    for binding in named:  # of loop variables, all of which are bound by now
        if str(binding.var.ty.dtype) == "int32":
            analyzer.bind(binding.var, binding.value)
    for node in found:
        if any(node.same_as(other) for other in ahead):
            continue
        store = isinstance(node, tirx.stmt.BufferStore)
        buffer, (index,) = node.buffer if store else node.source, node.indices
        behind = 0 if store else readable_behind // np.dtype(str(buffer.dtype)).itemsize
        lanes = int(index.lanes) if isinstance(index, tirx.Ramp) else 1
        bound = analyzer.const_int_bound(index.base if lanes > 1 else index)
        size = prod(int(n) for n in buffer.shape) + behind
        yield str(buffer), bound.min_value, bound.max_value + lanes - 1, size


@pytest.mark.parametrize("name", INTEGER_TARGETS)
@settings(max_examples=30, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_no_access_outside_a_buffer(name, random):
    case, target = random.choice((random_case, depthwise_case, matmul_case))(random), load_target(name)
    for step in case.steps(target):
        outside = [a for a in accesses(step.func, target.memory.readable_behind) if a[1] < 0 or a[2] >= a[3]]
        assert not outside, f"{case}: {step.name}: {outside}"


def test_a_load_beyond_the_buffer_is_noticed(monkeypatch):
    """Without slack behind the packed input, the last run of 3 elements is read as 4."""
    monkeypatch.setattr(Mac, "slack", lambda mac, run: 0)
    op = Conv2d((1, 1), (0, 0, 0, 0), (1, 1), 1, 0, 0, -128, 127)
    ones = np.ones(4, np.int32)
    constants = (np.ones((4, 1, 1, 3), np.int8), ones, ones * 2**30, ones)
    case = Case(op, (np.ones((1, 1, 1, 3), np.int8),), constants)
    (step,) = case.steps(load_target("arm-cortex-a"))
    assert [(first, last, size) for _, first, last, size in accesses(step.func) if last >= size] == [
        (0, 3, 3)
    ]
