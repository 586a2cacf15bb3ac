"""Operators that ONNX defines by others: their bodies, with attributes that a node leaves to the standard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_models import expected, model, node, normal

from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_proto


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("attributes", [{}, {"periodic": 0}], ids=str)
def test_windows_of_sound(op: str, attributes: dict[str, Any]) -> None:
    nodes = [node(op, "size", "window", "window", **attributes), node("Mul", "x window", "y")]
    proto = model(nodes, {"x": [1, 2, 16]}, {"size": np.array(16)})
    inputs = {"x": normal(1, 1, 2, 16)}
    [wanted] = expected(proto, inputs)
    [found] = Interpreter(import_proto(proto, "model").module).run(inputs)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
