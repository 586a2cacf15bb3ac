"""model.so leaves small kernels to one thread, and shares large ones."""

from __future__ import annotations

import pytest
import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T
from tvm_ffi import structural_equal, structural_walk

from hwptq.backends.static_c.shared_library import _LEAST_SHARED, _small_ones_alone
from hwptq.tir.builder import Expr, Flat, Parts, primfunc, share
from hwptq.tir.kernel import TensorType


@pytest.mark.parametrize(("cycles", "kind"), [(_LEAST_SHARED - 1, "SERIAL"), (_LEAST_SHARED, "PARALLEL")])
def test_what_threads_of_tvm_share(cycles: int, kind: str) -> None:
    def emit(x: Flat, y: Flat) -> None:
        def part(first: Expr, count: Expr) -> None:
            with T.serial(count) as i:
                y.store(first + i, x.load(first + i))

        share(100, Parts(2, cycles), part)

    func = primfunc([TensorType((100,), "int8")] * 2, {}, emit)
    before = tvm.IRModule({"main": func})
    loops: list[tirx.For] = []
    structural_walk(_small_ones_alone(before)["main"].body, ((tirx.For, loops.append),))
    assert [tirx.ForKind(loop.kind).name for loop in loops if int(loop.extent) == 2] == [kind]
    assert structural_equal(before["main"], func)
