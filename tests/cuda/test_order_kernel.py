"""The order of values on a GPU: its two kernels, on this machine."""

from __future__ import annotations

import numpy as np
import pytest
from on_processor import run

from hwptq.kernels.cuda.order import order_steps
from hwptq.operators.real_order import RealOrder
from hwptq.tir.kernel import TensorType


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize("largest", [True, False])
def test_threads_count_what_comes_before(largest: bool, dtype: str) -> None:
    x, k = np.random.default_rng(0).integers(-9, 9, (3, 50)).astype(dtype), 20
    ranks, places = order_steps(RealOrder(largest), TensorType(x.shape, dtype), TensorType((3, k), "int64"))
    found = run(places.func, [run(ranks.func, [x], ranks.out)], places.out)
    np.testing.assert_array_equal(found, np.argsort(-x if largest else x, axis=-1, kind="stable")[:, :k])
