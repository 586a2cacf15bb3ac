"""prepare: which float passes a recipe runs, and for which granularity of weights."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import model, node, normal, save
from tvm import relax

import hwptq
from hwptq.data.dataset import from_batches
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import bindings, constant
from hwptq.progress import Progress
from hwptq.quantize import fuse, prepare
from hwptq.recipe import recipe
from hwptq.targets import load_target


def weights(module):
    return [constant(v.args[1]) for _, v in bindings(module["main"]) if isinstance(v, relax.Call)]


@pytest.mark.parametrize(
    ("granularity", "setting", "equalized"),
    [
        ("tensor", "equalize=auto", True),
        ("channel", "equalize=auto", False),
        (None, "equalize=auto", False),  # the target's convolutions have a scale for each channel
        ("channel", "equalize=on", True),
        ("tensor", "equalize=off", False),
    ],
)
def test_auto_equalizes_where_weights_have_one_scale(tmp_path, granularity, setting, equalized):
    constants = {"w1": normal(1, 4, 2, 1, 1), "w2": normal(2, 3, 4, 1, 1)}
    constants["w1"][0] *= 50
    nodes = [node("Conv", "x w1", "a"), node("Relu", "a", "b"), node("Conv", "b w2", "y")]
    imported = import_onnx(save(model(nodes, {"x": ["N", 2, 3, 3]}, constants), tmp_path))
    options = hwptq.Options(weight_granularity=granularity, recipe=recipe("default", [setting]))
    data = from_batches([{"x": normal(3, 1, 2, 3, 3)}], imported.inputs)
    float32, _ = prepare(imported.module, load_target("x86-64-vnni"), data, options, Progress())
    same = all(
        np.array_equal(a, b) for a, b in zip(weights(fuse(imported.module)), weights(float32), strict=True)
    )
    assert same != equalized
