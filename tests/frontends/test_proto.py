"""An ONNX model in memory is read like its file, and left as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx_models import model, node, normal, save
from tvm_ffi import structural_equal

from hwptq.frontends.frontend import read_model

PROTO = model(
    [node("Conv", "x w", "a"), node("Relu", "a", "y")], {"x": ["N", 2, 3, 3]}, {"w": normal(1, 4, 2, 1, 1)}
)


def test_a_model_in_memory_is_read_like_its_file(tmp_path: Path):
    before = PROTO.SerializeToString()
    found, file = read_model(PROTO), read_model(save(PROTO, tmp_path))
    assert PROTO.SerializeToString() == before
    assert (found.name, file.name) == ("graph", "model")
    assert (found.inputs, found.outputs) == (file.inputs, file.outputs)
    assert structural_equal(found.module, file.module)


def test_its_name_makes_a_file_name():
    named = type(PROTO)()
    named.CopyFrom(PROTO)
    for name, made in {"a/b c": "a_b_c", "..": "model", "": "model"}.items():
        named.graph.name = name or "/"
        assert read_model(named).name == made
    np.testing.assert_equal(named.graph.name, "/")
