"""CUDA kernels of what stays in float32, and of weights by group: equal to the reference."""

from __future__ import annotations

from random import Random
from typing import Any

import attention_cases
import function_cases
import group_cases
import numpy as np
import on_processor
import pytest
from emulated_source import emulated
from kernel_cases import Case, type_of

from hwptq.kernels.cuda.element import elementwise_kernel
from hwptq.kernels.cuda.rows import row_kernel
from hwptq.kernels.template import import_kernels
from hwptq.targets.gpu import Gpu

GPU = Gpu()
KINDS = (
    function_cases.sigmoid, function_cases.rows, function_cases.arithmetic, function_cases.norm,
    attention_cases.real, attention_cases.codes, group_cases.dense, group_cases.embedding,
)  # fmt: skip


def check(case: Case) -> None:
    import_kernels()
    arrays, expected = [*case.activations, *case.constants], case.expected()
    types, out = [type_of(a) for a in arrays], type_of(expected)
    func = row_kernel(case.op, types, out, GPU)
    if func is not None:
        (found,) = emulated(func, arrays, [out])
    else:
        found = on_processor.run(elementwise_kernel(case.op, types, out, {}), arrays, out)
    np.testing.assert_array_equal(
        found.view(np.uint8), np.ascontiguousarray(expected).view(np.uint8), err_msg=str(case.op)
    )


@pytest.mark.usefixtures("intrinsics")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
@pytest.mark.parametrize("seed", range(3))
def test_kernels(kind: Any, seed: int) -> None:
    check(kind(Random(seed)))
