"""The report names what a device computes one element at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_the_border_of_a_model_is_scalar_where_vectors_have_no_float(demo: Callable[[str], Any]) -> None:
    coverage = demo("hexagon-v66-npu").report["coverage"]
    assert coverage["nodes_scalar"] == [
        {"name": "input", "op": "quantize"},
        {"name": "classifier", "op": "dequantize"},
    ]
    assert not coverage["nodes_float"]
