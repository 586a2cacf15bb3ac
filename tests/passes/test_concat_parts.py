"""Parts of unlike ranges keep their own scales, through a concat and to the end of the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import expected, model, node, normal, save

import hwptq
from hwptq.passes.graph.concat_parts import unlike_parts

#: Boxes span some hundreds, scores 0 … 1. In the common scale of both, every score would be one value.
BOXES = np.float32(200)
SHAPE = (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("ranges", "apart"),
    [
        ({"a": (0, 1), "b": (0, 4)}, []),
        ({"a": (0, 1), "b": (0, 4.1)}, ["a"]),
        ({"a": (0, 1), "b": (-3, 1.5)}, ["a"]),
        ({"a": (0, 1), "b": (2, 3)}, []),  # every range holds 0
        ({"a": (0, 0), "b": (0, 9)}, []),  # nothing to lose
    ],
)
def test_unlike_parts(ranges: dict[str, tuple[float, float]], apart: list[str]) -> None:
    assert unlike_parts(ranges, ranges.__getitem__) == apart


def _head(tail: list[onnx.NodeProto]) -> onnx.ModelProto:
    nodes = [
        node("Conv", "x w0", "a", "stem", pads=[1] * 4),
        node("Relu", "a", "b", "relu"),
        node("Conv", "b w1", "c", "sides"),
        node("Mul", "c pixels", "boxes", "to_pixels"),
        node("Conv", "b w2", "d", "classes"),
        node("Sigmoid", "d", "scores", "sigmoid"),
        node("Concat", "boxes scores", "joined", "join", axis=1),
        *tail,
    ]
    constants: dict[str, Any] = {
        "w0": normal(0, 8, 3, 3, 3, spread=0.3), "w1": normal(1, 4, 8, 1, 1, spread=0.5), "pixels": BOXES,
        "w2": normal(2, 5, 8, 1, 1, spread=0.5), "w3": normal(3, 6, 9, 1, 1, spread=0.1),
        "rows": np.array([1, 9, 64]), "w4": normal(4, 2, 8, 1, 1, spread=0.5),
    }  # fmt: skip
    return model(nodes, {"x": SHAPE}, constants)


def _compiled(proto: onnx.ModelProto, folder: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    """The compiled model, and what ONNX's reference and the emitted code give for one sample."""
    rng = np.random.default_rng(0)
    data = [{"x": rng.normal(size=SHAPE).astype(np.float32)} for _ in range(24)]
    result = hwptq.compile(save(proto, folder), "x86-64-avx2", data, output=folder / "out")
    (found,) = result.run(data[0]).values()
    return result, expected(proto, data[0])[0], found


def _sqnr(exact: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10((exact**2).sum() / ((exact - found) ** 2).sum()))


@pytest.mark.parametrize(
    "tail",
    [
        [],
        [node("Reshape", "joined rows", "r", "flat"), node("Transpose", "r", "y", "turn", perm=[0, 2, 1])],
    ],
    ids=["concat", "concat, reshape, transpose"],
)
def test_the_last_concat_is_put_together_by_parts(tail: Any, tmp_path: Path, runnable: Any) -> None:
    runnable("x86-64-avx2")
    result, exact, found = _compiled(_head(tail), tmp_path)
    axis = list(exact.shape).index(9)
    for part in (range(4), range(4, 9)):
        assert _sqnr(exact.take(part, axis), found.take(part, axis)) > 30
    report = result.report
    assert report["coverage"]["macs_quantized"] == report["coverage"]["macs_total"]
    assert report["bit_exact"]["mismatches"] == 0


def test_a_concat_between_layers_requantizes_what_is_unlike(tmp_path: Path, runnable: Any) -> None:
    """A sigmoid of 0 … 1 keeps its own scale for its other reader."""
    runnable("x86-64-avx2")
    proto = _head([node("Conv", "joined w3", "e", "mix"), node("Slice", "scores from to axes", "y", "best")])
    for name, value in (("from", [0]), ("to", [5]), ("axes", [1])):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    result, exact, found = _compiled(proto, tmp_path)
    assert _sqnr(exact, found) > 30
    assert result.report["bit_exact"]["mismatches"] == 0
