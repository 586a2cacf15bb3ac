"""What a small file may stand for: too much is refused before it is computed, with the node's name."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from onnx_models import model, node, normal, save

from hwptq.errors import InputError, UnsupportedError
from hwptq.frontends.onnx.importer import import_onnx

BIG = np.array([2**30])
ONE, TWO = np.ones(1, np.float32), np.array([0, 2**30, 1])
LARGE = {
    "Tile": ([node("Tile", "t n", "c", "large")], {"t": ONE, "n": BIG}),
    "Expand": ([node("Expand", "t n", "c", "large")], {"t": ONE, "n": BIG}),
    "ConstantOfShape": ([node("ConstantOfShape", "n", "c", "large")], {"n": BIG}),
    "Range": (
        [node("Range", "a b d", "r", "large"), node("Cast", "r", "c", "cast", to=1)],
        {"a": TWO[0], "b": TWO[1], "d": TWO[2]},
    ),
    "Tile of what is computed": (
        [node("Mul", "n n", "m", "square"), node("Tile", "t m", "c", "large")],
        {"t": ONE, "n": np.array([2**15])},
    ),
    "Pad": ([node("Pad", "x p", "c", "large")], {"p": np.array([0, 2**29, 0, 0])}),
    "Resize": (
        [node("Resize", "i - s", "c", "large")],
        {"i": normal(0, 1, 1, 2, 2), "s": np.float32([1, 1, 1e5, 1e5])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LARGE)
def test_large_results(tmp_path: Path, kind: str):
    nodes, constants = LARGE[kind]
    nodes = [*nodes, node("ReduceSum", "c", "total", "sum", keepdims=0), node("Add", "x total", "y", "add")]
    path = save(model(nodes, {"x": ["N", 4]}, constants), tmp_path)
    tracemalloc.start()
    with pytest.raises(UnsupportedError, match=r"node 'large' \(\w+\): its result has .* elements"):
        import_onnx(path)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


@pytest.mark.parametrize("window", ["MaxPool", "Conv"])
def test_windows_larger_than_their_image(tmp_path: Path, window: str):
    weight = {"w": normal(0, 3, 3, 5, 5)} if window == "Conv" else {}
    options = {"kernel_shape": [5, 5]}
    nodes = [
        node(window, "x w" if weight else "x", "p", "pool", **options),
        node("GlobalAveragePool", "p", "y", "mean"),
    ]
    path = save(model(nodes, {"x": ["N", 3, 4, 4]}, weight), tmp_path)
    with pytest.raises(UnsupportedError, match=r"node 'pool' .* window is larger than its image"):
        import_onnx(path)


CUT = node("Slice", "x at at one", "none", "cut")  # no channels are left of x
NO_ELEMENTS = {
    "output 'none' has no elements": [CUT],
    r"node 'conv' \(Conv\): its image has no elements": [CUT, node("Conv", "none w0", "y", "conv")],
    r"node 'conv' \(Conv\): it has no output channels": [
        node("Conv", "x w1", "c", "conv"),
        node("Concat", "x c", "y", axis=1),
    ],
}


@pytest.mark.parametrize("message", NO_ELEMENTS)
def test_what_must_have_elements(tmp_path: Path, message: str):
    constants = {
        "at": np.array([2]), "one": np.array([1]), "w0": np.zeros((3, 0, 1, 1), np.float32),
        "w1": np.zeros((0, 3, 1, 1), np.float32),
    }  # fmt: skip
    path = save(model(NO_ELEMENTS[message], {"x": ["N", 3, 4, 4]}, constants), tmp_path)
    with pytest.raises(UnsupportedError, match=message):
        import_onnx(path)


def test_large_axes(tmp_path: Path):
    path = save(model([node("Relu", "x", "y", "relu")], {"x": ["N", "length"]}), tmp_path)
    with pytest.raises(InputError, match=re.escape(f"--axis length={10**20}: give at most")):
        import_onnx(path, {"length": 10**20})
